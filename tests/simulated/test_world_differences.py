"""The world beside the database: each difference is one case, nothing under way is one, and nothing is ever touched."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from actors.differences import NAMED_AT_ONCE
from adapters.simulated.machine_mounts import SimulatedMount
from adapters.simulated.node_users import User
from adapters.simulated.providers import GrantMade
from supervisors.invariants import committed
from supervisors.simulation.checks import records_of
from supervisors.simulation.points import MODES, Point, Points
from supervisors.simulation.program import kinds_of, terms_of
from supervisors.simulation.random_world import RandomWorld, Wish
from supervisors.simulation.storage_stories import attach, holds, rented
from supervisors.simulation.stories import DEAR
from supervisors.simulation.world import Running, World

EVERY_S = 4.0
LIMITS: dict[str, Any] = {"world_every_ms": int(EVERY_S * 1000), "world_grace_ms": 1000}
STRANGER = "am-" + "7" * 26
LOST_MOUNT = "attach_" + "7" * 26
UNWANTED = "grant_" + "7" * 26
Tell = Callable[[Running], Awaitable[None]]
Case = tuple[str, str]


def played(tell: Tell, world: World | None = None, points: Points | None = None) -> World:
    world = world or World(1, **LIMITS)

    async def story(running: Running) -> None:
        await tell(running)
        await running.quiet()

    done = world.run(story, points)
    assert done == (points is None or points.struck is None)
    assert committed(records_of(world.database)) == []
    return world


def cases(world: World) -> list[Case]:
    """(target, state) of all, in the order of their opening; other kinds there are none."""
    rows = sorted(world.database.tables.rows["ops_case"].values(), key=lambda row: row["case_id"])
    assert {row["kind"] for row in rows} <= {"world_difference"}
    return [(row["target_ref"], row["state"]) for row in rows]


def evidence(world: World) -> list[dict[str, Any]]:
    return [msgspec.json.decode(row["evidence"]) for row in world.database.tables.rows["ops_case"].values()]


def looked(world: World, name: str) -> int:
    """How often that question was answered."""
    rows = world.database.tables.rows["step"].values()
    return len([row for row in rows if row["name"] == name and row["state"] == "done"])


async def rounds(running: Running, many: float = 2.5) -> None:
    await asyncio.sleep(many * EVERY_S)


async def attached(running: Running) -> str:
    """A rental with a mount, and all of it as it is wanted."""
    return await attach(running, await rented(running))


def leak_user(running: Running) -> str:
    running.world.machine("n1").table.users[STRANGER] = User("alloc_" + "7" * 26)
    return f"node:n1/user:{STRANGER}"


def lose_user(running: Running) -> str:
    (user,) = running.world.machine("n1").customers()
    del running.world.machine("n1").table.users[user]
    return f"node:n1/user:{user}"


def leak_mount(running: Running) -> str:
    mount = SimulatedMount("task_9", "/mnt/other", "rw", {"type": "bind", "path": "/srv/other"})
    running.world.machine("n1").mounts.mounted[LOST_MOUNT] = mount
    return f"node:n1/mount:{LOST_MOUNT}"


def lose_mount(running: Running) -> str:
    (name,) = running.world.machine("n1").mounts.mounted
    running.world.machine("n1").mounts.mounted.clear()
    return f"node:n1/mount:{name}"


def foreign_mount(running: Running) -> str:
    running.world.machine("n1").mounts.foreign.add("/mnt/backup")
    return "node:n1/foreign:/mnt/backup"


def leak_grant(running: Running) -> str:
    running.world.provider().grants[UNWANTED] = GrantMade("data", "n9", "n9", "rw", applied=True)
    running.world.provider().settle("data", "n9")
    return f"namespace:data/grant:{UNWANTED}"


def lose_grant(running: Running) -> str:
    (name,) = [key for key in running.world.provider().grants if key != UNWANTED]
    running.world.provider().access.clear()
    return f"namespace:data/grant:{name}"


THINGS = (leak_user, lose_user, leak_mount, lose_mount, foreign_mount, leak_grant, lose_grant)


def things(running: Running) -> tuple[Any, ...]:
    """All that is out there, as it is now."""
    machine, provider = running.world.machine("n1"), running.world.provider()
    return (
        machine.customers(), sorted(machine.mounts.mounted), sorted(machine.mounts.foreign), sorted(provider.access),
        sorted(provider.grants),
    )  # fmt: skip


def test_a_world_as_it_is_wanted_is_looked_at_and_has_no_case() -> None:
    async def tell(running: Running) -> None:
        await attached(running)
        await rounds(running)

    world = played(tell)
    assert cases(world) == []
    assert looked(world, "agent.inventory") >= 2
    assert looked(world, "provider.grants") >= 2


@pytest.mark.parametrize("change", THINGS, ids=[each.__name__ for each in THINGS])
def test_a_difference_is_one_case_that_names_it_and_is_resolved_when_it_has_gone(
    change: Callable[[Running], str],
) -> None:
    async def tell(running: Running) -> None:
        await attached(running)
        before = things(running)
        machine, provider = running.world.machine("n1"), running.world.provider()
        kept = dict(machine.table.users), dict(machine.mounts.mounted), dict(provider.access), dict(provider.grants)
        target = change(running)
        changed = things(running)
        await running.until(lambda: cases(running.world) == [(target, "open")])
        await rounds(running)
        assert (cases(running.world), things(running)) == ([(target, "open")], changed)
        (said,) = evidence(running.world)
        assert said["name"] == target.partition("/")[2].partition(":")[2]
        assert (bool(said["seen"]), bool(said["database"]), said["seen_us"] > 0) == (True, True, True)
        # when somebody puts it right, by hand
        machine.table.users.clear()
        machine.table.users.update(kept[0])
        machine.mounts.mounted, provider.access, provider.grants = kept[1:]
        machine.mounts.foreign.clear()
        assert things(running) == before
        await running.until(lambda: cases(running.world) == [(target, "resolved")])

    played(tell)


def test_what_an_operator_leaves_as_it_is_opens_no_case_again_until_it_was_gone() -> None:
    async def tell(running: Running) -> None:
        await running.account("acme")
        await running.node("n1")
        target, mounts = foreign_mount(running), running.world.machine("n1").mounts
        await running.until(lambda: bool(cases(running.world)))
        (case_id,) = (row["case_id"] for row in running.world.database.tables.rows["ops_case"].values())
        await running.ask("ops.case.resolve", "ours", case_id=case_id, reason="our own backup")
        await rounds(running)
        assert cases(running.world) == [(target, "resolved")]
        mounts.foreign.clear()
        await rounds(running)
        mounts.foreign.add("/mnt/backup")
        await running.until(lambda: cases(running.world) == [(target, "resolved"), (target, "open")])

    played(tell)


def test_a_way_out_of_quarantine_removes_it_and_the_case_is_resolved() -> None:
    async def tell(running: Running) -> None:
        await running.account("acme")
        await running.node("n1")
        target = leak_user(running)
        await running.until(lambda: cases(running.world) == [(target, "open")])
        await running.ask("ops.node.quarantine", "out", node_id="n1", reason="a stranger")
        await rounds(running)
        assert cases(running.world) == [(target, "open")]  # nothing is judged while it is there
        await running.ask("ops.node.return_to_service", "back", node_id="n1", reason="nobody's")
        await running.until(lambda: cases(running.world) == [(target, "resolved")])
        assert running.world.machine("n1").customers() == []

    played(tell)


async def asked(running: Running, name: str, how: str) -> None:
    """A look has begun and takes its time, if there is something to be asked.

    `slow`: what is there is read a second later; `lose`: it is read now, and told half a second later.
    """
    if name == "provider.grants" and not running.state("namespace", "data"):
        return
    steps = running.world.database.tables.rows["step"]

    def under_way() -> bool:
        return any(row["name"] == name and row["ended_us"] is None for row in steps.values())

    await running.until(lambda: not under_way())
    running.world.machine("n1").mend()
    running.world.machine("n1").break_next("inventory", how)
    running.world.provider().break_next("grants", how)
    await running.until(under_way)


@pytest.mark.parametrize(
    ("name", "how"), [("agent.inventory", "slow"), ("agent.inventory", "lose"), ("provider.grants", "slow")]
)
def test_what_is_made_or_taken_away_while_one_looks_is_no_difference(name: str, how: str) -> None:
    async def tell(running: Running) -> None:
        await running.account("acme")
        await running.node("n1")
        await asked(running, name, how)
        allocation = await rented(running)
        await asked(running, name, how)
        attachment = await attach(running, allocation)
        await asked(running, name, how)
        await running.ask("cmd.attachment.detach", "detach", attachment_id=attachment)
        await running.until(lambda: running.state("attachment", attachment) == "detached")
        await asked(running, name, how)
        await running.release(allocation, "release")
        await running.until(lambda: running.world.machine("n1").customers() == [])
        await rounds(running)

    limits: dict[str, Any] = dict.fromkeys(("provider_timeout_ms", "mount_timeout_ms"), 5000)
    assert cases(played(tell, World(1, world_every_ms=4000, world_grace_ms=500, **limits))) == []


async def half_a_user(running: Running) -> None:
    await running.account("acme")
    machine = await running.node("n1")
    machine.break_next("key-install", "hang")
    await running.rent("acme", "rent")
    await running.until(lambda: bool(machine.customers()))


async def half_a_mount(running: Running) -> None:
    allocation, machine = await rented(running), running.world.machine("n1")
    machine.break_next("probe_mount", "hang", 999)
    await attach(running, allocation, "attach", "mounting")
    await running.until(lambda: bool(machine.mounts.mounted))


async def half_a_grant(running: Running) -> None:
    allocation, provider = await rented(running), running.world.provider()
    provider.break_next("verify", "hang")
    await attach(running, allocation, "attach", "validated")
    await running.until(lambda: bool(provider.access))


@pytest.mark.parametrize(
    ("half", "name"),
    [(half_a_user, "agent.inventory"), (half_a_mount, "agent.inventory"), (half_a_grant, "provider.grants")],
    ids=["user", "mount", "grant"],
)
def test_what_is_half_made_for_long_is_not_looked_at_meanwhile(half: Tell, name: str) -> None:
    async def tell(running: Running) -> None:
        await half(running)
        await asyncio.sleep(3.0)
        steps = running.world.database.tables.rows["step"]
        begun = len([row for row in steps.values() if row["name"] == name])
        await asyncio.sleep(5.0)
        assert len([row for row in steps.values() if row["name"] == name]) == begun
        running.world.machine("n1").mend()
        await running.until(lambda: len([row for row in steps.values() if row["name"] == name]) > begun + 2)

    limits: dict[str, Any] = dict.fromkeys(("provider_timeout_ms", "mount_timeout_ms", "ssh_step_timeout_ms"), 20_000)
    assert cases(played(tell, World(1, world_every_ms=1000, world_grace_ms=500, **limits))) == []


@pytest.mark.parametrize("why", ["unreachable", "older", "fails", "provider away", "provider older"])
def test_who_does_not_answer_or_does_not_know_the_question_is_no_difference(why: str) -> None:
    async def tell(running: Running) -> None:
        await attached(running)
        machine, provider = running.world.machine("n1"), running.world.provider()
        if why.startswith("provider"):
            leak_grant(running)
            provider.up = why != "provider away"
            provider.knows.discard("grants")
        else:
            leak_user(running)
            machine.agent.old = why == "older"
            machine.break_next("inventory", {"unreachable": "hang", "fails": "fail"}.get(why, ""), 999)
        await rounds(running, 4)
        assert cases(running.world) == []
        provider.up = True
        machine.mend()

    world = played(tell)
    name = "provider.grants" if why.startswith("provider") else "agent.inventory"
    rows = [row for row in world.database.tables.rows["step"].values() if row["name"] == name]
    assert len([row for row in rows if row["state"] != "done"]) >= 2


def test_of_a_node_that_is_silent_nothing_is_judged_and_its_case_stays() -> None:
    async def tell(running: Running) -> None:
        await running.account("acme")
        machine = await running.node("n1")
        target = leak_user(running)
        await running.until(lambda: cases(running.world) == [(target, "open")])
        asked = looked(running.world, "agent.inventory")
        machine.beats = False
        await running.until(lambda: running.state("node", "n1") == "suspect")
        machine.table.users.clear()
        await rounds(running)
        assert (cases(running.world), looked(running.world, "agent.inventory")) == ([(target, "open")], asked)
        machine.beats = True
        await running.until(lambda: cases(running.world) == [(target, "resolved")])

    played(tell)


def test_of_very_many_as_many_are_named_as_a_person_reads_and_the_rest_is_counted() -> None:
    async def tell(running: Running) -> None:
        await running.account("acme")
        machine = await running.node("n1")
        for number in range(NAMED_AT_ONCE + 8):
            machine.table.users[f"am-{number:026d}"] = User("alloc_1")
        await running.until(lambda: bool(cases(running.world)))
        await rounds(running)
        assert len(cases(running.world)) == NAMED_AT_ONCE
        assert {said["more"] for said in evidence(running.world)} == {8}

    played(tell)


def test_credits_at_stripe_that_differ_are_cases_and_none_is_sent_or_taken_back() -> None:
    world = World(1, **LIMITS)
    customer = world.stripe.customer()

    async def tell(running: Running) -> None:
        await running.account("acme", stripe_customer_id=customer)
        await running.account("other", stripe_customer_id=customer)  # one asks for both
        await running.node("n1")
        allocation = await running.rent("acme", "rent", rate=DEAR)
        await running.until(lambda: running.state("allocation", allocation) == "active")
        await running.used(allocation, 1.5)
        await running.force(allocation, "force", "platform_fault")
        await rounds(running)
        assert (cases(world), looked(world, "stripe.mirrored") >= 2) == ([], True)
        ((key, [made]),) = world.stripe.mirrored(customer).items()
        book = world.stripe.book.of("customer_balance_transaction")
        book[made[0]]["metadata"]["ledger_key"] = "credit:nobody:x"
        wanted = [("account:acme/credit:credit:nobody:x", "open"), (f"account:acme/credit:{key}", "open")]
        await running.until(lambda: sorted(cases(world)) == sorted(wanted))
        assert list(world.stripe.mirrored(customer)) == ["credit:nobody:x"]
        world.stripe.up = False
        await rounds(running)
        assert {state for _, state in cases(world)} == {"open"}
        world.stripe.up = True
        book[made[0]]["metadata"]["ledger_key"] = key
        await running.until(lambda: {state for _, state in cases(world)} == {"resolved"})

    played(tell, world)


def crashes() -> list[Point]:
    """The points around the look that finds something, in a run without a crash: its intent, its question, its case."""
    points = Points()
    played(looks, points=points)
    first = next(each.number for each in points.seen if each.what == "agent.inventory")
    return [each for each in points.seen if first - 2 <= each.number <= first + 4]


async def looks(running: Running) -> None:
    """A stranger on the node, whom a look finds; told again by whoever comes after a crash."""
    await running.account("acme")
    await running.node("n1")
    holds(running.world, "data")
    await running.once("cmd.namespace.create", "namespace", namespace_id="data", account_id="acme", provider_id="p1",
                       quota_bytes=1000)  # fmt: skip
    users, target = running.world.machine("n1").table.users, f"node:n1/user:{STRANGER}"
    if not cases(running.world):
        users[STRANGER] = User("alloc_" + "7" * 26)
    await running.until(lambda: bool(cases(running.world)))
    users.pop(STRANGER, None)
    await running.until(lambda: cases(running.world) == [(target, "resolved")])


@pytest.mark.parametrize("mode", MODES)
def test_a_process_that_dies_at_any_point_of_a_look_leaves_one_case_and_no_step(mode: str) -> None:
    found = crashes()
    assert len(found) == 7
    for point in found:
        world = World(1, **LIMITS)
        points = Points(point.number, mode)
        played(looks, world, points)
        played(looks, world)
        assert cases(world) == [(f"node:n1/user:{STRANGER}", "resolved")], point
        assert world.database.tables.states["node", "n1"].state == "ready"
        body = msgspec.json.decode(world.database.tables.states["node", "n1"].body)
        assert not body.get("look", {}).get("step"), point


@pytest.mark.parametrize("seed", [1, 3])
def test_random_lives_under_every_kind_of_fault_are_looked_at_and_none_is_a_difference(seed: int) -> None:
    terms, _ = terms_of(None, None, {})
    often = {**terms.timing, "world_every_ms": 30_000, "world_grace_ms": 5000}
    terms = msgspec.structs.replace(terms, timing=often)
    found = RandomWorld(Wish(seed=seed, hours=0.5, nodes=6, terms=terms, kinds=kinds_of("all"))).run()
    rows = found.world.database.tables.rows["ops_case"].values()
    assert (found.violations, [row for row in rows if row["kind"] == "world_difference"]) == ([], [])
    assert found.crashes > 0
    assert looked(found.world, "agent.inventory") > 100
    assert looked(found.world, "provider.grants") > 100
