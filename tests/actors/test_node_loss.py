"""A node and its loss, turn by turn: silence, probes, verdicts, restarts under a customer, the way back (R08)."""

import pytest

from actors.between import DebtSettled, LossConfirmed, NodeLost
from actors.node.messages import (
    DrainNode,
    HeartbeatSeen,
    QuarantineNode,
    ReturnNode,
    Silent,
    UndrainNode,
    Verdict,
)
from amends.ports.steps import Outcome
from amends.turn.messages import TimerFired
from tests.actors.node_life import DONE, EMPTY, OTHER_KEY, Life

REFUSED = Outcome("failed", "ssh_connect_failed", may_have_run=False)
RENTED = ("alloc_1", "active")


def silence(life: Life, failures: int = 1) -> None:
    """It falls silent, and so many probes fail."""
    life.facts.heard = False
    life.take(Silent(2_000_000))
    for number in range(failures):
        if number:
            life.take(TimerFired("probe"))
        life.end(life.next("ssh.probe"), REFUSED)


def test_a_verdict_holds_only_while_the_node_is_silent_and_its_probes_have_failed(life: Life) -> None:
    life.facts.heard = False
    life.take(Silent(2_000_000))
    probe = life.next("ssh.probe")
    life.take(Verdict(2_000_000))
    assert life.node.state == "suspect", "no probe has failed"
    life.end(probe, REFUSED)
    life.facts.heard = True
    life.take(Verdict(2_000_000))
    assert life.node.state == "suspect", "it was heard meanwhile"
    life.facts.heard = False
    life.take(Verdict(2_000_000))
    assert life.node.state == "offline"


def test_a_lost_node_tells_every_allocation_that_its_loss_concerns_at_the_epoch_they_had_it(life: Life) -> None:
    life.facts.concerned = ["alloc_1", "alloc_2"]
    silence(life)
    life.take(Verdict(2_000_000))
    assert (life.node.state, life.node.epoch, life.node.silence.last_us) == ("offline", 2, 0)
    told = {sent.id: sent.message for sent in life.turn.sent if isinstance(sent.message, NodeLost)}
    assert set(told) == {"alloc_1", "alloc_2"}
    assert {(m.epoch, m.beat_us, m.cause) for m in told.values()} == {(1, 2_000_000, "node_offline")}
    assert life.node.runs["R08"].outcome == "degraded"
    # a second verdict is no verdict
    life.take(Verdict(2_000_000))
    assert life.node.epoch == 2


def test_an_operators_word_stands_in_for_the_guards_and_for_nothing_else(life: Life) -> None:
    silence(life)
    life.take(LossConfirmed("burned"))
    assert (life.node.state, life.node.silence.confirmed) == ("suspect", True)
    life.facts.heard = True
    life.take(HeartbeatSeen("b1", 9_000_000))
    assert (life.node.state, life.node.silence.confirmed) == ("ready", False)


def test_another_host_key_on_a_confirmed_node_is_one_transition_and_no_more(life: Life) -> None:
    life.facts.heard = False
    life.take(Silent(2_000_000))
    probe = life.next("ssh.probe")
    life.take(LossConfirmed("burned"))
    life.end(probe, OTHER_KEY)
    assert (life.node.state, life.node.quarantine_reasons) == ("quarantined", ["host_key_mismatch"])
    life.take(Verdict(2_000_000))
    assert life.node.state == "offline"


def test_a_restart_under_a_customer_is_judged_when_the_new_boot_is_heard_and_the_old_one_stays_away(life: Life) -> None:
    life.facts.assignment, life.facts.concerned = RENTED, ["alloc_1"]
    life.take(HeartbeatSeen("b2", 5_000_000, before_us=4_000_000))
    assert (life.node.state, life.node.boot_id, life.node.reboot.boot_id) == ("ready", "b1", "b2")
    # nobody was heard since a start: not yet
    life.facts.boot_id, life.facts.last_us = "b1", 4_000_000
    life.take(TimerFired("reboot"))
    assert (life.node.state, set(life.node.timers)) == ("ready", {"reboot"})
    # it was heard long ago, by a runtime that hears nobody now
    life.facts.boot_id, life.facts.last_us = "b2", life.now - 5_000_000
    life.take(TimerFired("reboot"))
    assert life.node.state == "ready"
    # it is heard, and the old one is not
    life.facts.last_us = life.now + 900_000
    life.take(TimerFired("reboot"))
    assert (life.node.state, life.node.boot_id, life.node.epoch) == ("offline", "b2", 2)
    (told,) = [sent.message for sent in life.turn.sent if isinstance(sent.message, NodeLost)]
    assert (told.cause, told.beat_us) == ("node_rebooted", 4_000_000)


def test_the_old_boot_that_is_heard_again_was_no_restart(life: Life) -> None:
    life.facts.assignment = RENTED
    life.take(HeartbeatSeen("b2", 5_000_000, before_us=4_000_000))
    life.facts.boot_id, life.facts.last_us = "b1", 6_000_000
    life.take(TimerFired("reboot"))
    assert (life.node.state, life.node.reboot.boot_id, life.node.timers) == ("ready", "", {})


def test_two_machines_under_one_name_end_no_rental(life: Life) -> None:
    life.facts.assignment = RENTED
    life.take(HeartbeatSeen("b2", 5_000_000, before_us=4_000_000))
    life.take(HeartbeatSeen("b1", 6_000_000, rival="b2"))
    assert (life.node.state, life.node.quarantine_reasons) == ("quarantined", ["identity_conflict"])
    assert (life.node.epoch, "reboot" in life.node.timers) == (1, False)


def test_what_restarts_and_then_falls_silent_is_lost_at_the_last_beat_of_the_old_boot(life: Life) -> None:
    life.facts.assignment, life.facts.concerned = RENTED, ["alloc_1"]
    life.take(HeartbeatSeen("b2", 5_000_000, before_us=4_000_000))
    life.facts.heard = False
    life.take(Silent(5_500_000))
    life.end(life.next("ssh.probe"), REFUSED)
    life.take(Verdict(5_500_000))
    (told,) = [sent.message for sent in life.turn.sent if isinstance(sent.message, NodeLost)]
    assert (told.cause, told.beat_us) == ("node_offline", 4_000_000)


def test_a_lost_node_comes_back_by_way_of_quarantine_and_records_the_user_that_went(life: Life) -> None:
    silence(life)
    life.take(Verdict(2_000_000))
    life.facts.heard, life.facts.dirty = True, True
    life.take(HeartbeatSeen("b1", 9_000_000))
    assert (life.node.state, life.node.quarantine_reasons, life.asked) == ("quarantined", ["offline"], [])
    life.facts.dirty = False
    life.take(DebtSettled("am-" + "1" * 26, "a" * 32 + ":" + "b" * 16, 5))
    life.end(life.next("agent.reconcile"), life.inventory())
    assert (life.node.state, life.node.runs, life.node.quarantine_reasons) == ("ready", {}, [])


def returned(life: Life) -> None:
    """It is heard again, and its agent has nothing left over."""
    life.facts.heard = True
    life.take(HeartbeatSeen("b1", 9_000_000))
    life.end(life.next("agent.reconcile"), Outcome("done", data=EMPTY))


@pytest.mark.parametrize("suspect_first", [False, True])
def test_a_drained_node_that_is_lost_comes_back_drained_until_an_operator_lets_it(
    life: Life, suspect_first: bool
) -> None:
    # given a node that was drained, before it fell silent or since
    drain = DrainNode(node_id="n1", reason="a fan")
    if not suspect_first:
        life.take(drain, "operator:o")
    silence(life)
    if suspect_first:
        life.take(drain, "operator:o")
    # when it is lost, more than once, and back
    for _ in range(2):
        life.take(Verdict(2_000_000))
        assert life.node.state == "offline"
        returned(life)
        # then it is drained still
        assert (life.node.state, life.node.drained) == ("draining", False)
        silence(life)
    life.facts.heard = True
    life.take(HeartbeatSeen("b1", 9_000_000))
    life.take(UndrainNode(node_id="n1", reason="mended"), "operator:o")
    silence(life)
    life.take(Verdict(2_000_000))
    returned(life)
    assert life.node.state == "ready"


def test_a_drained_node_that_an_operator_returns_to_service_is_in_service(life: Life) -> None:
    life.take(DrainNode(node_id="n1", reason="a fan"), "operator:o")
    life.take(QuarantineNode(node_id="n1", reason="smoke"), "operator:o")
    assert life.node.drained
    life.take(ReturnNode(node_id="n1", reason="mended"), "operator:o")
    life.end(life.reconcile(), Outcome("done", data=EMPTY))
    assert (life.node.state, life.node.drained) == ("ready", False)


def test_a_lost_node_that_an_operator_quarantines_keeps_that_it_was_lost(life: Life) -> None:
    silence(life)
    life.take(Verdict(2_000_000))
    life.take(QuarantineNode(node_id="n1", reason="do not touch"), "operator:o")
    assert (life.node.state, life.node.quarantine_reasons) == ("quarantined", ["offline", "operator"])


def test_a_node_that_an_older_release_suspected_is_judged_as_any_other(life: Life) -> None:
    life.take(Silent(2_000_000))
    life.end(life.next("ssh.probe"), DONE)
    older = life.node
    life.state = type(older)(**{name: getattr(older, name) for name in older.__struct_fields__ if name != "silence"})
    life.take(Silent(2_000_000))
    assert (life.node.state, life.node.silence.last_us) == ("suspect", 2_000_000)
    life.next("ssh.probe")
