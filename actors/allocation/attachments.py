"""The attachments of a rental: they are settled before its release commits, and leave first when its node is lost."""

from actors.between import LeaveNode
from actors.facts import facts
from amends.turn.decision import Decision

SETTLE = "settle"
LOOK_AGAIN_US = 5_000_000


def leave(d: Decision, cause: str, failure_id: str = "", hop: int = 0) -> list[str]:
    """All that are not settled are told; returns them."""
    left = facts(d).attachments_of(d.id)
    for attachment_id in left:
        d.tell("attachment", attachment_id, LeaveNode(cause, failure_id, hop))
    return left


def wait(d: Decision) -> bool:
    """The customer is locked out: tell the attachments, again if it takes long; whether there are any."""
    if not leave(d, "release"):
        return False
    d.timer(SETTLE, d.now_us + LOOK_AGAIN_US)
    return True
