"""The detector on a clock of the test's own: silence, return, blindness, a stalled loop."""

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from actors.node.messages import HeartbeatSeen, Silent
from actors.node.state import Node, WayBack
from actors.tables import NodesSeenRow, part_of
from amends.ports.clock import REAL
from amends.runtime.writer import Pending
from amends.values.errors import Refused
from amends.values.limits import Limits
from supervisors.detector import Detector
from supervisors.guards import Guards
from supervisors.last_seen import LastSeen
from supervisors.timing import timing


class Told:
    """An engine that remembers what nodes were told; suspicion after 600 ms (acceptance)."""

    def __init__(self) -> None:
        self.context = SimpleNamespace(limits=Limits(timing("acceptance", {})))
        self.monotonic_us = REAL.monotonic_us
        self.messages: list[tuple[str, Any]] = []
        self.now = 0.0
        self.linked = self.taken = True
        self.held: list[Any] | None = None  # what the nodes have yet to take in; None: they do so at once
        self.submitted: list[Pending] = []
        self.writer = SimpleNamespace(submit=self.submitted.append, room=self._room)
        self.stopping = False
        self.nodes: dict[str, Node] = {}
        self.store = SimpleNamespace(get=lambda kind, identifier: self.nodes.get(identifier))
        self.fleet: list[Any] = []  # what the detector's own actor was told

    async def _room(self) -> None:
        """There is always some."""

    def now_us(self) -> int:
        return int(self.now * 1_000_000)

    def tell(self, kind: str, identifier: str, env: Any) -> None:
        if kind == "detector":
            self.fleet.append(env.message)
            return
        assert kind == "node"
        self.messages.append((identifier, env.message))
        if self.held is not None:
            self.held.append(env)
        elif env.done is not None:
            env.done(self.taken)

    def silent(self) -> list[str]:
        return [node for node, message in self.messages if isinstance(message, Silent)]


class Watch:
    def __init__(self) -> None:
        self.told = Told()
        self.last_seen = LastSeen()
        self.detector = Detector(
            cast(Any, self.told),
            self.last_seen,
            Guards(self.told.context.limits),
            domain_of=lambda node: node.labels.get("site", ""),
            monotonic=lambda: self.told.now,
            linked=lambda: self.told.linked,
        )

    def node(self, node_id: str, state: str = "ready") -> None:
        node = Node(state=state, ssh_host="h", ssh_port=22, ssh_host_key="k", registered_us=1, boot_id="b1")
        self.told.nodes[node_id] = node
        self.detector.on_node(node_id, node)

    def run(self, seconds: float, *beating: str, canary: bool = True, step: float = 0.05) -> None:
        """Let time pass in ticks, with heartbeats of some nodes and the canary."""
        for _ in range(round(seconds / step)):
            self.told.now = round(self.told.now + step, 6)
            if canary:
                self.detector.canary()
            for node_id in beating:
                self.detector.heard(node_id, "b1")
            list(self.detector._look(self.detector._mono()))


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_a_node_is_told_of_its_first_heartbeat_and_of_no_other_while_nothing_changes(watch: Watch) -> None:
    watch.node("n1", "registered")
    watch.run(5, "n1")
    assert [type(message) for _, message in watch.told.messages] == [HeartbeatSeen]


def test_of_heartbeats_that_come_together_only_what_is_new_is_told_and_every_one_counts(watch: Watch) -> None:
    for name in ("n1", "n2", "n3"):
        watch.node(name)
        watch.detector.heard(name, "b1")
    watch.run(1)
    assert watch.told.silent() == ["n1", "n2", "n3"]
    watch.told.messages.clear()

    watch.detector.heard_all([("n1", "b1"), ("ghost", "b1"), ("n2", "b2"), ("n1", "b1")])
    assert [(name, type(each)) for name, each in watch.told.messages] == [("n1", HeartbeatSeen), ("n2", HeartbeatSeen)]
    assert [watch.last_seen.nodes[name].us for name in ("n1", "n2", "n3")] == [1_000_000, 1_000_000, 0]
    assert watch.detector.unknown == 1

    watch.told.messages.clear()
    watch.told.now += 0.4
    watch.detector.heard_all([("n1", "b1"), ("n2", "b2")])
    assert watch.told.messages == []
    watch.run(0.5)
    assert watch.told.silent() == [], "both were heard 500 ms ago"
    watch.detector.checkpoint.save()
    rows = [row for each in watch.told.submitted for row in each.turn.rows]
    assert {row.part for row in rows if isinstance(row, NodesSeenRow)} >= {part_of("n1"), part_of("n2")}


def test_two_machines_under_one_name_are_told_as_rivals_and_no_more_than_once_a_second(watch: Watch) -> None:
    watch.node("n1")
    watch.run(0.1, "n1")
    watch.told.messages.clear()
    # when another machine beats under the name as well, in turn, for five seconds
    for _ in range(25):
        watch.detector.heard("n1", "b2")
        watch.run(0.1)
        watch.detector.heard("n1", "b1")
        watch.run(0.1)
    # then
    beats = [message for _, message in watch.told.messages]
    assert 2 <= len(beats) <= 6
    assert beats[0].rival == ""
    assert all(beat.rival for beat in beats[1:])
    assert watch.last_seen.heard_boot("n1") == "b1"


def test_a_silent_node_is_suspected_once_and_heard_again_when_it_returns(watch: Watch) -> None:
    watch.node("n1")
    watch.node("n2")
    watch.run(1, "n1", "n2")
    watch.run(2, "n1")
    assert watch.told.silent() == ["n2"]
    watch.told.messages.clear()
    watch.run(0.1, "n1", "n2")
    assert [(node, type(message)) for node, message in watch.told.messages] == [("n2", HeartbeatSeen)]
    watch.run(1, "n1")
    assert watch.told.silent() == ["n2"], "it is watched again"


def test_a_node_loaded_at_start_has_a_full_deadline_to_be_heard(watch: Watch) -> None:
    watch.node("n1")
    watch.run(0.55)
    assert watch.told.silent() == []
    watch.run(0.2)
    assert watch.told.silent() == ["n1"]


def test_a_new_boot_id_is_told_at_once(watch: Watch) -> None:
    watch.node("n1")
    watch.run(1, "n1")
    watch.detector.heard("n1", "b2")
    watch.detector.heard("n1", "b2")
    seen = [message.boot_id for _, message in watch.told.messages if isinstance(message, HeartbeatSeen)]
    assert seen == ["b2"]


def test_who_was_heard_a_little_before_everything_fell_silent_is_not_taken_for_silent(watch: Watch) -> None:
    # given nodes whose last heartbeat came up to an interval before the canary's
    watch.node("n1")
    watch.node("n2")
    watch.run(1, "n1", "n2")
    watch.run(0.1, "n2")
    watch.run(0.05)
    # when nothing comes through the broker any more, though the link to it stands
    watch.run(5, canary=False, step=0.01)
    assert watch.detector.blind
    assert watch.told.silent() == []
    # and one that is silent while others are heard is found in time
    watch.run(0.5, "n1", "n2")
    watch.told.messages.clear()
    watch.run(0.65, "n2")
    assert watch.told.silent() == ["n1"]


@pytest.mark.parametrize("how", ["the link is down", "the canary does not come back"])
def test_a_blind_detector_judges_nobody_and_deadlines_start_again_with_sight(watch: Watch, how: str) -> None:
    watch.node("n1")
    watch.run(1, "n1")
    if how == "the link is down":
        watch.told.linked = False
        watch.run(10)
    else:
        watch.run(0.5, "n1", canary=False)  # heartbeats still come, the canary has not been missed for long enough
        watch.run(10, canary=False)
    assert watch.detector.blind
    assert watch.told.silent() == []
    watch.told.linked = True
    watch.run(0.5)
    assert not watch.detector.blind
    assert watch.told.silent() == [], "a full deadline since sight came back"
    watch.run(0.3)
    assert watch.told.silent() == ["n1"]


def test_time_the_loop_lost_is_credited_to_every_deadline(watch: Watch) -> None:
    watch.node("n1")
    watch.run(1, "n1")
    watch.told.now += 30  # the process stood still; heartbeats wait in the socket
    watch.detector._credit(30)
    list(watch.detector._look(watch.detector._mono()))
    assert watch.told.silent() == []
    watch.run(0.5, "n1")
    assert watch.told.silent() == []


def test_heartbeats_of_unknown_and_retired_nodes_are_counted_and_dropped(watch: Watch) -> None:
    watch.node("n1")
    watch.run(0.1, "n1", "ghost")
    watch.node("n1", "retired")
    watch.run(0.1, "n1")
    assert watch.detector.unknown == 4
    assert watch.detector.watched == 0


def test_a_suspect_node_that_is_drained_is_suspected_again_as_draining(watch: Watch) -> None:
    watch.node("n1")
    watch.run(1)
    assert watch.told.silent() == ["n1"]
    watch.node("n1", "draining")
    watch.run(0.1)
    assert watch.told.silent() == ["n1", "n1"]


def saved(watch: Watch) -> list[dict[str, int]]:
    """Last-seen times by node of each checkpoint so far."""
    return [
        {
            node_id: us
            for row in cast(list[NodesSeenRow], pending.turn.rows)
            for node_id, (_, us) in msgspec.json.decode(row.seen).items()
        }
        for pending in watch.told.submitted
    ]


def test_while_one_checkpoint_waits_for_the_database_no_other_is_begun_and_nothing_heard_is_forgotten(
    watch: Watch,
) -> None:
    # given two nodes, and a checkpoint that waits
    watch.node("n1")
    watch.node("n2")
    watch.run(0.1, "n1", "n2")
    watch.detector.checkpoint.save()
    # when they are heard on, and more checkpoints fall due
    watch.run(0.1, "n1")
    watch.detector.checkpoint.save()
    watch.run(0.1, "n1")
    watch.detector.checkpoint.save()
    # then there is one, and the next has the latest of what came meanwhile
    assert saved(watch) == [{"n1": 100_000, "n2": 100_000}]
    watch.told.submitted[0].done(None)
    watch.detector.checkpoint.save()
    assert saved(watch)[1:] == [{"n1": 300_000}]
    watch.told.submitted[1].done(None)
    watch.detector.checkpoint.save()
    assert len(watch.told.submitted) == 2, "nothing was heard since"


def test_the_nodes_of_a_part_are_written_as_one_row_and_only_if_one_of_them_was_heard(watch: Watch) -> None:
    names = [name for number in range(2000) if part_of(name := f"node-{number}") in ("00", "ff")]
    for name in names:
        watch.node(name)
    watch.run(0.1, *names)
    watch.detector.checkpoint.save()
    (first,) = watch.told.submitted
    assert [row.part for row in cast(list[NodesSeenRow], first.turn.rows)] == ["00", "ff"]
    assert {node for found in saved(watch) for node in found} == set(names)
    first.done(None)
    one = names[0]
    watch.run(0.1, one)
    watch.detector.checkpoint.save()
    assert [row.part for row in cast(list[NodesSeenRow], watch.told.submitted[1].turn.rows)] == [part_of(one)]
    assert {node for node, us in saved(watch)[1].items() if us == 200_000} == {one}


def test_a_checkpoint_that_the_database_refuses_is_gathered_again(watch: Watch) -> None:
    watch.node("n1")
    watch.run(0.1, "n1")
    watch.detector.checkpoint.save()
    watch.told.submitted[0].done(Refused("P0001", "no"))
    watch.detector.checkpoint.save()
    assert saved(watch) == [{"n1": 100_000}] * 2


async def test_a_large_fleet_is_written_in_slices_and_a_stop_in_their_middle_writes_the_rest_once(
    watch: Watch,
) -> None:
    # given a fleet of all parts, and a clock by which each turn takes longer than a slice
    names = [f"node-{number}" for number in range(3000)]
    for name in names:
        watch.node(name)
    watch.run(0.05, *names)
    watch.told.monotonic_us = itertools.count(step=20_000).__next__
    # when the checkpoint is due, and the stop comes as soon as others have the loop
    saving = asyncio.create_task(watch.detector.checkpoint.run())
    while not watch.told.submitted:
        await asyncio.sleep(0)
    before = len(watch.told.submitted)
    saving.cancel()
    watch.detector.checkpoint.save()
    # then others had it after the first turn, and all was written once
    assert before == 1
    rows = [row.part for each in watch.told.submitted for row in cast(list[NodesSeenRow], each.turn.rows)]
    assert sorted(rows) == sorted({part_of(name) for name in names})


@pytest.mark.parametrize("state", ["ready", "draining"])
@pytest.mark.parametrize("before", ["registered", "quarantined", "suspect"])
def test_a_node_that_may_be_rented_is_watched_however_it_came_to_that(watch: Watch, before: str, state: str) -> None:
    # given one that fell silent where nobody minds, and one not heard since the start
    watch.node("heard", "registered")
    watch.run(1, "heard")
    watch.node("heard", before)
    watch.run(1)
    assert watch.told.silent() == ["heard"]
    watch.node("loaded", before)
    # when both go into service
    watch.node("heard", state)
    watch.node("loaded", state)
    watch.run(0.1)
    # then the silent one is suspected at once, the other after a full deadline
    assert watch.told.silent() == ["heard", "heard"]
    watch.run(0.4)
    assert watch.told.silent() == ["heard", "heard"]
    watch.run(0.3)
    assert watch.told.silent() == ["heard", "heard", "loaded"]


def test_a_node_has_one_word_before_it_at_a_time_and_the_next_says_how_it_is_then(watch: Watch) -> None:
    watch.node("n1")
    watch.told.held = []
    # given an actor that waits for the database, and a node that falls silent and comes back a thousand times
    for _ in range(50):
        watch.run(0.7)
        watch.run(0.1, "n1")
    assert len(watch.told.messages) == 1
    watch.run(0.7)
    # when it has taken that in
    watch.told.held.pop().done(True)
    # then it is told once more, of what is now
    assert [type(message) for _, message in watch.told.messages[1:]] == [Silent]


def test_a_node_that_takes_no_word_since_it_is_held_is_told_again_later(watch: Watch) -> None:
    watch.node("n1")
    watch.told.taken = False
    watch.run(0.7)
    assert watch.told.silent() == ["n1"]
    watch.told.taken = True
    watch.run(1.5)
    assert watch.told.silent() == ["n1", "n1"]
    watch.run(3)
    assert watch.told.silent() == ["n1", "n1"]


def test_a_committed_turn_of_a_node_counts_when_its_state_has_changed(watch: Watch) -> None:
    registered = Node(state="registered", ssh_host="h", ssh_port=22, ssh_host_key="k", registered_us=1)
    ready = msgspec.structs.replace(registered, state="ready")
    turn = SimpleNamespace(id="n1", before=None, state=registered)
    watch.detector.follow(cast(Any, turn))
    assert (watch.detector.watched, "n1" in watch.last_seen.nodes) == (1, False)
    turn.before, turn.state = registered, ready
    watch.detector.follow(cast(Any, turn))
    assert watch.last_seen.is_heard("n1")
    # when it falls silent, then a turn that leaves its state is no reason to suspect it once more
    watch.run(1.0)
    assert not watch.last_seen.is_heard("n1")
    turn.before = turn.state
    watch.detector.follow(cast(Any, turn))
    assert not watch.last_seen.is_heard("n1")


def test_what_was_heard_before_an_operators_word_is_not_told_after_it(watch: Watch) -> None:
    # given a node in quarantine because a clone beat beside it, whose last beats it has yet to be told of
    watch.node("n1")
    watch.run(0.1, "n1")
    for _ in range(4):
        watch.detector.heard("n1", "b2")
        watch.run(0.05, "n1")
    there = Node(
        state="quarantined", ssh_host="h", ssh_port=22, ssh_host_key="k", registered_us=1, boot_id="b1",
        quarantine_reasons=["identity_conflict"],
    )  # fmt: skip
    watch.told.messages.clear()
    # when the clone is off and an operator lets the node back
    word = SimpleNamespace(
        id="n1", before=there, state=msgspec.structs.replace(there, way_back=WayBack(returning=True))
    )
    watch.detector.follow(cast(Any, word))
    watch.run(3.0, "n1")
    # then no rival is told of any more
    assert [message for _, message in watch.told.messages if message.rival] == []
    # but one that goes on is found again
    for _ in range(15):
        watch.detector.heard("n1", "b2")
        watch.run(0.1, "n1")
    assert any(message.rival for _, message in watch.told.messages)
