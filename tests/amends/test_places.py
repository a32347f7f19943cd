"""Places for steps: nobody's trouble takes them all, and a target that cannot be reached is left alone for a while."""

from amends.ports.steps import Outcome
from amends.runtime.places import UNREACHABLE, Places, Reach

UNREACHED = Outcome("failed", "ssh_connect_failed", "no route", may_have_run=False)


def test_an_adapter_that_hangs_leaves_places_for_the_others() -> None:
    places = Places(in_flight=10, per_adapter=6, per_domain=6)
    assert [places.take("ssh", "", f"node:{n}") for n in range(8)] == [True] * 6 + [False] * 2
    assert places.take("agent", "", "node:9")
    places.give("ssh", "")
    assert places.named() == ["node:6"], "first come, first served"


def test_a_failure_domain_that_hangs_leaves_places_of_its_adapter_for_the_others() -> None:
    places = Places(in_flight=10, per_adapter=6, per_domain=4)
    assert [places.take("ssh", "paris", f"node:{n}") for n in range(6)] == [True] * 4 + [False] * 2
    assert places.take("ssh", "oslo", "node:7")
    places.give("ssh", "paris")
    assert places.named() == ["node:4"]
    # one that does not take its place (its gate has closed) leaves it to the next
    assert places.named() == ["node:5"]
    assert places.named() == []


def test_what_waits_for_any_place_is_named_when_one_is_free() -> None:
    places = Places(in_flight=1, per_adapter=1, per_domain=1)
    assert places.take("ssh", "paris", "node:1")
    assert not places.take("agent", "", "node:2")
    places.give("ssh", "paris")
    assert places.named() == ["node:2"]
    assert places.take("agent", "", "node:2")


def test_a_target_that_cannot_be_reached_is_held_longer_and_longer_until_a_step_arrives() -> None:
    reach, now, held = Reach(), 1_000_000, []
    for _ in range(UNREACHABLE - 1):
        reach.took("ssh", "node:1", UNREACHED, now)
        assert reach.held_until("ssh", "node:1") == 0
    for _ in range(8):
        reach.took("ssh", "node:1", UNREACHED, now)
        held.append(reach.held_until("ssh", "node:1") - now)
    assert 0 <= max(held) <= 10_000_000
    assert len(reach) == 1
    assert reach.held_until("agent", "node:1") == 0, "a dead agent says nothing of the machine's sshd"
    assert reach.held_until("ssh", "node:2") == 0
    # a refusal by the target itself says that it was reached
    reach.took("ssh", "node:1", Outcome("failed", "ssh_step_failed", "exit 1"), now)
    assert (reach.held_until("ssh", "node:1"), len(reach)) == (0, 0)


def test_a_target_that_is_back_or_asked_for_is_tried_at_once() -> None:
    reach = Reach()
    for _ in range(5):
        reach.took("ssh", "node:1", Outcome("unknown", "agent_timeout"), 1_000_000)
    reach.forget("node:1")
    assert reach.held_until("ssh", "node:1") == 0


def test_who_waits_twice_is_named_once() -> None:
    places = Places(in_flight=1, per_adapter=1, per_domain=1)
    assert places.take("ssh", "", "node:1")
    assert [places.take("ssh", "", name) for name in ("node:2", "node:2", "node:3")] == [False] * 3
    places.give("ssh", "")
    assert (places.named(), places.named(), places.named()) == (["node:2"], ["node:3"], [])
