"""A person who knows nothing but the console: comes from its first page to a case, and settles it there."""

from tests.acceptance.browser import Browser, Page
from tests.acceptance.machine import Machine
from tests.acceptance.world import World

HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"


async def something_of_everything(world: World, machine: Machine) -> tuple[dict[str, str], str]:
    """A rental that failed and was undone, one that goes on, and hostile words wherever one may write.

    The name of one of each page (`/runs` → its trace; `/allocations` is the one that goes on), and the one that failed.
    """
    machine.fault("key-install", "exit", times=1, exit_status=1)
    failed = await world.request(node_id=machine.node_id)
    await world.allocation_is(failed, "failed")
    await world.cleaned(failed)
    rented = await world.rent(node_id=machine.node_id, external_ref=HOSTILE[:60])
    labels = {"site": HOSTILE[:60], "world": "x"}
    await world.ok("ops.node.update", {"node_id": machine.node_id, "labels": labels, "reason": HOSTILE})
    run = await world.one("SELECT * FROM public_v1.recovery_run WHERE entity = $1", f"allocation:{failed}")
    meter = await world.one("SELECT * FROM public_v1.meter WHERE allocation_id = $1", rented)
    names = {
        "/runs": run["recovery_trace_id"], "/nodes": machine.node_id, "/lost": machine.node_id,
        "/allocations": rented, "/accounts": "acme", "/meters": meter["meter_id"],
    }  # fmt: skip
    return names, failed


# What hangs on more than one node, on the relay's queue, or on a state that cannot be made out.
UNFORETOLD = frozenset(("mass_offline", "outbox_poison", "actor_quarantined"))


async def settle(world: World, kind: str, target_ref: str, subject: str, **fields: str) -> None:
    """From the first page to the open case of that kind and target, and through its form; `fields` beside the known."""
    async with Browser(world.endpoints["http_url"]) as person:
        assert (await person.log_in(world.operator_token or world.endpoints["operator_token"])).status == 200
        page = await _case(person, kind, target_ref)
        assert "Runbook" in page.text
        after = await person.do(page, subject, **{"reason": "settled in the console", **fields})
        assert (after.status, after.url) == (200, page.url), after.text
        looked_at = person.looked_at.text
        assert (kind in UNFORETOLD) == ("What would happen cannot be told" in looked_at), looked_at
        assert (kind in UNFORETOLD) != ("What would happen</h2>" in looked_at), looked_at


async def _case(person: Browser, kind: str, target_ref: str) -> Page:
    first = await person.get("/")
    seen = []
    for link in dict.fromkeys(each for each in first.links if each.startswith("/cases/")):
        page = await person.get(link)
        if f"<h1>{kind}</h1>" in page.text and target_ref in page.text:
            return page
        seen.append(link)
    raise AssertionError(f"no case {kind} of {target_ref} among {seen}: {first.text}")
