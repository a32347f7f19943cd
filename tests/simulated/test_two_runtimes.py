"""A leader and a standby: who is replaced, at any step, does no harm when it wakes; the row ends as it must, once."""

import pytest

from adapters.simulated.loop import VirtualLoop
from adapters.simulated.node_users import NodeCommand, UserTable
from amends.values.errors import Fenced
from supervisors.simulation.pair import Pair, Process
from supervisors.simulation.points import Points
from supervisors.simulation.stories import STORIES, Story
from supervisors.simulation.sweep import tell, wrong
from supervisors.simulation.world import World

BY_ROW = {story.row: story for story in STORIES}
STALE_S, RENEW_S = 5.0, 1.0
MODES = ("before", "lost")
ROWS = [pytest.param(BY_ROW[row], id=row) for row in ("R02", "R04")]


def pair_of(story: Story, points: Points | None = None, seed: int = 1) -> Pair:
    world = World(seed, **story.limits, allocation_deadline_ms=60_000)  # a take-over takes longer than `acceptance` has
    story.breaks(world)
    return Pair(world, story.tell, points, seed)


def steps_of(story: Story) -> list[int]:
    """The points at which a leader that has started changes the world: commits, publishes and steps."""
    points = tell(story).points
    serves = next(point.number for point in points if point.what.startswith("commit "))
    return [point.number for point in points if point.number >= serves and not point.what.startswith("read ")]


def strike(pair: Pair, points: Points) -> None:
    """Come to the moment when it has struck the leader."""
    pair.run(lambda: points.struck is not None)


def replaced(pair: Pair) -> None:
    """Let the standby take over: it has itself seen for five seconds that nobody renews the lease."""
    began, before = pair.now_s, pair.world.database.head
    pair.run(lambda: pair.taken_over)
    assert STALE_S - RENEW_S <= pair.now_s - began < STALE_S + RENEW_S
    assert pair.world.database.head.seq == before.seq


def late(world: World) -> int:
    """How many calls came to nodes too late, and were refused there."""
    return sum(len(machine.late) for machine in world.machines.machines.values())


def ended(process: Process) -> bool:
    """Whether it has come to an end, and to none but those that it may come to."""
    assert process.failed is None or isinstance(process.failed, Fenced)
    return process.told or process.failed is not None


@pytest.mark.slow
@pytest.mark.parametrize("story", ROWS)
@pytest.mark.parametrize("mode", MODES)
def test_who_is_paused_at_any_step_is_replaced_and_does_no_harm_when_it_wakes(story: Story, mode: str) -> None:
    refused = 0
    for at in steps_of(story):
        # given a leader that is stopped at this step, and a standby that takes over and comes to the end
        points = Points(at, mode, VirtualLoop.pause)
        with pair_of(story, points, at) as pair:
            strike(pair, points)
            replaced(pair)
            pair.run(lambda: pair.standby.told)
            head = pair.world.database.head
            # when the first one wakes, then it ends, and nothing has changed
            pair.leader.loop.go_on()
            pair.run(lambda: ended(pair.leader))
            assert pair.world.database.head == head
        assert wrong(story, pair.world) == [], f"{story.row}, paused {mode} {points.struck}"
        refused += late(pair.world)
    assert refused or mode == "lost"  # what was on its way to a node came there late


@pytest.mark.slow
@pytest.mark.parametrize("story", ROWS)
def test_who_wakes_while_the_other_one_takes_over_does_no_harm_either(story: Story) -> None:
    fenced = 0
    for number, at in enumerate(steps_of(story)[::2]):
        points = Points(at, MODES[number % 2], VirtualLoop.pause)
        with pair_of(story, points, at) as pair:
            strike(pair, points)
            replaced(pair)
            pair.leader.loop.go_on()
            pair.run(lambda: ended(pair.leader) and pair.standby.told)
            fenced += pair.leader.failed is not None
        assert wrong(story, pair.world) == [], f"{story.row}, paused {points.struck}"
    assert fenced


@pytest.mark.slow
@pytest.mark.parametrize("story", ROWS)
def test_who_wakes_in_time_goes_on_as_if_nothing_had_been(story: Story) -> None:
    for at in steps_of(story)[::3]:
        points = Points(at, "lost", VirtualLoop.pause)
        with pair_of(story, points, at) as pair:
            strike(pair, points)
            pair.run_for(STALE_S - RENEW_S - 0.5)
            pair.leader.loop.go_on()
            pair.run(lambda: pair.leader.told)
            assert pair.world.database.head.epoch == 1
        assert wrong(story, pair.world) == [], f"{story.row}, paused {points.struck}"


def woken_late(story: Story, what: str) -> World:
    """The world after the leader was paused before that call, replaced, and has gone on with it after the end."""
    points = Points(
        next(point.number for point in tell(story).points if point.what == what), "before", VirtualLoop.pause
    )
    with pair_of(story, points) as pair:
        strike(pair, points)
        pair.run(lambda: pair.standby.told)
        pair.leader.loop.go_on()
        pair.run(lambda: ended(pair.leader))
    return pair.world


def test_a_node_that_took_what_comes_late_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong(BY_ROW["R02"], woken_late(BY_ROW["R02"], "ssh.user-create")) == []
    real = UserTable.apply

    def whatever_comes(self: UserTable, command: NodeCommand) -> tuple[int, str]:
        self._machine.memories.clear()
        return real(self, command)

    monkeypatch.setattr(UserTable, "apply", whatever_comes)
    found = wrong(BY_ROW["R02"], woken_late(BY_ROW["R02"], "ssh.user-create"))
    assert {violation.name for violation in found} == {"A4"}


# --- cut off ---------------------------------------------------------------------------------------------


def cut_at(story: Story, at: int, mode: str, link: str) -> Pair:
    """Both, the leader cut off from one thing from that point on."""
    points = Points(at, mode)
    pair = pair_of(story, points, at)
    points.strike = lambda loop: setattr(pair.leader.running.links, link, False)
    strike(pair, points)
    return pair


@pytest.mark.slow
@pytest.mark.parametrize("story", ROWS)
def test_who_is_cut_off_from_the_journal_alone_begins_nothing_more_and_is_replaced(story: Story) -> None:
    for number, at in enumerate(steps_of(story)[::2]):
        mode = MODES[number % 2]
        with cut_at(story, at, mode, "journal") as pair:
            replaced(pair)
            begun = pair.leader.running.steps.begun
            assert not pair.leader.running.lease.may_act()
            pair.run(lambda: pair.standby.told)
            head = pair.world.database.head
            # when it reaches the journal again, then it is fenced; meanwhile it has begun nothing
            assert pair.leader.running.steps.begun == begun
            pair.leader.running.links.journal = True
            pair.run(lambda: ended(pair.leader))
            assert (pair.world.database.head, pair.leader.running.steps.begun) == (head, begun)
        assert wrong(story, pair.world) == [], f"{story.row}, cut off {mode} point {at}"


@pytest.mark.slow
@pytest.mark.parametrize("story", ROWS)
def test_who_is_cut_off_from_the_bus_alone_stays_the_leader_and_says_everything_later(story: Story) -> None:
    for at in steps_of(story)[::6]:
        with cut_at(story, at, "lost", "bus") as pair:
            pair.run_for(2 * STALE_S)
            published = len(pair.world.bus.tried)
            pair.run_for(STALE_S)
            assert len(pair.world.bus.tried) == published
            assert pair.leader.told or not pair.standby.running.lease.epoch
            pair.leader.running.links.bus = True
            pair.run(lambda: pair.leader.told)
        assert wrong(story, pair.world) == [], f"{story.row}, cut off at point {at}"
