"""The guards alone: whom they count, when they hold, when they let go."""

import pytest

from amends.values.limits import Limits
from supervisors.guards import ALL, Guards
from supervisors.timing import timing

WINDOW_S = 1.5


@pytest.fixture
def guards() -> Guards:
    """Site a with four nodes, site b with six; half may be silent."""
    made = Guards(Limits(timing("acceptance", {})))
    for site, count in (("a", 4), ("b", 6)):
        for number in range(count):
            made.watch(f"{site}{number}", site)
    return made


def changed(guards: Guards, now: float = 1.0) -> dict[str, bool]:
    return {domain: counts.held for domain, counts in guards.look(now)}


def test_half_of_a_site_is_not_held_and_more_is(guards: Guards) -> None:
    guards.silent("a0")
    guards.silent("a1")
    assert changed(guards) == {}
    guards.silent("a2")
    guards.silent("a2")
    assert changed(guards) == {"a": True}
    assert (guards.holds("a"), guards.holds("b")) == (True, False)
    assert guards.held_nodes("a", None) == ["a0", "a1", "a2"]
    assert guards.held_nodes("a", ["a1", "b1"]) == ["a1"]
    assert guards.held_nodes("b", None) == []
    guards.heard("a0")
    assert changed(guards) == {"a": False}


def test_what_was_lost_just_now_counts_and_what_was_lost_long_ago_does_not(guards: Guards) -> None:
    for node in ("a0", "a1"):
        guards.silent(node)
        guards.lost(node, 1.0)
    guards.silent("a2")
    assert changed(guards, 1.0) == {"a": True}
    assert changed(guards, 1.0 + WINDOW_S) == {"a": False}


def test_more_than_half_of_all_holds_everywhere_and_no_more_when_one_site_is_left(guards: Guards) -> None:
    for node in ("a0", "a1", "b0", "b1", "b2", "b3"):
        guards.silent(node)
    assert changed(guards) == {ALL: True, "b": True}
    assert guards.holds("a")
    # a fleet of one site has no "all" beside it; a hold of before a start ends then
    alone = Guards(Limits(timing("acceptance", {})))
    alone.watch("n1", "a")
    alone.restore([ALL])
    assert alone.holds("a")
    assert changed(alone) == {ALL: False}


def test_a_node_that_moves_to_another_site_is_counted_there_alone(guards: Guards) -> None:
    for node in ("a0", "a1", "a2"):
        guards.silent(node)
    assert changed(guards) == {"a": True}
    guards.watch("a2", "b")
    assert changed(guards) == {"a": False}
    guards.forget("a0")
    guards.heard("a0")
    guards.lost("gone", 1.0)
    assert guards.held_nodes(None, None) == []


def test_verdicts_are_so_many_a_second() -> None:
    guards = Guards(Limits({**timing("acceptance", {}), "verdicts_per_s": 2}))
    assert [guards.token(10.0) for _ in range(4)] == [True, True, False, False]
    assert [guards.token(10.5) for _ in range(2)] == [True, False]
