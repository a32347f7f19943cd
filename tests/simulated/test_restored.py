"""An older copy of the database is put back while the machines keep their users and epochs (Restored databases)."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from actors.between import RESTORED_BY
from adapters.simulated.journal import LeaseRow
from amends.values.errors import Fenced, Refused
from supervisors.invariants import committed
from supervisors.simulation.checks import records_of
from supervisors.simulation.points import MODES, Point, Points
from supervisors.simulation.stories import DEAR
from supervisors.simulation.world import Running, Tell, World

OFFLINE_S = 1.5


class History:
    """A world whose customer of `n1` began to rent after the backup, and whose nodes were lost since."""

    def __init__(self) -> None:
        self.world = World(3)
        self.backup: dict[str, Any] = {}
        self.lost = ""  # the rental that the restored database does not know
        self.told(self.before)
        self.told(self.after)
        self.told(self.nothing)  # so that nodes have seen more than one epoch of a lost history
        self.user = "am-" + self.lost.removeprefix("alloc_")
        self.number = self.world.restore(self.backup)

    def told(self, tell: Callable[[Running], Awaitable[None]], points: Points | None = None) -> bool:
        async def story(running: Running) -> None:
            await tell(running)

        story_: Tell = story
        return self.world.run(story_, points)

    async def before(self, running: Running) -> None:
        await running.account("acme")
        await running.node("n1")
        await running.quiet()
        self.backup = self.world.database.backup()

    async def after(self, running: Running) -> None:
        machine = running.world.machine("n1")
        machine.up = False
        await running.until(lambda: running.state("node", "n1") == "offline")  # its agent is asked at a higher epoch
        machine.up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        self.lost = await running.rent("acme", "before", rate=DEAR)
        await running.until(lambda: running.state("allocation", self.lost) == "active")
        await running.node("n2")
        await running.quiet()

    async def nothing(self, running: Running) -> None:
        await running.quiet()

    # --- what comes after the restore ----------------------------------------------------------------

    def watch(self) -> None:
        """From now on no commit may give a node away whose inventory was not read."""
        database = self.world.database

        def refuse(commit: Any) -> None:
            rows = [row for of in commit.rows.values() for row, _ in of]
            for row in rows:
                if type(row).__name__ == "AssignmentRow" and row.state != "ended":
                    assert row.node_id in self.read(), f"{row.node_id} was assigned before its inventory was read"

        database.refuse = refuse

    def read(self) -> set[str]:
        """The nodes whose inventory was read since the restore."""
        rows = self.world.database.tables.rows["audit_log"].values()
        found = [row for row in rows if row["action"] == "node.reconciled" and row["epoch"] > self.number]
        return {row["target_ref"].removeprefix("node:") for row in found}

    def cases(self) -> list[tuple[str, str, str]]:
        rows = self.world.database.tables.rows["ops_case"].values()
        return [(row["kind"], row["target_ref"], row["state"]) for row in rows]

    async def asks(self, running: Running) -> None:
        """A customer asks at once; nobody is sent to `n1`, which holds a customer that nobody knows."""
        wanted = await running.rent("acme", "again", rate=DEAR)
        await running.until(lambda: bool(self.cases()))
        await running.node("n2")  # registered after the backup, so once more
        await running.until(lambda: running.state("allocation", wanted) == "active")
        assert running.body("allocation", wanted)["node_id"] == "n2"
        assert running.world.machine("n1").customers() == [self.user]
        assert running.state("node", "n1") == "quarantined"
        await running.quiet()

    async def returned(self, running: Running) -> None:
        """An operator lets `n1` back; then it is rented, and what is asked of it is done."""
        await running.ask("ops.node.return_to_service", "back", node_id="n1", reason="nobody's")
        await running.until(lambda: running.state("node", "n1") == "ready")
        assert running.world.machine("n1").customers() == []
        wanted = await running.rent("acme", "third", rate=DEAR)
        await running.until(lambda: running.state("allocation", wanted) in ("active", "released"))
        await running.release(wanted, "third-release")
        await running.until(lambda: running.state("allocation", wanted) == "released")
        await running.quiet()

    def ends_well(self) -> None:
        assert committed(records_of(self.world.database)) == []
        assert self.world.broken == []
        assert all(not machine.late for machine in self.world.machines.machines.values())


@pytest.fixture
def history() -> History:
    return History()


def test_nobody_is_assigned_before_the_inventory_and_the_unknown_user_stays_with_a_case(history: History) -> None:
    history.watch()
    assert history.told(history.asks)
    assert history.cases() == [("restored_unknown", f"node:n1/user:{history.user}", "open")]
    history.ends_well()
    reasons = [
        row["reason"]
        for row in history.world.database.tables.rows["audit_log"].values()
        if row["action"] == "node.quarantined" and row["target_ref"] == "node:n1"
    ]
    assert reasons == ["the disk is gone"]


def test_an_operator_lets_it_back_and_its_epochs_are_accepted_again(history: History) -> None:
    history.watch()
    assert history.told(history.asks)
    assert history.told(history.returned)
    assert [state for _, _, state in history.cases()] == ["resolved"]
    history.ends_well()
    assert history.world.machine("n1").agent.runtime_epoch > RESTORED_BY
    assert history.world.machine("n1").agent.node_epoch > RESTORED_BY


def test_a_fleet_without_anything_unknown_is_back_by_itself() -> None:
    history = History()
    history.world.machine("n1").table.users.clear()

    async def waits(running: Running) -> None:
        wanted = await running.rent("acme", "again", rate=DEAR)
        await running.until(lambda: running.state("allocation", wanted) == "active")
        await running.quiet()

    history.watch()
    assert history.told(waits)
    assert history.cases() == []
    history.ends_well()


def test_a_second_start_asks_nobody_again(history: History) -> None:
    assert history.told(history.asks)
    assert history.told(history.returned)
    asked = len(history.read())
    rows = history.world.database.tables.rows["audit_log"]
    before = [row for row in rows.values() if row["action"] == "node.reconciled"]
    assert history.told(history.nothing)
    assert [row for row in rows.values() if row["action"] == "node.reconciled"] == before
    assert len(history.read()) == asked


def test_a_node_that_cannot_be_told_is_not_assigned(history: History) -> None:
    def refuse(commit: Any) -> Exception | None:
        of_n1 = any((write.kind, write.id) == ("node", "n1") for write in commit.states)
        return Refused("23514", "not now") if of_n1 else None

    async def waits(running: Running) -> None:
        wanted = await running.rent("acme", "again", rate=DEAR)
        await asyncio.sleep(30)
        assert running.state("allocation", wanted) in ("requested", "failed")
        assert running.body("node", "n1").get("restored", 0) == 0

    history.world.database.refuse = refuse
    assert history.told(waits)


@pytest.mark.parametrize("state", ["provisioning", "active", "releasing"])
def test_a_rental_of_the_backup_goes_on_or_ends_and_nothing_is_left_over(state: str) -> None:
    history = History()
    history.world.machine("n1").table.users.clear()
    known: list[str] = []

    async def rents(running: Running) -> None:
        machine = running.world.machine("n1")
        if state == "provisioning":
            machine.break_next("key-install", "hang")
        known.append(await running.rent("acme", "known", rate=DEAR))
        if state == "releasing":
            await running.until(lambda: running.state("allocation", known[0]) == "active")
            machine.break_next("user-lock", "hang")
            await running.release(known[0], "release")
        await running.until(lambda: running.state("allocation", known[0]) == state)
        history.backup = running.world.database.backup()
        machine.mend()

    async def ended(running: Running) -> None:
        running.world.machine("n1").mend()
        await running.until(lambda: running.state("allocation", known[0]) in ("active", "failed", "released"))
        if running.state("allocation", known[0]) == "active":
            await running.release(known[0], "release")
        await running.until(lambda: not running.body("allocation", known[0]).get("cleanup_pending"))
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    assert history.told(rents)
    assert history.told(ended)
    history.number = history.world.restore(history.backup)
    history.watch()
    assert history.told(ended)
    assert history.cases() == []
    assert left_over(history) == []
    assert committed(records_of(history.world.database)) == []


def left_over(history: History) -> list[str]:
    return history.world.machine("n1").customers()


def test_a_node_that_is_lost_while_a_restored_rental_is_active_ends_it() -> None:
    history = History()
    history.world.machine("n1").table.users.clear()
    known: list[str] = []

    async def rents(running: Running) -> None:
        known.append(await running.rent("acme", "known", rate=DEAR))
        await running.until(lambda: running.state("allocation", known[0]) == "active")
        history.backup = running.world.database.backup()

    async def loses(running: Running) -> None:
        await running.until(lambda: running.state("node", "n1") == "ready")
        running.world.machine("n1").up = False
        await running.until(lambda: running.state("allocation", known[0]) == "failed")
        assert running.body("allocation", known[0])["billing"]["cause"] == "node_offline"

    assert history.told(rents)
    history.number = history.world.restore(history.backup)
    assert history.told(loses)
    assert committed(records_of(history.world.database)) == []


def died(at: Point, mode: str) -> History:
    """The start after a restore dies at that point; the next one goes on."""
    history = History()
    history.watch()
    points = Points(at.number, mode)
    if not history.told(history.asks, points):
        assert history.told(history.asks)
    assert history.told(history.returned)
    return history


def test_a_start_that_dies_anywhere_changes_nothing_of_the_end(history: History) -> None:
    points = Points()
    assert history.told(history.asks, points)
    chance = random.Random(5)
    for point in (*points.seen[:24], *chance.sample(points.seen, 12)):
        ended = died(point, chance.choice(MODES))
        assert [case[::2] for case in ended.cases()] == [("restored_unknown", "resolved")], point
        ended.ends_well()


# --- a copy that was put back without a mark --------------------------------------------------------------------


def unmarked(lost_runs: int = 3) -> History:
    """The same, but nobody has said so; nodes have seen some epochs of the lost history."""
    history = History()
    for _ in range(lost_runs):
        history.world.database.lease = LeaseRow(history.world.machine("n1").agent.runtime_epoch)
        history.told(history.nothing)
    history.world.database.put_back(history.backup)
    return history


async def silent_for_a_while(running: Running) -> None:
    """So that the agent is asked."""
    machine = running.world.machine("n1")
    machine.up = False
    await running.until(lambda: running.state("node", "n1") == "offline")
    machine.up = True
    await running.until(lambda: running.state("node", "n1") == "ready")


def raises(history: History) -> list[dict[str, Any]]:
    rows = history.world.database.tables.rows["audit_log"].values()
    return [msgspec.json.decode(row["details"]) for row in rows if row["action"] == "lease.epoch_raised"]


def test_a_refusal_for_a_stale_epoch_ends_the_runtime_and_the_next_one_works_above_it() -> None:
    history = unmarked()
    seen = history.world.machine("n1").agent.runtime_epoch
    own = history.world.database.lease.epoch + 1
    assert own < seen
    with pytest.raises(Fenced, match=f"agent:n1 has seen epoch {seen} and this runtime has {own}"):
        history.told(silent_for_a_while)
    (told,) = raises(history)
    assert (told["seen"], told["is"]) == (seen, seen + RESTORED_BY)
    assert history.world.database.lease == LeaseRow(seen + RESTORED_BY)

    async def goes_on(running: Running) -> None:
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    assert history.told(goes_on)
    assert history.world.machine("n1").agent.runtime_epoch == seen + RESTORED_BY + 1
    assert committed(records_of(history.world.database)) == []


def test_a_script_that_refuses_a_stale_epoch_says_so_as_well() -> None:
    history = History()
    known: list[str] = []

    async def rents(running: Running) -> None:
        running.world.machine("n1").table.users.clear()
        known.append(await running.rent("acme", "known", rate=DEAR))
        await running.until(lambda: running.state("allocation", known[0]) == "active")
        await running.quiet()
        history.backup = running.world.database.backup()

    async def releases(running: Running) -> None:
        await running.release(known[0], "release")
        await running.until(lambda: running.state("allocation", known[0]) == "released")
        await running.quiet()

    assert history.told(rents)
    assert history.told(history.nothing)
    assert history.told(releases)
    history.world.machine("n1").agent.runtime_epoch = 0  # so that no agent speaks first
    history.world.database.put_back(history.backup)
    with pytest.raises(Fenced, match="node:n1 has seen epoch"):
        history.told(releases)
    assert history.told(releases)


def test_who_says_so_again_within_the_hour_is_not_believed() -> None:
    history = unmarked()
    with pytest.raises(Fenced):
        history.told(silent_for_a_while)

    async def lies(running: Running) -> None:
        running.world.machine("n1").agent.runtime_epoch = running.lease.epoch + 7
        await asyncio.sleep(60)
        assert running.state("node", "n1") == "quarantined"

    assert history.told(lies)
    assert len(raises(history)) == 1


@pytest.mark.parametrize("above", [4 * RESTORED_BY, 10**17])
def test_an_epoch_that_would_shut_us_out_of_other_nodes_is_not_believed(above: int) -> None:
    history = History()

    async def lies(running: Running) -> None:
        await running.until(lambda: running.state("node", "n1") == "quarantined")
        running.world.machine("n1").agent.runtime_epoch = running.lease.epoch + above
        await running.ask("ops.node.return_to_service", "back", node_id="n1", reason="go")
        await running.until(lambda: any("reconcile_stalled" in case for case in history.cases()))

    assert history.told(lies)
    assert raises(history) == []


def test_a_runtime_that_was_replaced_raises_nothing() -> None:
    history = unmarked()

    async def replaced(running: Running) -> None:
        running.world.database.lease = LeaseRow(running.lease.epoch + 1, "another", 1e9)
        await silent_for_a_while(running)

    with pytest.raises(Fenced, match="another runtime has taken the lease"):
        history.told(replaced)
    assert history.world.database.lease.holder == "another"
