"""The pool alone: offers, what becomes of a node whose offer is never answered, and how much is looked at."""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from actors.allocation.state import Allocation
from actors.between import SetupFailed
from actors.node.state import Node
from actors.tables import AssignmentRow
from amends.turn.messages import Envelope
from amends.values.limits import Limits
from supervisors.guards import Guards
from supervisors.last_seen import LastSeen
from supervisors.pool import Pool
from supervisors.timing import timing
from tests.patience import PATIENCE_S
from tests.policies import POLICY


class Engine:
    """An engine that keeps what was told, and whose turns commit when the test says so."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, str], Any] = {}
        self.store = SimpleNamespace(get=lambda kind, name: self.states.get((kind, name)))
        self.context = SimpleNamespace(limits=Limits(timing("acceptance", {})))
        self.listeners: list[Any] = []
        self.gone: list[Any] = []
        self.now_us: Callable[[], int] = lambda: 0
        self.monotonic_us: Callable[[], int] = lambda: 0
        self.offers: list[tuple[str, Envelope]] = []

    def tell(self, kind: str, identifier: str, env: Envelope) -> None:
        assert kind == "allocation"
        self.offers.append((identifier, env))

    def commit(
        self, kind: str, identifier: str, state: Any, *rows: Any, sent: Sequence[Any] = (), took: str = ""
    ) -> None:
        """A turn has committed, with the messages it sends; `took` is the id of the one it took in."""
        before = self.states.get((kind, identifier))
        self.states[kind, identifier] = state
        for listener in self.listeners:
            listener(
                SimpleNamespace(
                    kind=SimpleNamespace(name=kind),
                    steps=[],
                    id=identifier,
                    before=before,
                    state=state,
                    rows=list(rows),
                    sent=sent,
                    env=Envelope(None, message_id=took),
                )
            )

    def node(self, node_id: str, state: str = "ready", key: str = "k", **labels: str) -> None:
        node = Node(state=state, ssh_host="h", ssh_port=22, ssh_host_key=key, registered_us=1, labels=labels)
        self.commit("node", node_id, node)

    def request(self, allocation_id: str, **more: Any) -> None:
        allocation = Allocation(
            state="requested", account_id="a", rate_uminor_per_hour=1, key_line="k", requested_us=1, trace_id="t",
            span_id="s", **more,
        )  # fmt: skip
        self.commit("allocation", allocation_id, allocation)

    def change(self, allocation_id: str, *rows: Any, **changes: Any) -> None:
        state = self.states["allocation", allocation_id]
        self.commit("allocation", allocation_id, msgspec.structs.replace(state, **changes), *rows)

    def offered(self) -> list[tuple[str, str]]:
        return [(allocation_id, env.message.node_id) for allocation_id, env in self.offers]

    def answer(self, number: int, ok: bool) -> None:
        """The offer of that number is settled."""
        done = self.offers[number][1].done
        assert done is not None
        done(ok)


@pytest.fixture
def engine() -> Engine:
    engine = Engine()
    Pool(POLICY, LastSeen(), Guards(Limits(timing("acceptance", {})))).attach(cast(Any, engine))
    return engine


def test_a_node_is_offered_once_and_again_only_when_the_offer_is_over(engine: Engine) -> None:
    engine.node("n1")
    engine.request("a1")
    engine.request("a2")
    engine.node("n1")  # it is heard of meanwhile
    assert engine.offered() == [("a1", "n1")]
    # when the first takes it, then the second waits for its end
    engine.change("a1", AssignmentRow("a1", "n1", "reserved", 1, None), state="provisioning", node_id="n1")
    engine.answer(0, ok=True)
    assert engine.offered() == [("a1", "n1")]
    engine.change("a1", AssignmentRow("a1", "n1", "ended", 1, 2), state="failed")
    assert engine.offered() == [("a1", "n1"), ("a2", "n1")]


async def test_a_start_goes_through_its_actors_in_slices_and_matches_none_before_all_runs() -> None:
    # given what was loaded: a hundred nodes of another site, one that fits, and a request
    engine, ticks = Engine(), 0
    for number in range(100):
        engine.node(f"n{number}", site="b")
    engine.request("a1", node_labels={"site": "a"})
    engine.node("n100", site="a")
    items = [(kind, name, state) for (kind, name), state in engine.states.items()]
    engine.store.items = lambda of: ((name, state) for kind, name, state in items if kind == of)
    engine.monotonic_us = itertools.count(0, 20_000).__next__  # each look at the clock is worth a slice
    pool = Pool(POLICY, LastSeen(), Guards(Limits(timing("acceptance", {}))))
    pool.attach(cast(Any, engine))

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    # when the indexes are made, then others have the loop meanwhile, and nobody is offered anything
    ticking = asyncio.create_task(tick())
    await pool.load()
    ticking.cancel()
    assert ticks > 50
    engine.node("n100", site="a")
    engine.request("a2", node_labels={"site": "a"})
    assert engine.offered() == []
    # until all runs
    pool.loaded()
    assert engine.offered() == [("a1", "n100")]


def accused(engine: Engine) -> None:
    """A set-up has failed on n1, which has yet to take in the message m1 about it; another customer waits."""
    engine.node("n1")
    engine.request("a1")
    engine.request("a2")
    state = msgspec.structs.replace(engine.states["allocation", "a1"], state="failed")
    message = SetupFailed("a1", "ssh_auth_failed")
    sent = SimpleNamespace(kind="node", id="n1", message=message, row=SimpleNamespace(message_id="m1"))
    engine.commit("allocation", "a1", state, AssignmentRow("a1", "n1", "ended", 1, 2), sent=(sent,))
    engine.answer(0, ok=True)


def test_nobody_is_sent_to_a_node_that_has_yet_to_hear_of_a_failed_set_up(engine: Engine) -> None:
    # given a set-up that failed, with others waiting
    accused(engine)
    assert engine.offered() == [("a1", "n1")]
    # when the node has taken it in and stays, then the next one gets it
    engine.commit("node", "n1", engine.states["node", "n1"], took="m1")
    assert engine.offered() == [("a1", "n1"), ("a2", "n1")]


def test_a_message_that_the_node_will_never_take_in_does_not_keep_it_out_for_ever(engine: Engine) -> None:
    accused(engine)
    for dropped in engine.gone:
        dropped("node", "n1", "m1")
    assert engine.offered() == [("a1", "n1"), ("a2", "n1")]


def test_which_living_node_shows_a_host_key_is_known(engine: Engine) -> None:
    pool = engine.listeners[0].__self__
    engine.node("n1", key="one")
    assert (pool.node_with_key("one"), pool.node_with_key("two")) == ("n1", None)
    engine.node("n1", key="two")
    assert (pool.node_with_key("one"), pool.node_with_key("two")) == (None, "n1")
    engine.node("n1", "retired", key="two")
    assert pool.node_with_key("two") is None


@pytest.mark.parametrize("change", [{"paused": True}, {"state": "failed"}])
def test_an_offer_that_its_allocation_will_never_answer_gives_the_node_back(
    engine: Engine, change: dict[str, Any]
) -> None:
    engine.node("n1")
    engine.request("a1")
    engine.request("a2")
    engine.change("a1", **change)
    assert engine.offered() == [("a1", "n1"), ("a2", "n1")]


async def test_a_paused_allocation_is_offered_nothing_and_waits_again_once_it_is_let_go(engine: Engine) -> None:
    engine.node("n1")
    engine.request("a1")
    engine.change("a1", paused=True)
    engine.node("n2")
    assert engine.offered() == [("a1", "n1")]
    engine.change("a1", paused=False)
    assert len(engine.offers) == 2
    # the offer that was held meanwhile ends late, and takes nothing from the one that stands
    engine.request("a2")
    engine.request("a3")
    taken = [node_id for _, node_id in engine.offered()]
    engine.answer(0, ok=True)
    assert [node_id for _, node_id in engine.offered()] == taken
    assert sorted(taken[1:]) == ["n1", "n2"]


async def test_a_refused_offer_leaves_the_node_to_the_next_and_comes_back_later(engine: Engine) -> None:
    engine.node("n1")
    engine.request("a1")
    engine.request("a2")
    engine.answer(0, ok=False)
    assert engine.offered() == [("a1", "n1"), ("a2", "n1")]
    engine.node("n2")
    async with asyncio.timeout(PATIENCE_S):
        while len(engine.offers) < 3:
            await asyncio.sleep(0.01)
    assert engine.offered()[2] == ("a1", "n2")


class Counted(OrderedDict[str, Any]):
    """Free nodes that count how many of them were looked at."""

    looked = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.looked += 1
        return super().get(key, default)


def test_a_burst_does_not_look_again_at_what_it_has_taken(engine: Engine) -> None:
    # given many free nodes
    free = engine.listeners[0].__self__._free
    free._nodes = counted = Counted()
    for number in range(300):
        engine.node(f"n{number}")
    counted.looked = 0
    # when as many ask before any offer is answered
    for number in range(300):
        engine.request(f"a{number}")
    # then each is offered another, and none is passed over again and again
    assert len({node_id for _, node_id in engine.offered()}) == 300
    assert counted.looked <= 600
