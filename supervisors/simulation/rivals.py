"""The six races of the specification, each from the moment at which its rivals begin to where nothing is owed."""

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

from adapters.simulated.processes import Processes
from amends.values.errors import Fenced
from supervisors.invariants.records import Violation
from supervisors.simulation import events
from supervisors.simulation.pair import Process
from supervisors.simulation.points import Points
from supervisors.simulation.races import Held, Race, Sound, alone
from supervisors.simulation.storage_stories import ENDED, rented
from supervisors.simulation.stories import DEAR
from supervisors.simulation.world import PATIENCE_S, Refused, Running, World

GONE: Final = ("released", "failed")
BEFORE_S: Final = 0.05  # the verdict waits for what is being committed then
LOST: Final = "node offline"


async def _rival(held: Held, who: str, move: Coroutine[Any, Any, Any]) -> None:
    """Its move, which may be refused because another one's came first."""
    await held.turn(who)
    with contextlib.suppress(Refused):
        await move


async def _dear(running: Running) -> str:
    await running.account("acme")
    await running.node("n1")
    allocation = await running.rent("acme", "rent", rate=DEAR)
    await running.until(lambda: running.state("allocation", allocation) == "active")
    return allocation


async def _given_back(running: Running, held: Held, allocation: str) -> None:
    """The race is over; the customer goes, if the rental is still there, and nothing is owed."""
    await running.quiet()
    held.end()
    states = running.world.database.tables.states
    await running.until(lambda: all(running.state(*each) in ENDED for each in states if each[0] == "attachment"))
    if running.state("allocation", allocation) not in GONE:
        await running.release(allocation, "given back")
    await running.until(lambda: running.state("allocation", allocation) in GONE)
    await running.until(lambda: running.state("node", "n1") == "ready")
    await running.quiet()


# --- heartbeat / verdict ----------------------------------------------------------------------------------


async def _heartbeat_verdict(early_s: float, running: Running, held: Held) -> None:
    """A machine is back so long before the verdict upon it is due, while somebody else's commit is under way."""
    allocation = await _dear(running)
    machine = running.world.machine("n1")
    machine.up = False
    await running.until(lambda: running.state("node", "n1") == "suspect")
    held.begin()
    limits = running.core.kernel.limits
    await asyncio.sleep((limits("offline_after_ms") - limits("suspect_after_ms")) / 1000 - early_s - BEFORE_S)
    opened = asyncio.create_task(_rival(held, "another customer comes", running.account("globex")))
    await asyncio.sleep(BEFORE_S)

    heard_s: list[float] = []

    async def back() -> None:
        machine.up = True
        running.core.detector.heard("n1", machine.boot_id)
        heard_s.append(asyncio.get_running_loop().time())

    await _rival(held, "the machine is back", back())
    await opened
    await _given_back(running, held, allocation)
    lost_s = [at_s for at_s, what in held.called if LOST in what]
    if lost_s and heard_s[0] < lost_s[0]:
        running.world.broken.append(Violation("A7", "node:n1", f"heard at {heard_s[0]}, given up at {lost_s[0]}"))


def _lost_or_kept(world: World) -> list[Violation]:
    """The rental was lost, once, and its meter stopped by that; or it was kept, and nothing was compensated for."""
    rows = world.database.tables.rows
    runs = [row["entity"] for row in rows["recovery_run"].values() if row["matrix_row"] == "R08"]
    rentals = [name for name in runs if name.startswith("allocation:")]
    stops = [row["stop_cause"] for row in rows["meters"].values()]
    states = [write.state for (kind, _), write in world.database.tables.states.items() if kind == "allocation"]
    if (states, stops, len(rentals)) in ((["failed"], ["node_offline"], 1), (["released"], ["release"], 0)):
        return []
    return [Violation("A7", "node:n1", f"allocations {states}, stopped by {stops}, R08 of {runs}")]


# --- stop / debit -----------------------------------------------------------------------------------------


async def _stop_debit(running: Running, held: Held) -> None:
    """A customer leaves while a window is posted, and a worker delivers that window once more."""
    allocation = await _dear(running)
    await running.used(allocation, 2.9)
    meter = running.body("allocation", allocation)["billing"]["meter_id"]
    windows = running.world.database.tables.rows["ledger_entries"].values()
    posted = [row for row in windows if row["window_start_us"] is not None]
    held.begin()
    again = {"meter_id": meter, "window_start_us": posted[-1]["window_start_us"], "reason": "once more",
             "amount_minor": posted[-1]["amount_minor"], "delivery_id": "d1"}  # fmt: skip
    await asyncio.gather(
        _rival(held, "the customer leaves", running.release(allocation, "release")),
        _rival(held, "a worker delivers again", running.ask("ops.billing.post_window", "post", **again)),
    )
    await _given_back(running, held, allocation)


# --- double take-over -------------------------------------------------------------------------------------


async def _rents(running: Running) -> None:
    await rented(running)
    await running.quiet()


def _double_take_over(world: World, held: Held, sound: Sound) -> list[Violation]:
    """A leader is stopped in the middle of a step, two stand by and both see it; one after the other they serve."""
    processes = Processes(world.now_s)

    def begun(name: str, points: Points) -> Process:
        return Process(world, processes.add(), _rents, points, name)

    try:
        seen = Points()
        leader = begun("leader", seen)
        processes.run(lambda: any(point.what == "ssh.user-create" for point in seen.seen), PATIENCE_S)
        others = [begun(name, held) for name in ("one", "another")]
        leader.loop.pause()
        held.begin()
        processes.run(lambda: any(each.told for each in others), PATIENCE_S)
        held.end()
        processes.run(lambda: all(each.told for each in others), PATIENCE_S)
        leader.loop.go_on()
        processes.run(lambda: leader.loop.dead, PATIENCE_S)
        assert isinstance(leader.failed, Fenced), f"who was replaced has ended with {leader.failed!r}"
        world.now_s = processes.clock.now + 1.0
    finally:
        processes.bury()
    return alone(_nothing)(world, held, sound)


async def _nothing(running: Running, held: Held) -> None:
    """A runtime that finds what they have left."""


# --- attach / release -------------------------------------------------------------------------------------


async def _attach_release(running: Running, held: Held) -> None:
    """A customer attaches storage and gives the machine back."""
    allocation = await rented(running)
    wish = {"allocation_id": allocation, "namespace_id": "data", "mode": "rw", "mount_path": "/mnt/data"}
    held.begin()
    await asyncio.gather(
        _rival(held, "a customer attaches", running.ask("cmd.attachment.attach", "attach", **wish)),
        _rival(held, "a customer leaves", running.release(allocation, "release")),
    )
    await _given_back(running, held, allocation)


def _detached(world: World) -> list[Violation]:
    """Nothing is attached any more, nothing mounted, nobody has access."""
    states = [write.state for (kind, _), write in world.database.tables.states.items() if kind == "attachment"]
    access, mounts = world.provider().access, world.machine("n1").mounts.mounted
    if any(state not in ENDED for state in states) or access or mounts:
        return [Violation("T4", "data", f"attachments {states}, access {access}, mounts {mounts}")]
    return []


# --- webhook / retry --------------------------------------------------------------------------------------


async def _webhook_retry(running: Running, held: Held) -> None:
    """Stripe tells of a payment, of it again, of it by another event, and of its refund, all at once."""
    await running.account("acme")
    paid = events.intent("evt_paid", "pi_1", 5000, account="acme", received=2000)
    told = [paid, paid, events.session("evt_session", "pi_1", 2000, account="acme"),
            events.refund("evt_refund", "pi_1", "re_1", 500)]  # fmt: skip
    held.begin()
    await asyncio.gather(*(_rival(held, f"Stripe tells: {each['id']}", running.deliver(each)) for each in told))
    await running.quiet()
    held.end()


def _paid_once(world: World) -> list[Violation]:
    rows = world.database.tables.rows["ledger_entries"].values()
    paid = sorted((row["idempotency_key"], row["amount_minor"]) for row in rows)
    wanted = [("refund:re_1", 500), ("topup:pi_1", 2000)]
    return [] if paid == wanted else [Violation("B7", "pi_1", f"payments {paid}")]


# --- operator / retry -------------------------------------------------------------------------------------


async def _operator_retry(running: Running, held: Held) -> None:
    """A cleanup is tried again by itself and by two operators, when its case is about to be opened."""
    allocation = await _dear(running)
    machine = running.world.machine("n1")
    machine.break_next("user-remove", "fail", 3)
    await running.release(allocation, "release")
    failures = running.world.database.tables.rows["failure"]
    await running.until(lambda: sum(row["component"] == "ssh.user-remove" for row in failures.values()) > 1)
    held.begin()
    again = partial(running.ask, "ops.cleanup.retry", allocation_id=allocation, reason="it has room again")
    await asyncio.gather(*(_rival(held, who, again(who)) for who in ("an operator", "another operator")))

    def stuck() -> bool:
        return any(row["state"] == "open" for row in running.world.database.tables.rows["ops_case"].values())

    await running.quiet()
    held.end()
    if stuck():
        await again("a third")
    await _given_back(running, held, allocation)


RACES: Final = (
    Race(name="heartbeat/verdict", run=alone(partial(_heartbeat_verdict, 0.05)), wrong=_lost_or_kept),
    Race(name="verdict/heartbeat", run=alone(partial(_heartbeat_verdict, 0)), wrong=_lost_or_kept),
    Race(name="stop/debit", run=alone(_stop_debit)),
    Race(name="double take-over", run=_double_take_over, hold_s=0.8, passes=("read ", "document "),
         limits={"allocation_deadline_ms": 60_000}),
    Race(name="attach/release", run=alone(_attach_release), wrong=_detached),
    Race(name="webhook/retry", run=alone(_webhook_retry), wrong=_paid_once),
    Race(name="operator/retry", run=alone(_operator_retry)),
)  # fmt: skip
BY_NAME: Final = {race.name: race for race in RACES}
