"""A node whose database was restored: its inventory is read before anything else, and what is unknown stays."""

from typing import Any

import pytest

from actors.between import RESTORED_BY, DebtSettled, same_life
from actors.node.inventory import NAMED_AT_ONCE
from actors.node.messages import (
    DrainNode,
    HeartbeatSeen,
    QuarantineNode,
    RegisterNode,
    Restored,
    RetireNode,
    ReturnNode,
    Silent,
    Verdict,
)
from amends.ports.steps import Outcome
from amends.values.records import CaseRow, StepRow
from tests.actors.node_life import DONE, EMPTY, ONE, OTHER_KEY, SSH, TWO, Life, ready

FIRST = Restored(RESTORED_BY + 3, "the disk is gone")


def restored(life: Life | None = None) -> Life:
    """A node that was ready, told of the restore and asked for its inventory."""
    life = life or ready()
    life.take(FIRST)
    return life


def asked(life: Life) -> dict[str, Any]:
    """The arguments of the question for the inventory."""
    (step,) = (step for step in life.asked if step.name == "agent.reconcile")
    args = life.args(step)
    assert args["report_only"]
    return args


def reported(life: Life, *users: str, mounts: tuple[str, ...] = ()) -> None:
    """The inventory that the node was just asked for comes in."""
    (step,) = (step for step in life.asked if step.name == "agent.reconcile")
    life.end(step, Outcome("done", data=EMPTY | {"users": list(users), "mounts": list(mounts)}))


def cases(life: Life) -> list[str]:
    """What the turn has opened or closed a case for."""
    return [f"{row.state} {row.kind} {row.target_ref}".strip() for row in life.turn.rows if isinstance(row, CaseRow)]


def test_it_is_quarantined_with_the_operators_reason_and_asked_for_its_inventory_at_a_higher_epoch() -> None:
    life = restored()
    assert (life.node.state, life.node.quarantine_reasons) == ("quarantined", ["restored"])
    assert life.node.restored == FIRST.number
    assert [audit.reason for audit in life.turn.audits if audit.action == "node.quarantined"] == ["the disk is gone"]
    assert asked(life)["node_epoch"] == life.node.epoch == RESTORED_BY + 1


def test_it_hears_of_a_restore_once_and_of_the_next_one_again() -> None:
    life = restored()
    version = life.node.version
    life.take(FIRST)
    assert (life.node.version, life.asked) == (version, [])
    life.take(Restored(FIRST.number + RESTORED_BY, "again"))
    assert (life.node.restored, life.node.epoch) == (FIRST.number + RESTORED_BY, 2 * RESTORED_BY + 1)


def test_without_anything_unknown_it_is_probed_and_goes_back() -> None:
    life = ready()
    life.facts.expected = [ONE]
    restored(life)
    reported(life, ONE)
    assert life.node.state == "quarantined"
    life.end(life.next("ssh.probe"), DONE)
    reported(life, ONE)
    assert (life.node.state, life.node.quarantine_reasons, life.node.cases) == ("ready", [], {})


def test_each_unknown_user_and_mount_is_a_case_and_nothing_is_removed() -> None:
    life = ready()
    life.facts.expected = [ONE]
    restored(life)
    mount = "att_" + "3" * 26
    reported(life, ONE, TWO, "postgres", mounts=(mount, "../../etc"))
    assert cases(life) == [
        f"open restored_unknown node:n1/user:{TWO}",
        f"open restored_unknown node:n1/mount:{mount}",
    ]
    assert life.asked == []
    assert (life.node.state, life.node.quarantine_reasons) == ("quarantined", ["restored"])
    # when it is heard again, or a debt of it is settled, nothing begins by itself
    life.take(HeartbeatSeen("b2", 2))
    assert life.asked == []


def test_an_operators_word_takes_the_unknown_away_and_closes_the_cases() -> None:
    life = restored()
    reported(life, TWO)
    life.take(ReturnNode(node_id="n1", reason="nobody's"), "operator:o")
    life.end(life.reconcile(), life.inventory(TWO))
    remove = life.next("ssh.user-remove")
    assert life.args(remove)["user"] == TWO
    life.end(remove, DONE)
    life.end(life.next("agent.reconcile"), life.inventory())
    assert (life.node.state, life.node.cases) == ("ready", {})
    assert cases(life) == ["resolved restored_unknown"]


def test_who_lets_it_back_before_its_inventory_was_read_is_told_what_is_there_first() -> None:
    life = ready()
    life.take(QuarantineNode(node_id="n1", reason="odd"), "operator:o")
    restored(life)
    question = life.next("agent.reconcile")
    life.take(ReturnNode(node_id="n1", reason="go"), "operator:o")
    life.end(question, life.inventory(TWO))
    assert cases(life) == [f"open restored_unknown node:n1/user:{TWO}"]
    assert (life.asked, life.node.way_back.returning) == ([], False)


def test_whatever_else_stands_against_it_stays_when_its_inventory_was_read() -> None:
    life = ready()
    life.take(QuarantineNode(node_id="n1", reason="odd"), "operator:o")
    restored(life)
    assert life.node.quarantine_reasons == ["operator", "restored"]
    reported(life)
    assert (life.node.state, life.node.quarantine_reasons, life.asked) == ("quarantined", ["operator"], [])


def test_another_reason_that_comes_meanwhile_does_not_end_the_reading() -> None:
    life = restored()
    life.end(life.next("agent.reconcile"), Outcome("unknown", "agent_timeout"))
    assert list(life.node.timers) == ["reconcile"]
    life.take(QuarantineNode(node_id="n1", reason="odd"), "operator:o")
    reported(life)
    assert life.node.quarantine_reasons == ["operator"]


def test_a_node_that_shows_another_host_key_is_a_case_and_does_not_probe_for_ever() -> None:
    life = restored()
    reported(life)
    life.end(life.next("ssh.probe"), OTHER_KEY)
    assert "host_key_mismatch" in life.node.cases
    reported(life)
    assert (life.node.quarantine_reasons, life.asked) == (["host_key_mismatch"], [])


def test_one_that_owes_cleanups_is_read_all_the_same_and_goes_back_when_they_are_settled() -> None:
    life = ready()
    life.facts.dirty, life.facts.expected = True, [ONE]
    restored(life)
    reported(life, ONE)
    life.end(life.next("ssh.probe"), DONE)
    reported(life, ONE)
    assert (life.node.state, life.asked) == ("quarantined", [])
    life.facts.dirty, life.facts.expected = False, []
    life.take(DebtSettled())
    reported(life)
    assert life.node.state == "ready"


def test_a_drained_node_stays_out_of_service() -> None:
    life = ready()
    life.take(DrainNode(node_id="n1", reason="a fan"), "operator:o")
    restored(life)
    reported(life)
    assert (life.node.state, life.node.quarantine_reasons) == ("quarantined", ["operator"])


def test_an_offline_node_is_read_when_it_is_back() -> None:
    life = ready()
    life.take(Silent(1))
    for _ in range(life.context.limits("min_failed_probes")):
        if not life.asked:
            break
        life.end(life.asked[0], Outcome("failed", "ssh_connect_failed"))
    life.facts.heard = False
    silence = life.node.silence
    assert silence.last_us
    while life.node.silence.failed < life.context.limits("min_failed_probes"):
        life.timer("probe")
        life.end(life.next("ssh.probe"), Outcome("failed", "ssh_connect_failed"))
    life.take(Verdict(1))
    assert life.node.state == "offline"
    restored(life)
    assert (life.node.state, life.node.quarantine_reasons, life.asked) == ("offline", ["restored"], [])
    life.facts.heard = True
    life.take(HeartbeatSeen("b1", 9))
    assert life.node.quarantine_reasons == ["offline", "restored"]
    reported(life, TWO)
    assert cases(life) == [f"open restored_unknown node:n1/user:{TWO}"]


def test_what_was_asked_before_the_restore_decides_nothing() -> None:
    life = ready()
    life.take(QuarantineNode(node_id="n1", reason="odd"), "operator:o")
    life.take(ReturnNode(node_id="n1", reason="go"), "operator:o")
    old: StepRow = life.reconcile()
    restored(life)
    life.end(old, life.inventory(TWO))
    assert life.asked == []
    assert (life.node.state, life.node.cases) == ("quarantined", {})


def test_an_agent_that_has_seen_a_higher_epoch_of_the_node_is_asked_above_it() -> None:
    life = restored()
    epoch = life.node.epoch
    words = f"stale node epoch {epoch}, highest seen {epoch + 2}"
    life.end(life.next("agent.reconcile"), Outcome("failed", "stale_epoch", words))
    assert life.node.epoch == epoch + RESTORED_BY
    assert same_life(life.node.epoch, epoch)
    life.timer("reconcile")
    assert asked(life)["node_epoch"] == life.node.epoch


@pytest.mark.parametrize("highest", [10**18 - 1, 1, 2**41])
def test_an_agent_that_has_seen_what_no_runtime_gave_is_not_followed(highest: int) -> None:
    life = restored()
    epoch = life.node.epoch
    words = f"stale node epoch {epoch}, highest seen {highest}"
    life.end(life.next("agent.reconcile"), Outcome("failed", "stale_epoch", words))
    assert life.node.epoch == epoch


def registered_after() -> Life:
    """A machine that is registered after a restore, heard and probed."""
    life = Life()
    life.facts.restored = FIRST.number
    life.take(RegisterNode(node_id="n1", ssh=SSH))
    assert life.node.epoch == RESTORED_BY + 1  # above what its agent may remember
    life.take(HeartbeatSeen("b1", 1))
    life.end(life.next("ssh.probe"), DONE)
    assert (life.node.state, life.node.quarantine_reasons) == ("quarantined", ["restored"])
    return life


def test_a_machine_that_the_database_has_forgotten_is_looked_at_when_it_is_registered_again() -> None:
    life = registered_after()
    reported(life, TWO)
    assert cases(life) == [f"open restored_unknown node:n1/user:{TWO}"]


def test_a_new_machine_is_ready_once_it_was_looked_at() -> None:
    life = registered_after()
    reported(life)
    life.end(life.next("ssh.probe"), DONE)
    reported(life)
    assert (life.node.state, life.node.restored) == ("ready", FIRST.number)


def test_of_very_many_unknown_names_some_are_cases_and_the_rest_is_counted() -> None:
    life = restored()
    reported(life, *(f"am-{number:026}" for number in range(NAMED_AT_ONCE + 5)))
    opened = [row for row in life.turn.rows if isinstance(row, CaseRow)]
    assert len(opened) == NAMED_AT_ONCE
    assert '"more":5' in opened[0].evidence.replace(" ", "")


def test_retiring_it_closes_its_cases() -> None:
    life = restored()
    reported(life, TWO)
    life.take(RetireNode(node_id="n1", reason="gone", acknowledge_lost=True), "operator:o")
    assert (life.node.state, life.node.cases) == ("retired", {})
