"""What must hold when all trouble is over: nothing under way, nobody left on a machine, nothing lost or doubled."""

from collections import Counter

from tests.acceptance.records import all_is_well, check_trace
from tests.acceptance.world import EVENTS, NOTIFICATIONS, World, until
from tests.patience import PATIENCE_S


async def nothing_is_left_under_way(world: World) -> None:
    """Wait for the end of all steps, events, notifications, rentals, runs and cases."""

    async def at_rest() -> bool:
        steps = await world.rows("SELECT * FROM public_v1.step WHERE state = 'intended'")
        outbox = await world.rows("SELECT * FROM public_v1.outbox WHERE state <> 'published'")
        waiting = await world.rows("SELECT * FROM public_v1.notification WHERE state <> 'sent'")
        living = await world.rows("SELECT * FROM public_v1.allocation WHERE state NOT IN ('released', 'failed')")
        open_runs = await world.rows("SELECT * FROM public_v1.recovery_run WHERE ended_at IS NULL")
        open_cases = await world.rows("SELECT * FROM public_v1.ops_case WHERE state <> 'resolved'")
        left.clear()
        left.extend(steps + outbox + waiting + living + open_runs + open_cases)
        return not left

    left: list[dict[str, object]] = []
    try:
        await until(at_rest, "nothing is left under way", PATIENCE_S)
    except AssertionError as error:
        raise AssertionError(f"{error}; there are {left}") from None


async def nobody_is_left(world: World) -> None:
    """No user on any machine, no debt, every node ready and nobody's."""
    assert [machine.users for machine in world.machines.values()] == [[]] * len(world.machines)
    nodes = await world.rows("SELECT * FROM public_v1.node")
    assert [(n["state"], n["allocated_to"], n["reserved_by"], n["dirty"]) for n in nodes] == [
        ("ready", None, None, False)
    ] * len(world.machines)


async def no_event_is_doubled_or_lost(world: World) -> None:
    """In the streams as they are: each message once, each entity's events without a gap and in their order."""
    for stream in (EVENTS, NOTIFICATIONS):
        copies = Counter(message["msg_id"] for message in await world.stored(stream))
        assert set(copies.values()) == {1}, [key for key, n in copies.items() if n > 1]
    seen: dict[str, list[int]] = {}
    for message in await world.stored(EVENTS):
        seen.setdefault(message["body"]["entity"], []).append(message["body"]["seq"])
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in seen.values()), seen


async def the_records_are_whole(world: World) -> None:
    """No invariant violated, the ledger right, the audit chain whole, and every run's spans mirror its records."""
    await all_is_well(world)
    verified = await world.ok("ops.audit.verify", {})
    assert verified["valid"], verified
    for run in await world.rows("SELECT recovery_trace_id FROM public_v1.recovery_run"):
        await check_trace(world, run["recovery_trace_id"])
