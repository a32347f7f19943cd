"""Losing nodes in the simulated world: who is judged, when, and what it costs (R08, R09, A7)."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from supervisors.invariants import committed
from supervisors.invariants.records import Violation
from supervisors.simulation.checks import records_of, stopped
from supervisors.simulation.points import MODES, Points
from supervisors.simulation.stories import DEAR
from supervisors.simulation.world import Running, Tell, World

OFFLINE_S = 1.5
HELD = {"ssh.user-lock", "ssh.user-remove", "ssh.probe"}


def run(tell: Callable[[Running], Awaitable[None]], seed: int = 1, **limits: Any) -> World:
    """A world in which that was told, and in which everything holds."""
    world = World(seed, **limits)

    async def story(running: Running) -> None:
        await tell(running)

    assert world.run(story)
    assert no_violations(world) == []
    return world


def no_violations(world: World) -> list[Violation]:
    records = records_of(world.database)
    return [*committed(records), *stopped(records)]


def ledger(world: World) -> dict[str, int]:
    """Key, without the meter, and amount of all entries."""
    rows = world.database.tables.rows["ledger_entries"].values()
    return {row["idempotency_key"].replace(f":{row['meter_id']}", ""): row["amount_minor"] for row in rows}


def meter(world: World) -> dict[str, Any]:
    (found,) = world.database.tables.rows["meters"].values()
    return found


async def fleet(running: Running, **sites: int) -> list[str]:
    """So many ready nodes per site; their names."""
    names = []
    for site, count in sites.items():
        for number in range(count):
            names.append(f"{site}-{number}")
            await running.node(names[-1], site=site)
    return names


async def rented(running: Running, key: str = "rent") -> str:
    await running.account("acme")
    allocation = await running.rent("acme", key, rate=DEAR)
    await running.until(lambda: running.state("allocation", allocation) == "active")
    return allocation


def states(running: Running, names: list[str]) -> set[str]:
    return {running.state("node", name) for name in names}


# --- who is judged --------------------------------------------------------------------------------------------


def test_with_the_bus_away_for_long_nobody_is_declared_lost_and_a_real_loss_is_found_in_time_afterwards() -> None:
    async def tell(running: Running) -> None:
        names = await fleet(running, a=1, b=1)
        running.links.bus = False
        await asyncio.sleep(4 * OFFLINE_S)
        running.links.bus = True
        await asyncio.sleep(OFFLINE_S)
        assert states(running, names) == {"ready"}
        running.world.machine("a-0").up = False
        began = asyncio.get_running_loop().time()
        await running.until(lambda: running.state("node", "a-0") == "offline")
        assert asyncio.get_running_loop().time() - began < OFFLINE_S + 1
        assert running.state("node", "b-0") == "ready"
        await running.quiet()

    run(tell)


def test_a_loop_that_stood_still_judges_nobody() -> None:
    async def tell(running: Running) -> None:
        names = await fleet(running, a=2)
        running._loop.advance(4 * OFFLINE_S)
        await asyncio.sleep(OFFLINE_S)
        assert states(running, names) == {"ready"}

    run(tell)


def test_half_of_a_site_may_be_lost_and_a_whole_site_is_held_until_it_is_confirmed() -> None:
    async def tell(running: Running) -> None:
        names = await fleet(running, a=4, b=6)
        site, machine = names[:4], running.world.machine
        for name in site[:2]:
            machine(name).up = False
        await running.until(lambda: states(running, site[:2]) == {"offline"})
        await asyncio.sleep(2 * OFFLINE_S)  # they count no more as lost just now
        for name in site[2:]:
            machine(name).up = False
        for name in names[4:7]:
            machine(name).up = False
        # three of six others: half, and so not held
        await running.until(lambda: states(running, names[4:7]) == {"offline"})
        await running.until(lambda: states(running, site[2:]) == {"offline"})
        await running.quiet()

    run(tell)


def test_a_site_that_is_lost_as_a_whole_is_held_with_a_case_and_confirmed_by_an_operator() -> None:
    async def tell(running: Running) -> None:
        names = await fleet(running, a=4, b=6)
        site, others = names[:4], names[4:]
        for name in site:
            running.world.machine(name).up = False
        await asyncio.sleep(6 * OFFLINE_S)
        assert states(running, site) == {"suspect"}
        (case,) = running.world.database.tables.rows["ops_case"].values()
        assert (case["kind"], case["target_ref"], case["state"]) == ("mass_offline", "domain:a", "open")
        # when one of them is heard again, and the rest is confirmed
        running.world.machine(site[0]).up = True
        await running.until(lambda: running.state("node", site[0]) == "ready")
        data = await running.ask("ops.detector.confirm", "confirm", domain="a", reason="the hall has no power")
        assert data == {"confirmed": 3, "nodes": site[1:]}
        await running.until(lambda: states(running, site[1:]) == {"offline"}, 2 * OFFLINE_S)
        assert states(running, [site[0], *others]) == {"ready"}
        # then the hold ends by itself, and so does the case
        await running.until(
            lambda: running.world.database.tables.rows["ops_case"][case["case_id"],]["state"] == "resolved"
        )
        await running.quiet()
        told = [row["subject"] for row in running.world.database.tables.rows["outbox"].values()]
        assert [s.rpartition(".")[2] for s in told if ".control_plane." in s] == ["degraded", "recovered"]

    run(tell)


def test_a_site_that_comes_back_was_never_judged() -> None:
    async def tell(running: Running) -> None:
        site = (await fleet(running, a=4, b=6))[:4]
        for name in site:
            running.world.machine(name).up = False
        await asyncio.sleep(4 * OFFLINE_S)
        for name in site:
            running.world.machine(name).up = True
        await running.until(lambda: states(running, site) == {"ready"})
        await running.quiet()

    world = run(tell)
    assert all(row["matrix_row"] != "R08" for row in world.database.tables.rows["recovery_run"].values())


def test_verdicts_pass_no_faster_than_allowed() -> None:
    async def tell(running: Running) -> None:
        names = await fleet(running, a=5, b=20)
        for name in names[5:14]:
            running.world.machine(name).up = False
        await running.until(lambda: states(running, names[5:14]) == {"offline"})

    world = run(tell, verdicts_per_s=2)
    lost = sorted(row["at_us"] for row in world.database.tables.rows["failure"].values() if row["propagation_hop"] == 0)
    assert lost[-1] - lost[0] >= 3_000_000


def test_a_silent_agent_on_a_machine_that_answers_is_a_case_after_a_quarter_of_an_hour() -> None:
    async def tell(running: Running) -> None:
        (name,) = await fleet(running, a=1)
        running.world.machine(name).beats = False
        await asyncio.sleep(16 * 60)
        assert running.state("node", name) == "suspect"
        (case,) = running.world.database.tables.rows["ops_case"].values()
        assert (case["kind"], case["state"]) == ("agent_silent", "open")
        running.world.machine(name).beats = True
        await running.until(lambda: running.state("node", name) == "ready")
        (case,) = running.world.database.tables.rows["ops_case"].values()
        assert case["state"] == "resolved"

    run(tell)


# --- what it costs --------------------------------------------------------------------------------------------


def test_a_verdict_that_comes_after_the_return_and_a_new_rental_concerns_the_old_one_alone() -> None:
    async def tell(running: Running) -> None:
        (name,) = await fleet(running, a=1)
        first = await rented(running)
        await asyncio.sleep(2.3)
        running.world.machine(name).up = False
        await running.until(lambda: running.state("allocation", first) == "failed")
        running.world.machine(name).up = True
        await running.until(lambda: running.state("node", name) == "ready")
        second = await rented(running, "again")
        await asyncio.sleep(5)
        assert running.state("allocation", second) == "active"
        assert running.body("allocation", first)["billing"]["cause"] == "node_offline"
        await running.quiet()

    run(tell)


ENDS = ("release", "force", "verdict")
ORDERS = list(itertools.permutations(ENDS))
ANY_STATE = ("ready", "suspect", "offline", "quarantined")


def ending(order: tuple[str, ...]) -> Tell:
    """A rental that is ended thrice, in that order; told anew after a crash, by the same clients."""

    async def tell(running: Running) -> None:
        await running.node("n1", *ANY_STATE)
        await running.account("acme")
        allocation = await running.rent("acme", "rent", rate=DEAR)
        await running.until(lambda: running.state("allocation", allocation) not in ("requested", "provisioning"))
        await running.used(allocation, 2.7)
        machine = running.world.machine("n1")
        if order[0] != "verdict" and running.state("allocation", allocation) == "active":  # dead, and nobody knows
            machine.up = False
            await asyncio.sleep(0.5)
        for end in order:
            if end == "release":
                await running.release(allocation, "release")
            elif end == "force":
                await running.force(allocation, "force", "platform_fault")
            elif not rows(running.world, "R08"):
                machine.up = False
                await running.until(lambda: bool(rows(running.world, "R08")))
                await running.until(lambda: set(running.owed()) <= HELD)
        machine.up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    return tell


def rows(world: World, matrix_row: str) -> list[Any]:
    """The runs of a row."""
    return [row for row in world.database.tables.rows["recovery_run"].values() if row["matrix_row"] == matrix_row]


def ended_as(world: World, order: tuple[str, ...]) -> None:
    """The first committed cause has chosen the rule; a verdict after it has lowered the stop at most."""
    found, ended = ledger(world), meter(world)
    causes = {"release": "release", "force": "force_release", "verdict": "node_offline"}
    assert ended["stop_cause"] == causes[order[0]]
    credits_ = {key: amount for key, amount in found.items() if key.startswith("credit")}
    rules = {"release": [], "force": ["credit:force_platform_fault"], "verdict": ["credit:node_offline"]}
    assert [key for key in credits_ if ":overrun:" not in key] == rules[order[0]]
    assert sum(credits_.values()) <= sum(amount for key, amount in found.items() if key.startswith("debit"))
    assert no_violations(world) == []
    assert world.machine("n1").customers() == []


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_release_force_release_and_verdict_in_any_order_give_back_no_more_than_was_taken(
    order: tuple[str, ...],
) -> None:
    world = World(1, cleanup_tries=100)
    assert world.run(ending(order))
    ended_as(world, order)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_a_kill_between_them_changes_nothing(order: tuple[str, ...]) -> None:
    chance = random.Random("-".join(order))
    seen = Points()
    assert World(1, cleanup_tries=100).run(ending(order), seen)
    for point in chance.sample(seen.seen, 12):
        world, died = World(1, cleanup_tries=100), Points(point.number, chance.choice(MODES))
        done = world.run(ending(order), died)
        assert not done
        while not done:
            done = world.run(ending(order))
        ended_as(world, order)


def test_a_failure_before_active_has_no_meter_no_entry_and_no_minimum() -> None:
    async def tell(running: Running) -> None:
        (name,) = await fleet(running, a=1)
        running.world.machine(name).break_next("key-install", "hang")
        await running.account("acme")
        allocation = await running.rent("acme", "rent", rate=DEAR)
        await running.until(lambda: running.state("allocation", allocation) == "provisioning")
        await asyncio.sleep(0.1)
        running.world.machine(name).up = False
        await running.until(lambda: running.state("allocation", allocation) == "failed")
        running.world.machine(name).up = True
        await running.until(lambda: running.state("node", name) == "ready")
        await running.quiet()
        assert running.world.machine(name).customers() == []

    world = run(tell, ssh_step_timeout_ms=20_000)
    assert ledger(world) == {}
    assert world.database.tables.rows["meters"] == {}


def test_the_node_comes_back_with_another_host_key_and_nothing_is_sent_to_it() -> None:
    async def tell(running: Running) -> None:
        (name,) = await fleet(running, a=1)
        allocation = await rented(running)
        await asyncio.sleep(2.3)
        machine = running.world.machine(name)
        calls = len(machine.calls)
        machine.boot_id = "another"
        for op in ("probe", "user-lock", "user-remove"):
            machine.break_next(op, "other_key", 999)
        await running.until(lambda: running.state("allocation", allocation) == "failed")
        await running.until(
            lambda: any(
                r["kind"] == "host_key_mismatch" for r in running.world.database.tables.rows["ops_case"].values()
            )
        )
        assert running.body("allocation", allocation)["cleanup_pending"]
        assert running.body("allocation", allocation)["billing"]["cause"] == "node_rebooted"
        assert len(machine.calls) == calls
        assert running.state("node", name) == "quarantined"

    run(tell)


@pytest.mark.parametrize("phase", [0.0, 0.31, 0.57, 0.83])
def test_a_verdict_of_production_comes_a_tick_of_the_detector_after_its_time_at_most(phase: float) -> None:
    late_us: list[int] = []

    async def tell(running: Running) -> None:
        machine = await running.node("n1")
        await running.until(lambda: running.state("node", "n1") == "ready")
        await asyncio.sleep(phase)
        machine.up = False
        due_us = 0
        while running.state("node", "n1") != "offline":
            due_us = running.core.pool.last_seen_us("n1") + 45_000_000
            await asyncio.sleep(0.001)
        late_us.append(running.core.kernel.clock.now_us() - due_us)

    run(tell, suspect_after_ms=15_000, offline_after_ms=45_000, min_failed_probes=2, probe_timeout_ms=3000)
    assert 0 <= late_us[0] <= 150_000
