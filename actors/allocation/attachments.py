"""The attachments of a rental: they are settled before its release commits, and leave first when its node is lost."""

from actors.allocation import release
from actors.allocation.state import Allocation
from actors.between import AttachmentSettled, LeaveNode
from actors.facts import facts
from amends.turn.decision import Decision

SETTLE = "settle"
LOOK_AGAIN_US = 5_000_000


def leave(d: Decision, cause: str, failure_id: str = "") -> list[str]:
    """All that are not settled are told; returns them."""
    left = facts(d).attachments_of(d.id)
    for attachment_id in left:
        d.tell("attachment", attachment_id, LeaveNode(cause, failure_id))
    return left


def wait(d: Decision) -> bool:
    """The customer is locked out: tell the attachments, again if it takes long; whether there are any."""
    if not leave(d, "release"):
        return False
    d.timer(SETTLE, d.now_us + LOOK_AGAIN_US)
    return True


def settled(s: Allocation, m: AttachmentSettled, d: Decision) -> None:
    """One has ended, or was given up: then the node owes its mount, and the rental says so."""
    stuck = {*s.ending.stuck} - {m.attachment_id}
    if m.state == "detach_failed":
        stuck.add(m.attachment_id)
    if stuck != {*s.ending.stuck}:
        d.part("ending", stuck=tuple(sorted(stuck)))
        d.set(cleanup_pending=s.owing or bool(stuck))
    _finish(d, {m.attachment_id})


def again(s: Allocation, d: Decision) -> None:
    """The timer: whoever is not settled is told again."""
    if s.state == "releasing" and s.ending.locked and wait(d):
        return
    _finish(d, set())


def _finish(d: Decision, but: set[str]) -> None:
    """`but`: who has just settled, which the index does not know yet."""
    s: Allocation = d.state
    if s.state == "releasing" and s.ending.locked and not {*facts(d).attachments_of(d.id)} - but:
        d.cancel(SETTLE)
        release.finish(d)
