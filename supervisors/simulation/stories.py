"""One story for each built row of the matrix: what is asked for, what breaks, and how it must end.

A story is told anew after a crash, by the same clients with the same keys; what was broken is broken in the world, and
stays so. It ends when nothing is owed.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from adapters.simulated.stripe_faults import StripeFault
from amends.ports.journal import Commit
from amends.values.errors import Refused as RefusedByDatabase
from supervisors.invariants.records import Violation
from supervisors.simulation import events, storage_stories
from supervisors.simulation.world import Refused, Running, Tell, World

DEAR = 7_200_000_000_000  # two thousand minor units a second


class Story(Struct, frozen=True, kw_only=True):
    """`breaks` is done to the world before the first runtime; `ends` says what the allocation and its run come to."""

    row: str
    breaks: Callable[[World], None]
    tell: Tell
    state: str
    compensations: tuple[tuple[str, str], ...]  # (type·what, outcome) of the row's runs, in their order
    outcomes: tuple[str, ...] = ("recovered",)
    meters: int = 0
    payments: dict[str, int] = {}  # what the ledger has that no meter has posted: key and minor units
    limits: dict[str, Any] = {}


async def _rent(running: Running) -> str:
    await running.account("acme")
    await running.node("n1")
    return await running.rent("acme", "rent")


async def _rented(running: Running, *states: str) -> str:
    allocation = await _rent(running)
    await running.until(lambda: running.state("allocation", allocation) in states)
    return allocation


# --- R01: the stream of events is gone ----------------------------------------------------------------------


async def _r01(running: Running) -> None:
    await _rented(running, "active", "releasing", "released")
    bus = running.world.bus
    await running.until(lambda: "AMENDS_EVT" not in bus.missing or len(bus.tried) > 6)  # it was tried, and refused
    bus.create("AMENDS_EVT")  # an operator sees to it
    await running.quiet()


# --- R02: the key cannot be installed -------------------------------------------------------------------------


async def _r02(running: Running) -> None:
    await _rented(running, "failed")
    await running.quiet()


# --- R03: the database refuses the activation -------------------------------------------------------------------


def _refuse_active(world: World) -> None:
    def refuse(commit: Commit) -> Exception | None:
        if any(write.kind == "allocation" and write.state == "active" for write in commit.states):
            return RefusedByDatabase("P0001", "no")
        return None

    world.database.refuse = refuse


# --- R04: the node does not clean up ----------------------------------------------------------------------------


async def _r04(running: Running) -> None:
    allocation = await _rented(running, "active", "releasing", "released")
    await running.release(allocation, "release")
    failures = running.world.database.tables.rows["failure"]
    await running.until(lambda: any(row["component"] == "ssh.user-remove" for row in failures.values()))
    running.world.machine("n1").mend()  # it has failed, and that is known; now somebody has freed its disk
    await running.quiet()


# --- R05: a worker is replayed, and one delivers another amount ----------------------------------------------------


async def _r05(running: Running) -> None:
    allocation = await _dear(running)
    await running.until(lambda: running.state("allocation", allocation) in ("active", "releasing", "released"))
    meters = running.world.database.tables.rows["meters"]
    await running.until(lambda: any(row["posted_through_us"] > row["started_us"] for row in meters.values()))
    (meter,) = meters.values()
    first = min(
        (row for row in running.world.database.tables.rows["ledger_entries"].values() if row["window_start_us"]),
        key=lambda row: row["window_start_us"],
    )
    said = {"meter_id": meter["meter_id"], "window_start_us": first["window_start_us"], "reason": "a replay"}
    for number, amount in enumerate((first["amount_minor"], first["amount_minor"] + 1)):
        with contextlib.suppress(Refused):  # the altered one; the records say so
            await running.ask("ops.billing.post_window", f"post-{number}", **said, amount_minor=amount,
                              delivery_id=f"d{number}")  # fmt: skip
    if not any(row["kind"] == "billing_conflict" for row in running.world.database.tables.rows["ops_case"].values()):
        running.world.broken.append(Violation("B7", f"meter:{meter['meter_id']}", "another amount, and no case of it"))
    await running.release(allocation, "release")
    await running.quiet()


# --- R06: Stripe says it twice, in two ways; and what it is told it takes in once ---------------------------------


def _stripe_breaks(world: World) -> None:
    world.stripe.book.faults.add(StripeFault(kind="done_stored_error"))
    world.stripe.book.faults.add(StripeFault(kind="cut"))


async def _r06(running: Running) -> None:
    stripe = running.world.stripe
    customer = next(iter(stripe.book.of("customer")), "") or stripe.customer()
    await running.account("acme", stripe_customer_id=customer)
    await running.node("n1")
    allocation = await running.rent("acme", "rent", rate=DEAR)
    await running.until(lambda: running.state("allocation", allocation) in ("active", "releasing", "released"))
    await running.used(allocation, 1.5)
    await running.force(allocation, "force", "platform_fault")
    paid = events.intent("evt_paid", "pi_1", 5000, account="acme", received=2000)
    await running.deliver(paid)
    await running.deliver(events.refund("evt_refund", "pi_1", "re_1", 500))
    await running.deliver(paid)
    await running.deliver(events.session("evt_session", "pi_1", 2000, account="acme"))
    await running.quiet()


# --- R07: the stream of notifications is gone -------------------------------------------------------------------


async def _r07(running: Running) -> None:
    await _rented(running, "active")
    bus = running.world.bus
    sent = [name for (kind, name), _ in running.world.database.tables.states.items() if kind == "notification"]
    await running.until(
        lambda: "AMENDS_NTF" not in bus.missing or any(running.state("notification", n) == "parked" for n in sent)
    )
    bus.create("AMENDS_NTF")
    await running.quiet()
    await running.until(lambda: all(running.state("notification", n) == "sent" for n in sent))


# --- R08: the node dies under a customer, and comes back ----------------------------------------------------------


async def _dear(running: Running) -> str:
    """A rental that costs something every second; its node may be in any state after a crash."""
    await running.account("acme")
    await running.node("n1", "ready", "suspect", "offline", "quarantined")
    return await running.rent("acme", "rent", rate=DEAR)


async def _r08(running: Running) -> None:
    allocation = await _dear(running)
    await running.until(lambda: running.state("allocation", allocation) in ("active", "failed"))
    machine = running.world.machine("n1")
    await running.used(allocation, 2.5)
    if running.state("allocation", allocation) == "active":
        machine.up = False
        running.world.told["n1 fell silent"] = str(running.core.kernel.clock.now_us())
    await running.until(lambda: running.state("allocation", allocation) == "failed")
    await running.until(lambda: running.state("node", "n1") != "suspect")
    machine.up = True
    await running.until(lambda: running.state("node", "n1") == "ready")
    await running.quiet()
    silent_us = int(running.world.told.get("n1 fell silent", "0"))
    for meter in running.world.database.tables.rows["meters"].values():
        if silent_us and meter["stop_cause"] == "node_offline" and meter["stopped_us"] > silent_us:
            running.world.broken.append(Violation("B6", f"meter:{meter['meter_id']}", "it ran on after the last beat"))


# --- R09: an operator ends a rental, and the policy pays it back --------------------------------------------------


async def _r09(running: Running) -> None:
    allocation = await _dear(running)
    await running.until(lambda: running.state("allocation", allocation) in ("active", "releasing", "released"))
    await running.used(allocation, 2.5)
    await running.force(allocation, "force", "platform_fault")
    await running.until(lambda: running.state("allocation", allocation) == "released")
    await running.quiet()


STORIES = (
    Story(
        row="R01", breaks=lambda world: world.bus.delete("AMENDS_EVT"), tell=_r01, state="active", meters=1,
        compensations=(("compensate·external_call", "success"),),
    ),
    Story(
        row="R02", breaks=lambda world: world.machine("n1").break_next("key-install", "fail", 99), tell=_r02,
        state="failed", compensations=(("reverse·side_effect", "success"), ("rollback·state_change", "success")),
    ),
    Story(
        row="R03", breaks=_refuse_active, tell=_r02, state="failed",
        compensations=(("compensate·side_effect", "success"), ("reverse·side_effect", "success")),
    ),
    Story(
        row="R04", breaks=lambda world: world.machine("n1").break_next("user-remove", "fail", 999), tell=_r04,
        state="released", meters=1,
        compensations=(("compensate·side_effect", "partial"), ("reverse·side_effect", "success")),
        limits={"cleanup_tries": 100},
    ),
    Story(
        row="R05", breaks=lambda world: None, tell=_r05, state="released", meters=1,
        compensations=(("cancel·state_change", "success"), ("cancel·state_change", "success")),
    ),
    Story(
        row="R06", breaks=_stripe_breaks, tell=_r06, state="released", meters=1,
        compensations=(("cancel·external_call", "success"),), payments={"topup:pi_1": 2000, "refund:re_1": 500},
    ),
    Story(
        row="R07", breaks=lambda world: world.bus.delete("AMENDS_NTF"), tell=_r07, state="active", meters=1,
        compensations=(("compensate·external_call", "partial"), ("compensate·external_call", "success")),
    ),
    Story(
        row="R08", breaks=lambda world: None, tell=_r08, state="failed", meters=1,
        compensations=(
            ("cancel·state_change", "success"), ("reverse·state_change", "success"), ("reverse·side_effect", "success"),
        ),
    ),
    Story(
        row="R09", breaks=lambda world: None, tell=_r09, state="released", meters=1,
        compensations=(("cancel·state_change", "success"), ("reverse·state_change", "success")),
    ),
    Story(
        row="R10", breaks=lambda world: None, tell=storage_stories.r10, state="active", meters=1,
        compensations=(("cancel·decision", "success"),),
    ),
    Story(
        row="R11", breaks=storage_stories.partly, tell=storage_stories.r11, state="active", meters=1,
        compensations=(("reverse·external_call", "success"),),
    ),
    Story(
        row="R12", breaks=storage_stories.badly_mounted, tell=storage_stories.r11, state="active", meters=1,
        compensations=(("reverse·side_effect", "success"), ("reverse·external_call", "success")),
    ),
    Story(
        row="R13", breaks=storage_stories.busy, tell=storage_stories.r13, state="active", meters=1,
        outcomes=("failed", "recovered"), compensations=(
            ("compensate·state_change", "failure"), ("reverse·side_effect", "success"),
            ("reverse·external_call", "success"),
        ), limits={"unmount_tries": 2},
    ),
    Story(
        row="R14", breaks=lambda world: None, tell=storage_stories.r14, state="active", meters=1,
        compensations=(("compensate·state_change", "success"),),
    ),
)  # fmt: skip
