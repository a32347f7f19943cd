"""Places for steps: nobody's trouble takes them all, and a target that cannot be reached is left alone for a while."""

from amends.ports import Outcome
from amends.runtime.places import UNREACHABLE, Places, Reach

UNREACHED = Outcome("failed", "ssh_connect_failed", "no route", may_have_run=False)


def test_an_adapter_that_hangs_leaves_places_for_the_others() -> None:
    places = Places(in_flight=10, per_adapter=6, per_domain=6)
    assert [places.take("ssh", "", f"node:{n}") for n in range(8)] == [True] * 6 + [False] * 2
    assert places.take("agent", "", "node:9")
    assert places.give("ssh", "") == ["node:6"], "first come, first served"


def test_a_failure_domain_that_hangs_leaves_places_of_its_adapter_for_the_others() -> None:
    places = Places(in_flight=10, per_adapter=6, per_domain=4)
    assert [places.take("ssh", "paris", f"node:{n}") for n in range(6)] == [True] * 4 + [False] * 2
    assert places.take("ssh", "oslo", "node:7")
    assert places.give("ssh", "paris") == ["node:4"]
    assert places.take("ssh", "paris", "node:4")
    assert places.give("ssh", "paris") == ["node:5"]


def test_what_waits_for_any_place_is_named_when_one_is_free() -> None:
    places = Places(in_flight=1, per_adapter=1, per_domain=1)
    assert places.take("ssh", "paris", "node:1")
    assert not places.take("agent", "", "node:2")
    assert places.give("ssh", "paris") == ["node:2"]
    assert places.take("agent", "", "node:2")


def test_a_target_that_cannot_be_reached_is_held_longer_and_longer_until_a_step_arrives() -> None:
    reach, now, held = Reach(), 1_000_000, []
    for _ in range(UNREACHABLE - 1):
        reach.took("node:1", UNREACHED, now)
        assert reach.held_until("node:1") == 0
    for _ in range(8):
        reach.took("node:1", UNREACHED, now)
        held.append(reach.held_until("node:1") - now)
    assert 0 <= max(held) <= 10_000_000
    assert len(reach) == 1
    assert reach.held_until("node:2") == 0
    # a refusal by the target itself says that it was reached
    reach.took("node:1", Outcome("failed", "ssh_step_failed", "exit 1"), now)
    assert (reach.held_until("node:1"), len(reach)) == (0, 0)


def test_a_target_that_is_back_or_asked_for_is_tried_at_once() -> None:
    reach = Reach()
    for _ in range(5):
        reach.took("node:1", Outcome("unknown", "agent_timeout"), 1_000_000)
    reach.forget("node:1")
    assert reach.held_until("node:1") == 0
