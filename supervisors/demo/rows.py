"""The rows of this release, each provoked by breaking the real thing, and held to what the matrix says."""

import time
from collections.abc import Awaitable, Callable
from typing import Self

from nats.js.api import StreamConfig

from supervisors.demo.aftermath import drop_trigger
from supervisors.demo.loss import bill, rented
from supervisors.demo.money import r05, r06
from supervisors.demo.result import Result, ended, expect
from supervisors.demo.site import DemoFailed, Site
from supervisors.demo.storage import r10, r11, r12, r13, r14
from supervisors.demo.teller import Teller


class StreamGone:
    """A JetStream stream that is deleted and later made again as it was."""

    def __init__(self, site: Site, name: str) -> None:
        self._js, self._name = site.admin.jetstream(), name
        self._config: StreamConfig | None = None

    async def __aenter__(self) -> Self:
        self._config = (await self._js.stream_info(self._name)).config
        await self._js.delete_stream(self._name)
        return self

    async def back(self) -> None:
        """Make it again."""
        if self._config is not None:
            await self._js.add_stream(self._config)
            self._config = None

    async def __aexit__(self, *exc: object) -> None:
        await self.back()


async def r01(site: Site) -> Result:
    """Delete the event stream, rent, make it again."""
    began = time.monotonic()
    async with StreamGone(site, "AMENDS_EVT") as stream:
        allocation = await site.request()
        await site.allocation_is(allocation, "active")
        stuck = await site.until_sql(
            "a pending outbox row with two tries",
            "SELECT outbox_id FROM public_v1.outbox WHERE state = 'pending' AND attempts >= 2",
        )
        await stream.back()
    await site.until_sql("the outbox is empty", "SELECT count(*) = 0 FROM public_v1.outbox WHERE state <> 'published'")
    entity = f"outbox:{stuck}"
    await ended(site, entity, "recovered", "R01")
    undone = await expect(site, entity, [("compensate", "external_call", "success")])
    await _release(site, allocation)
    return Result("R01", "event stream deleted", undone, "recovered", (time.monotonic() - began) * 1000)


async def r02(site: Site) -> Result:
    """The customer's key cannot be installed: the user goes again, the node is free again."""
    assert site.fleet is not None
    began = time.monotonic()
    node = await site.free_node()
    await site.fleet.fault(node, "key-install", "exit", times=1, exit_status=1)
    allocation = await site.request(node_id=node)
    await site.allocation_is(allocation, "failed")
    entity = f"allocation:{allocation}"
    await ended(site, entity, "recovered", "R02")
    undone = await expect(
        site, entity, [("reverse", "side_effect", "success"), ("rollback", "state_change", "success")]
    )
    if await site.fleet.users(node):
        raise DemoFailed(f"R02: {node} still has users")
    return Result("R02", "key-install exits 1", undone, "recovered", (time.monotonic() - began) * 1000)


TRIGGER = """
CREATE FUNCTION demo_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF NEW.state = 'active' THEN RAISE EXCEPTION 'the demo refuses this write'; END IF; RETURN NEW; END $$;
CREATE TRIGGER demo_refuse BEFORE INSERT OR UPDATE ON allocations FOR EACH ROW EXECUTE FUNCTION demo_refuse()
"""


async def r03(site: Site) -> Result:
    """The database refuses the activation, again and again."""
    began = time.monotonic()
    await site.sql.execute(TRIGGER)
    try:
        allocation = await site.request()
        await site.allocation_is(allocation, "failed")
    finally:
        await drop_trigger(site)
    entity = f"allocation:{allocation}"
    await ended(site, entity, "recovered", "R03")
    undone = await expect(
        site, entity, [("compensate", "side_effect", "success"), ("reverse", "side_effect", "success")]
    )
    return Result("R03", "database refuses activation", undone, "recovered", (time.monotonic() - began) * 1000)


async def r04(site: Site) -> Result:
    """The node's SSH is gone at the release, and comes back."""
    assert site.fleet is not None
    began = time.monotonic()
    allocation = await site.request()
    await site.allocation_is(allocation, "active")
    node = await site.value("SELECT node_id FROM public_v1.allocation WHERE allocation_id = $1", allocation)
    await site.fleet.fault(node, "user-remove", "exit", times=1, exit_status=1)
    await site.ask("cmd.allocation.release", {"allocation_id": allocation})
    entity = f"allocation:{allocation}"
    await ended(site, entity, "recovered", "R04")
    undone = await expect(
        site, entity, [("compensate", "side_effect", "partial"), ("reverse", "side_effect", "success")]
    )
    return Result("R04", "cleanup exits 1 at release", undone, "recovered", (time.monotonic() - began) * 1000)


async def r07(site: Site) -> Result:
    """The notification stream is gone until the notification is parked."""
    began = time.monotonic()
    allocation = await site.request()
    await site.allocation_is(allocation, "active")
    async with StreamGone(site, "AMENDS_NTF") as stream:
        await _release(site, allocation)
        ntf = await site.until_sql(
            "a parked notification",
            "SELECT notification_id FROM public_v1.notification WHERE state = 'parked' AND entity = $1",
            f"allocation:{allocation}",
        )
        await stream.back()
    await site.until_sql(
        "the notification is sent", "SELECT state = 'sent' FROM public_v1.notification WHERE notification_id = $1", ntf
    )
    entity = f"notification:{ntf}"
    await ended(site, entity, "recovered", "R07")
    undone = await expect(
        site, entity, [("compensate", "external_call", "partial"), ("compensate", "external_call", "success")]
    )
    return Result("R07", "notification stream deleted", undone, "recovered", (time.monotonic() - began) * 1000)


async def _release(site: Site, allocation: str) -> None:
    await site.ask("cmd.allocation.release", {"allocation_id": allocation})
    await site.allocation_is(allocation, "released")


async def r08(site: Site, tell: Teller) -> Result:
    """The node dies under its customer, and comes back."""
    assert site.fleet is not None
    allocation, node = await rented(site, tell)
    began, since_us = time.monotonic(), time.time_ns() // 1000
    await site.fleet.agent_stop(node)
    await site.fleet.ssh_stop(node)
    await site.until_sql(
        "the rental has failed",
        "SELECT state = 'failed' AND failure_code = 'node_offline' FROM public_v1.allocation WHERE allocation_id = $1",
        allocation, timeout_s=40,
    )  # fmt: skip
    await tell.say(f"{node} is lost. {await bill(site, allocation)}")
    ms = (time.monotonic() - began) * 1000
    await site.fleet.ssh_start(node)
    await site.fleet.agent_start(node)
    entity = f"allocation:{allocation}"
    for each in (entity, f"node:{node}"):
        await ended(site, each, "recovered", "R08", since_us=since_us)
    await site.until_sql(f"{node} is ready", "SELECT state = 'ready' FROM public_v1.node WHERE node_id = $1", node)
    if users := await site.fleet.users(node):
        raise DemoFailed(f"R08: {node} still has {users}")
    undone = await _settled(site, entity)
    return Result("R08", "node dies under a customer", undone, "recovered", ms)


async def r09(site: Site, tell: Teller) -> Result:
    """An operator ends a rental, for a reason that the policy refunds."""
    allocation, _ = await rented(site, tell)
    began = time.monotonic()
    body = {"allocation_id": allocation, "reason_code": "platform_fault", "reason": "the rack loses its cooling"}
    await site.ask("ops.allocation.force_release", body)
    await site.allocation_is(allocation, "released")
    entity = f"allocation:{allocation}"
    await ended(site, entity, "recovered", "R09")
    await tell.say(await bill(site, allocation))
    undone = await _settled(site, entity)
    return Result("R09", "operator forces the release", undone, "recovered", (time.monotonic() - began) * 1000)


async def _settled(site: Site, entity: str) -> str:
    """The meter's record first, then one for each amount given back."""
    found = await site.compensations(entity)
    back = ("reverse", "state_change", "success")
    if len(found) not in (2, 3) or found[0] != ("cancel", "state_change", "success") or set(found[1:]) != {back}:
        raise DemoFailed(f"{entity}: the compensations are {found}, and it was cancelled and given back")
    return ", ".join(dict.fromkeys(f"{kind} {what}" for kind, what, _ in found))


def _silent(row: Callable[[Site], Awaitable[Result]]) -> Callable[[Site, Teller], Awaitable[Result]]:
    return lambda site, tell: row(site)


ROWS: dict[str, Callable[[Site, Teller], Awaitable[Result]]] = {
    **{name: _silent(row) for name, row in {"R01": r01, "R02": r02, "R03": r03, "R04": r04}.items()},
    "R05": r05,
    "R06": r06,
    "R07": _silent(r07),
    "R08": r08,
    "R09": r09,
    "R10": r10,
    "R11": r11,
    "R12": r12,
    "R13": r13,
    "R14": r14,
}
STORY: dict[str, str] = {
    "R01": "the event stream vanishes while a rental is requested",
    "R02": "the customer's key cannot be installed",
    "R03": "the database refuses to activate what stands on the node",
    "R04": "the node does not clean up at the release",
    "R05": "a billing worker is replayed",
    "R06": "a customer pays, and Stripe says so again and again",
    "R07": "the bus is down when the customer is to be told",
    "R08": "the node dies under its customer",
    "R09": "an operator ends a rental, and the policy pays it back",
    "R10": "two want to write to one namespace",
    "R11": "the storage host has lost a directory",
    "R12": "a mount is there, and cannot be read",
    "R13": "a process holds a mount that is to go",
    "R14": "a namespace is twice as full as it may be",
}
