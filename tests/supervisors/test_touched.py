"""What counts as being begun or ended on a node or with a namespace, and how long that is kept."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from actors.node.state import Node
from amends.values.limits import Limits
from supervisors.timing import timing
from supervisors.touched import Touched

GRACE_US = 2_000_000
NODE = Node(state="ready", ssh_host="h", ssh_port=22, ssh_host_key="k", registered_us=1)


class Engine:
    """An engine with a clock, whose listeners are told what the test says."""

    def __init__(self) -> None:
        self.listeners: list[Any] = []
        self.context = SimpleNamespace(limits=Limits(timing("acceptance", {})))
        self.now = 10_000_000

    def now_us(self) -> int:
        return self.now

    def commit(self, kind: str, name: str, before: Any, state: Any, *steps: str) -> None:
        self.now += 1
        for listener in self.listeners:
            listener(cast("Any", SimpleNamespace(
                kind=SimpleNamespace(name=kind), id=name, before=before, state=state,
                steps=[SimpleNamespace(name=step) for step in steps])))  # fmt: skip


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def touched(engine: Engine) -> Touched:
    made = Touched()
    made.attach(cast("Any", engine))
    return made


def test_before_the_start_all_counts_as_touched_at_the_start(engine: Engine, touched: Touched) -> None:
    engine.now += 5
    assert touched.last_us("node:n1") == 10_000_000


def test_rentals_attachments_and_grants_touch_their_node_and_namespace(engine: Engine, touched: Touched) -> None:
    engine.commit("allocation", "a1", None, SimpleNamespace(node_id=None))
    engine.commit("allocation", "a1", SimpleNamespace(node_id="n1"), SimpleNamespace(node_id=None))
    engine.commit("grant", "data.n2", None, SimpleNamespace(node_id="n2", namespace_id="data"))
    engine.commit("account", "acme", None, SimpleNamespace(node_id="n3"))
    found = [touched.last_us(ref) - 10_000_000 for ref in ("node:n1", "node:n2", "namespace:data", "node:n3")]
    assert found == [2, 3, 3, 0]


def test_a_window_and_a_look_touch_nothing_and_what_is_done_to_the_node_does(engine: Engine, touched: Touched) -> None:
    rental, looking = SimpleNamespace(node_id="n1"), msgspec.structs.replace(NODE, version=2)
    engine.commit("allocation", "a1", rental, rental)  # rows only
    engine.commit("node", "n1", NODE, looking, "agent.inventory")
    engine.commit("node", "n1", NODE, looking)
    assert touched.last_us("node:n1") == 10_000_000
    engine.commit("node", "n1", NODE, looking, "ssh.user-remove")
    assert touched.last_us("node:n1") == engine.now
    engine.commit("node", "n1", NODE, msgspec.structs.replace(NODE, state="draining"))
    assert touched.last_us("node:n1") == engine.now


def test_what_is_older_than_the_grace_is_forgotten(engine: Engine, touched: Touched) -> None:
    for number in range(1000):
        engine.now += GRACE_US // 100
        engine.commit("allocation", "a", None, SimpleNamespace(node_id=f"n{number}"))
    kept = [number for number in range(1000) if touched.last_us(f"node:n{number}") > 10_000_000]
    assert len(kept) <= 101
    assert kept[-1] == 999
