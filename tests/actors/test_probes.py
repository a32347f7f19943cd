"""Probes of nodes in service: what they take out, what they forgive, and whom they leave alone."""

import msgspec
import pytest

from actors.node.messages import (
    HeartbeatSeen,
    Reprobe,
    ReturnNode,
    Silent,
    UpdateNode,
)
from amends.ports.steps import Outcome
from amends.turn.messages import TimerFired
from amends.values.records import CaseRow
from tests.actors.node_life import DONE, OTHER_KEY, SSH, Life, move

REFUSED = Outcome("failed", "ssh_auth_failed", "Permission denied", may_have_run=False)


def fail_probes(life: Life, count: int) -> None:
    """The probe under way fails, and those that follow it at its timer."""
    for number in range(count):
        life.end(life.next("ssh.probe"), REFUSED)
        if number < count - 1:
            life.take(TimerFired("probe"))


def test_a_ready_node_that_fails_its_probes_is_taken_out_and_says_why(life: Life) -> None:
    life.take(Reprobe())
    fail_probes(life, 2)
    assert (life.node.state, list(life.node.timers)) == ("ready", ["probe"])
    life.take(Reprobe())
    assert life.asked == []  # it is tried at its own pace now
    life.take(TimerFired("probe"))
    fail_probes(life, 1)
    assert (life.node.state, life.node.quarantine_reasons) == ("quarantined", ["setup_failing"])
    (case,) = [row for row in life.turn.rows if isinstance(row, CaseRow)]
    said = {"probes": 3, "code": "ssh_auth_failed", "message": "Permission denied"}
    assert msgspec.json.decode(case.evidence) == said | {"host": "127.0.0.1", "port": 22}


def test_a_good_probe_between_them_forgives_the_failed_ones(life: Life) -> None:
    for _ in range(3):
        life.take(Reprobe())
        fail_probes(life, 2)
        life.take(TimerFired("probe"))
        life.end(life.next("ssh.probe"), DONE)
        assert (life.node.state, life.node.probes.tries) == ("ready", 0)


def test_no_node_is_taken_out_for_an_outage_of_our_own(life: Life) -> None:
    # given that nothing works over SSH on any other node either
    life.facts.ssh_works = False
    life.take(Reprobe())
    fail_probes(life, 5)
    assert (life.node.state, list(life.node.timers)) == ("ready", ["probe"])
    # when something has worked elsewhere since, then it is this node's own trouble
    life.facts.ssh_works = True
    life.take(TimerFired("probe"))
    fail_probes(life, 1)
    assert life.node.quarantine_reasons == ["setup_failing"]


def test_a_customers_node_is_not_probed_and_owes_no_probe_once_it_is_taken(life: Life) -> None:
    life.take(Reprobe())
    fail_probes(life, 1)
    life.facts.assignment = ("alloc_1", "reserved")
    life.take(TimerFired("probe"))
    assert (life.asked, life.node.probes.tries, life.node.state) == ([], 0, "ready")
    life.take(Reprobe())
    assert life.asked == []


def test_a_silent_node_is_judged_by_its_silence_and_not_by_its_probes(life: Life) -> None:
    life.take(Reprobe())
    step = life.next("ssh.probe")
    life.take(Silent(2))
    life.end(step, REFUSED)
    assert (life.node.state, life.node.probes.tries, life.node.silence.failed) == ("suspect", 0, 1)
    assert set(life.node.timers) == {"probe", "agent_silent"}


@pytest.mark.parametrize("assignment", [None, ("alloc_1", "active")])
def test_a_readdressed_node_is_unproven_until_a_probe_goes_well_and_out_if_none_does(
    life: Life, assignment: tuple[str, str] | None
) -> None:
    life.facts.assignment, life.facts.ssh_works = assignment, False
    move(life)
    assert life.node.probes.unproven
    fail_probes(life, 3)
    assert (life.node.state, life.node.quarantine_reasons) == ("quarantined", ["setup_failing"])
    life.take(ReturnNode(node_id="n1", reason="the firewall is open"), "operator:o")
    life.end(life.reconcile(), life.inventory())
    assert (life.node.state, life.node.probes.unproven, life.node.cases) == ("ready", False, {})


def test_a_readdressed_node_that_is_silent_is_probed_when_it_is_heard(life: Life) -> None:
    life.take(Silent(2))
    life.end(move(life), REFUSED)
    assert (life.node.state, life.node.probes.unproven) == ("suspect", True)
    life.take(HeartbeatSeen("b1", 9))
    assert life.node.state == "ready"
    life.end(life.next("ssh.probe"), DONE)
    assert not life.node.probes.unproven


@pytest.mark.parametrize(("outcome", "goes_on"), [(OTHER_KEY, False), (REFUSED, True)])
def test_a_node_that_cannot_be_entered_is_not_returned_and_its_case_says_why(
    life: Life, outcome: Outcome, *, goes_on: bool
) -> None:
    # given a node out for a wrong host key
    life.end(move(life), OTHER_KEY)
    # when an operator lets it back though nothing has changed
    life.take(ReturnNode(node_id="n1", reason="try"), "operator:o")
    life.end(life.next("ssh.probe"), outcome)
    # then it stays, its case open; a refused login is tried again by itself, a wrong key is not
    assert (life.node.state, list(life.node.cases)) == ("quarantined", ["host_key_mismatch"])
    assert ("reconcile" in life.node.timers) == goes_on
    if goes_on:
        (case,) = [row for row in life.turn.rows if isinstance(row, CaseRow)]
        assert (case.state, msgspec.json.decode(case.evidence)["probe"]) == ("open", "ssh_auth_failed")
    # and with the right key it is back
    life.take(UpdateNode(node_id="n1", ssh=SSH, reason="its new key"), "operator:o")
    life.end(life.next("ssh.probe"), DONE)
    if not goes_on:
        life.take(ReturnNode(node_id="n1", reason="now"), "operator:o")
        life.end(life.next("ssh.probe"), DONE)
    life.end(life.next("agent.reconcile"), life.inventory())
    assert (life.node.state, life.node.cases) == ("ready", {})


def test_the_customer_of_a_node_that_moves_hears_of_it(life: Life) -> None:
    life.facts.assignment = ("alloc_1", "active")
    move(life)
    assert [(sent.kind, sent.id, type(sent.message).__name__) for sent in life.turn.sent] == [
        ("allocation", "alloc_1", "NodeMoved")
    ]
