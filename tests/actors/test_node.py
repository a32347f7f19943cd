"""The node's decisions one by one, without a world: late answers, stopped ways back, left-over users."""

from typing import Any

import msgspec
import pytest

from actors.between import SetupFailed, SetupWorked, Suspicion
from actors.node.messages import (
    DrainNode,
    HeartbeatSeen,
    QuarantineNode,
    RegisterNode,
    RetireNode,
    ReturnNode,
    Silent,
    SshAddress,
    UpdateNode,
)
from actors.node.reconcile import STALLED_AFTER
from amends.ports.steps import Outcome
from amends.turn.messages import TimerFired
from amends.values.errors import Rejected
from tests.actors.node_life import DONE, EMPTY, ONE, OTHER_KEY, SSH, TWO, Life, move, returning

# --- the way back is stopped -----------------------------------------------------------------------------


def test_a_node_quarantined_on_its_way_back_stays_and_the_operators_word_is_audited(life: Life) -> None:
    asked = returning(life)
    life.audits.clear()
    life.take(QuarantineNode(node_id="n1", reason="not yet"), "operator:o")
    assert life.audits == ["node.quarantine_reason"]
    assert life.turn.audits[0].reason == "not yet"
    life.end(asked, life.inventory())
    assert (life.node.state, life.node.quarantine_reasons, life.node.way_back.returning) == (
        "quarantined",
        ["operator"],
        False,
    )
    # and an operator may let it back once more
    life.take(ReturnNode(node_id="n1", reason="now"), "operator:o")
    life.end(life.reconcile(), life.inventory())
    assert life.node.state == "ready"


def test_a_wrong_host_key_seen_on_the_way_back_stops_it_and_keeps_its_case(life: Life) -> None:
    asked = returning(life)
    life.take(Suspicion("host_key_mismatch"))
    life.end(asked, life.inventory())
    assert (life.node.state, life.node.quarantine_reasons) == ("quarantined", ["host_key_mismatch", "operator"])
    assert list(life.node.cases) == ["host_key_mismatch"]


def test_acknowledged_debts_are_forgotten_with_the_way_back_they_were_acknowledged_for(life: Life) -> None:
    life.facts.dirty = True
    life.take(QuarantineNode(node_id="n1", reason="odd noises"), "operator:o")
    life.take(ReturnNode(node_id="n1", reason="silence", acknowledge_dirty=True), "operator:o")
    life.take(Suspicion("cleanup_exhausted"))
    assert not life.node.way_back.dirty_acknowledged


def test_a_stopped_way_back_asks_no_more_and_closes_the_case_that_said_so(life: Life) -> None:
    life.end(returning(life), Outcome("unknown", "agent_timeout"))
    for _ in range(STALLED_AFTER - 1):
        life.take(TimerFired("reconcile"))
        life.end(life.reconcile(), Outcome("unknown", "agent_timeout"))
    assert list(life.node.cases) == ["reconcile_stalled"]
    life.take(QuarantineNode(node_id="n1", reason="leave it"), "operator:o")
    assert (life.node.cases, life.node.timers) == ({}, {})


# --- late answers ----------------------------------------------------------------------------------------


def test_an_answer_of_the_old_machine_does_not_let_a_new_registration_in(life: Life) -> None:
    asked = returning(life)
    life.take(RetireNode(node_id="n1", reason="gone"))
    life.take(RegisterNode(node_id="n1", ssh=SSH))
    life.take(QuarantineNode(node_id="n1", reason="wait"))
    life.take(ReturnNode(node_id="n1", reason="go"))
    own = life.reconcile()
    life.end(asked, life.inventory())
    assert life.node.state == "quarantined"
    life.end(own, life.inventory())
    assert life.node.state == "ready"


def test_a_probe_of_the_old_machine_does_not_make_a_new_registration_ready() -> None:
    life = Life()
    life.take(RegisterNode(node_id="n1", ssh=SSH))
    life.take(HeartbeatSeen("b1", 1))
    old = life.next("ssh.probe")
    life.take(RetireNode(node_id="n1", reason="gone"))
    life.take(RegisterNode(node_id="n1", ssh=SSH))
    life.take(HeartbeatSeen("b2", 1))
    own = life.next("ssh.probe")
    life.end(old, DONE)
    assert life.node.state == "registered"
    life.end(own, DONE)
    assert life.node.state == "ready"


def test_an_inventory_of_before_a_reboot_is_asked_for_again(life: Life) -> None:
    asked = returning(life)
    life.facts.assignment = ("alloc_1", "reserved")
    life.take(HeartbeatSeen("b2", 2))
    assert life.node.epoch == 2
    life.end(asked, life.inventory())
    assert life.node.state == "quarantined"
    again = life.next("agent.reconcile")
    assert msgspec.json.decode(again.args)["node_epoch"] == 2
    life.end(again, life.inventory())
    assert life.node.state == "ready"


def test_a_machine_that_moved_on_its_way_back_is_asked_anew(life: Life) -> None:
    asked = returning(life)
    move(life)
    own = life.reconcile()  # what answers at the new address is looked at before its agent is asked
    life.end(asked, life.inventory())
    assert life.node.state == "quarantined"
    life.end(own, life.inventory())
    assert life.node.state == "ready"


def test_an_update_during_a_probe_is_probed_itself_and_only_its_own_answer_counts() -> None:
    life = Life()
    life.take(RegisterNode(node_id="n1", ssh=SSH))
    life.take(HeartbeatSeen("b1", 1))
    old = life.next("ssh.probe")
    own = move(life)
    life.end(old, OTHER_KEY)
    assert life.node.state == "registered"
    life.end(own, DONE)
    assert life.node.state == "ready"


@pytest.mark.parametrize("state", ["ready", "quarantined"])
def test_a_wrong_host_key_after_an_update_is_not_left_for_the_next_customer(life: Life, state: str) -> None:
    if state == "quarantined":
        life.take(QuarantineNode(node_id="n1", reason="moving it"))
    life.end(move(life), OTHER_KEY)
    assert life.node.state == "quarantined"
    assert "host_key_mismatch" in life.node.quarantine_reasons
    assert list(life.node.cases) == ["host_key_mismatch"]


def test_a_good_probe_alone_makes_no_node_ready() -> None:
    life = Life()
    life.take(RegisterNode(node_id="n1", ssh=SSH))
    life.end(move(life), DONE)
    assert life.node.state == "registered"
    life.take(HeartbeatSeen("b1", 1))
    life.end(life.next("ssh.probe"), DONE)
    assert life.node.state == "ready"


# --- left-over users -------------------------------------------------------------------------------------


def test_left_over_users_are_removed_one_by_one_and_the_inventory_is_read_again(life: Life) -> None:
    life.facts.expected = ["am-" + "3" * 26]
    life.end(returning(life), life.inventory(ONE, TWO, "am-" + "3" * 26, "root"))
    for user, digit in ((ONE, "1"), (TWO, "2")):
        assert life.node.state == "quarantined"
        step = life.next("ssh.user-remove")
        args = msgspec.json.decode(step.args)
        assert (step.target, args["user"], args["allocation"]) == ("node:n1", user, "alloc_" + digit * 26)
        life.end(step, DONE)
        assert life.audits[-1] == f"node.user_removed node:n1/user:{user}"
    life.end(life.next("agent.reconcile"), life.inventory("am-" + "3" * 26, "root"))
    assert (life.node.state, life.node.way_back.tries) == ("ready", 0)


def test_a_node_whose_left_over_user_cannot_be_removed_stays_and_a_person_is_called(life: Life) -> None:
    step = returning(life)
    for number in range(STALLED_AFTER):
        life.end(step, life.inventory(ONE, TWO))
        life.end(life.next("ssh.user-remove"), Outcome("failed", "ssh_step_failed"))
        life.end(life.next("ssh.user-remove"), DONE)  # one that cannot go does not keep the others
        assert life.node.state == "quarantined"
        assert ("reconcile_stalled" in life.node.cases) == (number == STALLED_AFTER - 1)
        life.take(TimerFired("reconcile"))
        step = life.reconcile()
    # when it is gone at last, then the node is back and the case closed
    life.end(step, life.inventory())
    assert (life.node.state, life.node.cases) == ("ready", {})


def test_an_agent_that_names_users_for_ever_is_not_asked_without_pause(life: Life) -> None:
    step = returning(life)
    for _ in range(STALLED_AFTER - 1):
        life.end(step, life.inventory(ONE))
        life.end(life.next("ssh.user-remove"), DONE)
        step = life.next("agent.reconcile")
    life.end(step, life.inventory(ONE))
    life.end(life.next("ssh.user-remove"), DONE)
    assert life.asked == []
    assert (list(life.node.cases), list(life.node.timers)) == (["reconcile_stalled"], ["reconcile"])


def test_a_removal_that_ends_after_the_way_back_was_stopped_is_audited_and_nothing_follows(life: Life) -> None:
    life.end(returning(life), life.inventory(ONE, TWO))
    step = life.next("ssh.user-remove")
    life.take(QuarantineNode(node_id="n1", reason="leave it"), "operator:o")
    life.end(step, DONE)
    assert life.audits[-1] == f"node.user_removed node:n1/user:{ONE}"
    assert (life.asked, life.node.state, life.node.way_back.step) == ([], "quarantined", "")


def quarantined_by(life: Life, *messages: Any) -> list[str]:
    """The reasons after these messages."""
    for message in messages:
        life.take(message)
    return life.node.quarantine_reasons


def test_boot_ids_that_alternate_are_two_machines_and_no_reboot(life: Life) -> None:
    life.facts.assignment = ("alloc_x", "active")
    assert quarantined_by(life, HeartbeatSeen("b1", 3, rival="b2")) == ["identity_conflict"]
    assert "identity_conflict" in life.node.cases
    # and what they go on to say changes nothing and writes nothing
    life.take(HeartbeatSeen("b2", 4))
    assert not life.turn.changed
    # and an operator lets the one back that is heard then
    life.facts.boot_id = "b1"
    life.take(ReturnNode(node_id="n1", reason="the clone has its own name now"), "operator:kim")
    life.end(life.reconcile(), Outcome("done", data=EMPTY))
    assert (life.node.state, life.node.boot_id, life.node.cases) == ("ready", "b1", {})


def test_set_ups_that_fail_in_a_row_take_the_node_out_of_service(life: Life) -> None:
    failed = [SetupFailed(f"alloc_{number}", "ssh_auth_failed") for number in range(3)]
    assert quarantined_by(life, *failed[:2]) == []
    assert quarantined_by(life, failed[2]) == ["setup_failing"]
    assert "setup_failing" in life.node.cases
    life.take(ReturnNode(node_id="n1", reason="its key was wrong"), "operator:kim")
    life.end(life.reconcile(), Outcome("done", data=EMPTY))
    assert (life.node.state, life.node.setup_fails, life.node.cases) == ("ready", [], {})


def test_a_good_set_up_between_them_forgives_the_failed_ones(life: Life) -> None:
    failed = SetupFailed("alloc_1", "ssh_step_failed")
    assert quarantined_by(life, failed, failed, SetupWorked(), failed, failed) == []


def test_the_key_of_another_node_is_refused_and_its_name_is_told(life: Life) -> None:
    life.facts.keys["ssh-ed25519 BBBB"] = "n7"
    other = SshAddress(host="10.0.0.9", port=22, host_key="ssh-ed25519 BBBB")
    with pytest.raises(Rejected, match="n7") as refused:
        life.take(UpdateNode(node_id="n1", reason="moved", ssh=other), "operator:kim")
    assert (refused.value.code, refused.value.details) == ("already_exists", {"field": "ssh.host_key"})


def test_a_suspect_node_that_is_drained_stays_suspect_and_returns_to_draining(life: Life) -> None:
    life.take(Silent(2))
    life.take(DrainNode(node_id="n1", reason="maintenance"), "operator:kim")
    assert life.node.state == "suspect"
    life.take(HeartbeatSeen("b1", 9))
    assert life.node.state == "draining"
