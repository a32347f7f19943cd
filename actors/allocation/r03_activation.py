"""Activation: the one transaction that makes a rental run and its meter tick, and its refusal (R03)."""

from msgspec import to_builtins

from actors.allocation import billing, r02_setup
from actors.allocation.r04_cleanup import begin_cleanup
from actors.allocation.release import fail
from actors.allocation.state import Allocation, access_to, create_ref, user_ref
from actors.between import NodeMoved
from actors.facts import facts
from actors.tables import AssignmentRow
from amends.turn.decision import Decision
from amends.turn.messages import TurnRefused
from amends.turn.notify import notify
from amends.turn.recovery import begin_run, failure, find_run

STEP = "activation"
NODE_STATES = ("ready", "suspect", "draining")


def activate(s: Allocation, d: Decision) -> None:
    """Try the activation transaction. Its node must still be there, at the epoch of the reservation."""
    if s.state != "activating" or s.setup.failing or s.node_id is None:
        return
    d.require("node", s.node_id, NODE_STATES, s.setup.node_epoch)
    node = facts(d).node(s.node_id)
    if node is None:
        _node_lost(s, d)
        return
    d.as_of_commit()  # a meter starts at the commit that opens it
    access = access_to(d.id, node.ssh_host, node.ssh_port, node.ssh_host_key)
    tries = s.rental.tries + 1
    d.part("rental", activated_us=d.now_us, access=access)
    billing.start(d)
    d.to("active")
    d.row(AssignmentRow(d.id, s.node_id, "active", d.now_us, None))
    d.part("rental", ref=f"{d.trace_id}:{d.did(STEP, tries, True, d.now_us)}")
    run = find_run(d, d.context.matrix.row_of(STEP).id)
    if run is not None:
        run.retry("activation", d.ref, True, attempt=tries)
        run.end("recovered")
    notify(d, "allocation.active", account_id=s.account_id, state="active", access=to_builtins(access))
    if s.ending.leaving:
        d.timer("leave", d.now_us)


def moved(s: Allocation, m: NodeMoved, d: Decision) -> None:
    """The machine of a running rental has another address or key: whoever has the old one hears of the new one.

    Before `active` nobody was told an address, and the activation takes the newest.
    """
    access = access_to(d.id, m.host, m.port, m.host_key)
    if access == s.rental.access:
        return
    d.part("rental", access=access)
    d.audit("allocation.access_changed", details={"fingerprint": access.fingerprint})
    d.event("access_changed", cause="node_update")
    if s.state == "active":
        notify(
            d, "allocation.active", account_id=s.account_id, state="active", cause="node_update",
            access=to_builtins(access),
        )  # fmt: skip


def refused(s: Allocation, m: TurnRefused, d: Decision) -> None:
    """The database refused the activation, or the node is no longer what it was."""
    if s.state != "activating" or s.setup.failing:
        return
    if m.code == "requirement":
        _node_lost(s, d)
        return
    tries = s.rental.tries + 1
    span = d.did(STEP, tries, False, m.started_us or d.now_us, m.code, m.text)
    run = begin_run(d, d.context.matrix.row_of(STEP).id, original=(d.trace_id, span))
    run.caused_by(failure(d, m.code, m.text, component=STEP, span_id=span, run=run, severity="high"))
    run.retry("activation", d.ref, False, attempt=tries, code=m.code)
    d.part("rental", tries=tries)
    if tries < run.tries("activation_tries"):
        d.timer("activate", d.now_us + run.wait_us("activation_backoff_ms", tries))
        return
    run.compensate(
        "compensate", "side_effect", "user-create", user_ref(s, d.id), "success", of=create_ref(s), cause=run.id,
        attempt=0, metadata={"enqueued": "user-remove"},
    )  # fmt: skip
    fail(s, d, "activation_failed")
    begin_cleanup(d, run.row.id)
    run.degrade()


def _node_lost(s: Allocation, d: Decision) -> None:
    r02_setup.undo(d, r02_setup.begin_undo(d, f"node:{s.node_id}"), "node_offline")
