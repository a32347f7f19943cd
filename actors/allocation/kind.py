"""The allocation actor: one rental of one node by one account.

Automaton and handlers; its turns stand in files named by row, in `release` and in `billing`. It knows no SSH and no
database.
"""

from typing import Any

from actors.allocation import (
    attachments,
    billing,
    r02_setup,
    r03_activation,
    r04_cleanup,
    r05_debit,
    r08_node_loss,
    r09_force_release,
    release,
)
from actors.allocation.messages import (
    ForceRelease,
    PostWindow,
    PostWindows,
    ReleaseAllocation,
    RequestAllocation,
    RetryCleanup,
)
from actors.allocation.state import Allocation, view_allocation
from actors.allocation.upgrades import in_parts, owes_its_user
from actors.between import AttachmentSettled, CleanupLost, NodeLost, NodeMoved, Offer, Suspicion
from amends.domain.kinds import ActorKind, Legal
from amends.turn.decision import Decision
from amends.turn.messages import StepDone, TimerFired, TurnRefused


def _step_done(s: Allocation, m: StepDone, d: Decision) -> None:
    if m.outcome.code == "ssh_host_key_mismatch" and s.node_id is not None:
        d.tell("node", s.node_id, Suspicion("host_key_mismatch"))
    if s.state == "provisioning" or (s.state == "activating" and s.setup.failing):
        r02_setup.step_done(s, m, d)
    elif s.state == "releasing":
        release.locked_out(s, m, d)
    else:
        r04_cleanup.step_done(s, m, d)


def _timer(s: Allocation, m: TimerFired, d: Decision) -> None:
    TIMERS[m.name](s, d)


TIMERS = {
    "deadline": r02_setup.deadline,
    "activate": r03_activation.activate,
    "leave": r09_force_release.leave,
    attachments.SETTLE: release.again,
}


def _answers_refusal(message: Any) -> bool:
    return isinstance(message, Offer) or (isinstance(message, TimerFired) and message.name == "activate")


def _refused(s: Allocation, m: TurnRefused, d: Decision) -> None:
    if isinstance(m.message, TimerFired):
        r03_activation.refused(s, m, d)
    # A refused offer changes nothing: the allocation still waits, and the pool offers another node.


ALLOCATION = ActorKind(
    name="allocation",
    table="allocations",
    columns={"account_id": str, "node_id": str, "external_ref": str, "failure_code": str, "cleanup_pending": bool},
    state_type=Allocation,
    states={
        "requested": "timer deadline",
        "provisioning": "step ssh.user-create or ssh.key-install",
        "activating": "timer activate",
        "active": "rest",
        "releasing": "step ssh.user-lock",
        "released": "end",
        "failed": "end",
    },
    transitions={
        ("", "requested"): "command accepted",
        ("requested", "provisioning"): "an assignable node was taken",
        ("requested", "failed"): "no node until the deadline, or released",
        ("provisioning", "activating"): "both SSH steps done",
        ("provisioning", "failed"): "SSH step failed (R02), cancelled by a release, or the node is lost",
        ("activating", "active"): "the activation transaction commits",
        ("activating", "failed"): "activation tries exhausted (R03), or the node is lost",
        ("active", "releasing"): "release or force-release accepted",
        ("active", "failed"): "the node is lost (R08)",
        ("releasing", "released"): "the customer is locked out and the release commits",
    },
    handlers={
        RequestAllocation: r02_setup.request,
        Offer: r02_setup.offer,
        NodeMoved: r03_activation.moved,
        ReleaseAllocation: release.release,
        ForceRelease: r09_force_release.force_release,
        NodeLost: r08_node_loss.lost,
        PostWindows: billing.post,
        PostWindow: r05_debit.post_window,
        RetryCleanup: r04_cleanup.retry,
        CleanupLost: r04_cleanup.lost,
        AttachmentSettled: release.settled,
        StepDone: _step_done,
        TimerFired: _timer,
        TurnRefused: _refused,
    },
    creates=frozenset({RequestAllocation}),
    legal={
        Offer: Legal(("requested",)),
        NodeMoved: Legal(("active", "releasing")),
        PostWindows: Legal(("active",)),
    },
    upgrades=(owes_its_user, in_parts),
    view=view_allocation,
    owner=lambda s: s.account_id,
    answers_refusal=_answers_refusal,
    while_paused=frozenset({ReleaseAllocation, ForceRelease}),
)
