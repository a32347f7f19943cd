"""What is left over on a node, and the run that records its removal: that of its loss, or one of its own (R08)."""

from actors.between import DebtSettled, MountLeft
from actors.node.state import Node
from amends.turn.decision import Decision
from amends.turn.recovery import Run, begin_run, find_run

STEP = "node.verdict"
MOST_MOUNTS = 256


def user_gone(d: Decision, m: DebtSettled) -> None:
    """The user of a rental that ended with the node was removed after the node's return."""
    run = find_run(d, loss_row(d))
    if m.user and run is not None:
        _record(d, run, m.user, m.made_by, m.duration_ms)


def mount_left(d: Decision, m: MountLeft) -> None:
    """A mount of before the loss; the first reconcile after its return takes it away."""
    s: Node = d.state
    if find_run(d, loss_row(d)) is not None and len(s.left_mounts) < MOST_MOUNTS:
        d.set(left_mounts={**s.left_mounts, m.attachment_id: m.made_by})


def mounts_gone(d: Decision, there: list[str]) -> None:
    """An inventory is in: what is not in it any more was taken away."""
    s: Node = d.state
    run = find_run(d, loss_row(d))
    for attachment_id, made_by in s.left_mounts.items():
        target = f"node:{d.id}/mount:{attachment_id}"
        if run is not None and attachment_id not in there and not run.newest(target):
            run.compensate(
                "reverse", "side_effect", "mount", target, "success", of=made_by, cause=run.id, duration_ms=0
            )
    d.set(left_mounts={key: span for key, span in s.left_mounts.items() if key in there})


def removed(d: Decision, user: str, of: str, duration_ms: int, *, expected: bool) -> None:
    """A reconcile has removed a user that nobody expects; after another quarantine than a loss in a run of its own.

    Not `expected`: the node is not on that way back any more, and begins no run that nobody would end.
    """
    run = find_run(d, loss_row(d))
    if run is None and not expected:
        return
    run = run or begin_run(d, loss_row(d), trigger_type="policy", trigger_ref=d.ref)
    _record(d, run, user, of, duration_ms)
    run.degrade()


def settled(d: Decision) -> None:
    """The node is clean, or nobody will ever see it again: nothing is owed any more."""
    run = find_run(d, loss_row(d))
    if run is not None:
        run.end("recovered")


def _record(d: Decision, run: Run, user: str, of: str, duration_ms: int) -> None:
    """Once per user, however often it is found (C1)."""
    target = f"node:{d.id}/user:{user}"
    if not run.newest(target):
        run.compensate(
            "reverse", "side_effect", "user-create", target, "success", of=of, cause=run.id, duration_ms=duration_ms
        )


def loss_row(d: Decision) -> str:
    """The row of the matrix that a node's loss is."""
    return d.context.matrix.row_of(STEP).id
