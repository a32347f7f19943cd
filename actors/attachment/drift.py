"""Access that the provider would not give back, as its attachment sees it: an operator has it asked for again.

The namespace keeps the drift and its run; the case is the attachment's, and so is the way out of `detach_failed` where
access was all that it still had.
"""

from actors.attachment import r11_grant, r13_detach
from actors.attachment.state import Attachment
from actors.between import DriftCleared, DriftTried
from actors.facts import facts
from amends.turn.cases import close_case, find_case, open_case
from amends.turn.decision import Decision


def tried(s: Attachment, m: DriftTried, d: Decision) -> None:
    """It is being asked for, or was in vain: the case that this would settle says so."""
    for kind in (r11_grant.CASE, *((r13_detach.CASE,) if _held_by_access(s) else ())):
        if find_case(d, kind):
            open_case(d, kind, state="retrying" if m.retrying else "open", reason=m.reason)


def cleared(s: Attachment, m: DriftCleared, d: Decision) -> None:
    """It is gone after all; an attachment that had nothing else left is detached."""
    close_case(d, r11_grant.CASE, m.reason)
    if _held_by_access(s):
        run = r13_detach.reopened(s, d, "reconciled", m.reason)
        d.to("detaching", cause="reconciled", reason=m.reason)
        r11_grant.leave(d, run)


def owes(s: Attachment, kind: str, d: Decision) -> bool:
    """Whether what a case of that kind is about still stands, beside a debt of the node."""
    if kind == r13_detach.CASE:
        return s.state == "detach_failed"
    namespace = facts(d).namespace(s.namespace_id)
    return kind == r11_grant.CASE and namespace is not None and s.node_id in namespace.drift


def _held_by_access(s: Attachment) -> bool:
    """Given up for its access alone: it is unmounted, or its node is lost and access was the fence."""
    return s.state == "detach_failed" and (s.mount.unmounted or s.leaving.cause in ("node_lost", "acknowledged"))
