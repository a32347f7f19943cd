"""Set-up of an allocation: request, reservation, user and key over SSH, and the undo of what failed (R02)."""

from typing import Any

from actors.allocation.messages import RequestAllocation
from actors.allocation.r04_cleanup import begin_cleanup
from actors.allocation.release import fail
from actors.allocation.state import Allocation, create_ref, ssh_args, user_ref
from actors.between import Offer, SetupFailed, SetupWorked
from actors.facts import facts
from actors.tables import AssignmentRow
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.turn.recovery import Run, begin_run, failed_step

# A failed connection, login or host key check means that the user cannot exist (R02).
STEP_CODES = frozenset(
    ("ssh_connect_failed", "ssh_auth_failed", "ssh_host_key_mismatch", "ssh_timeout", "ssh_step_failed")
)


def request(s: Allocation | None, m: RequestAllocation, d: Decision) -> None:
    """A request for an allocation is always accepted; without a node it fails at its deadline."""
    if m.rate_uminor_per_hour is None:
        d.refuse("invalid_request", "the request has no rate_uminor_per_hour", field="rate_uminor_per_hour")
    account = facts(d).account(m.account_id)
    if account is None:
        d.refuse("not_found", f"there is no account {m.account_id!r}", field="account_id")
    if account.currency != facts(d).policy.currency:
        d.refuse(
            "invalid_request", f"the account is kept in {account.currency}, the policy in {facts(d).policy.currency}",
            field="account_id",
        )  # fmt: skip
    if m.node_id is not None and facts(d).node(m.node_id) is None:
        d.refuse("not_found", f"there is no node {m.node_id!r}", field="node_id")
    d.create(
        Allocation(
            state="requested",
            account_id=m.account_id,
            rate_uminor_per_hour=m.rate_uminor_per_hour,
            key_line=m.ssh_public_key,
            requested_us=d.now_us,
            trace_id=d.trace_id,
            span_id=d.span_id,
            node_labels=m.node_labels,
            wanted_node=m.node_id,
            external_ref=m.external_ref,
        )
    )
    d.timer("deadline", d.now_us + d.limits.us("allocation_deadline_ms"))


def offer(s: Allocation, m: Offer, d: Decision) -> None:
    """Take an assignable node: the assignment is written here, unique per node (A1)."""
    d.require("node", m.node_id, ("ready",), m.node_epoch)
    d.cancel("deadline")
    d.part("setup", node_epoch=m.node_epoch, attempt_id=d.mint("task"))
    d.to("provisioning", node_id=m.node_id)
    d.row(AssignmentRow(d.id, m.node_id, "reserved", d.now_us, None))
    _ssh(d, "ssh.user-create")


def deadline(s: Allocation, d: Decision) -> None:
    """Nothing assignable until the deadline."""
    if s.state == "requested":
        fail(s, d, "no_capacity")


def step_done(s: Allocation, m: StepDone, d: Decision) -> None:
    """A set-up step or its inline undo has ended."""
    if s.setup.failing:
        _undone(s, m, d)
        return
    if not m.ok:
        code = m.outcome.code if m.outcome.code in STEP_CODES else "ssh_step_failed"
        undo(d, failed_step(d, m), code)
    elif s.ending.leaving:
        undo(d, begin_undo(d, d.ref), "cancelled")
    elif m.name == "ssh.user-create":
        _ssh(d, "ssh.key-install", key=s.key_line)
    else:
        d.to("activating")
        _worked(s, d)
        d.timer("activate", d.now_us)


def _worked(s: Allocation, d: Decision) -> None:
    node = facts(d).node(s.node_id) if s.node_id is not None else None
    if node is not None and node.setup_fails:
        d.tell("node", s.node_id or "", SetupWorked())


def begin_undo(d: Decision, trigger_ref: str = "") -> Run:
    """The run of this row, begun for another reason than a failed step: a release, a node that is lost."""
    s: Allocation = d.state
    row = d.context.matrix.row_of("ssh.user-create").id
    return begin_run(d, row, trigger_type="policy", trigger_ref=trigger_ref, original=(s.trace_id, s.span_id))


def undo(d: Decision, run: Run, code: str) -> None:
    """Undo what this attempt may have done: the user inline, once, then the reservation."""
    if run.undo(key=f"{d.id}:undo"):
        d.part("setup", failing=code)
    else:
        rolled_back(d, run, code, owed=False)


def _undone(s: Allocation, m: StepDone, d: Decision) -> None:
    if m.name != d.context.steps["ssh.user-create"].undo:
        return  # a set-up step that ended after the undo began; its tombstone has the last word
    run = begin_undo(d)
    if m.ok:
        d.undone(m.name, m.target)
    else:
        failed_step(d, m, run)
    run.compensate(
        "reverse", "side_effect", "user-create", user_ref(s, d.id), "success" if m.ok else "failure",
        of=create_ref(s), cause=s.setup.attempt_id or "", duration_ms=m.duration_ms, action_id=m.args["action_id"],
        metadata={"code": m.outcome.code} if m.outcome.code else {},
    )  # fmt: skip
    rolled_back(d, run, s.setup.failing, owed=not m.ok)


def rolled_back(d: Decision, run: Run, code: str, *, owed: bool) -> None:
    """Clear the reservation and fail; what could not be removed becomes a debt of the node, as in R04."""
    s: Allocation = d.state
    run.compensate(
        "rollback", "state_change", "reservation", f"node:{s.node_id}", "success", of=f"{s.trace_id}:{s.span_id}",
        cause=s.setup.attempt_id or "", metadata={"assignment": d.id},
    )  # fmt: skip
    d.part("setup", failing="")
    fail(s, d, code)
    if code in STEP_CODES and s.node_id is not None:
        d.tell("node", s.node_id, SetupFailed(d.id, code))
    if owed:
        begin_cleanup(d, run.row.id)
        run.degrade()
    else:
        run.end("recovered")


def _ssh(d: Decision, name: str, **args: Any) -> None:
    s: Allocation = d.state
    d.step(
        name, f"node:{s.node_id}", ssh_args(s, d.id, **args), key=f"{s.setup.attempt_id}:{name}", undo=ssh_args(s, d.id)
    )
