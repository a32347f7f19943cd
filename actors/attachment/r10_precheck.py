"""What is checked before anything is asked of a provider or a node: a table, all of it each time (R10)."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from actors.allocation.state import Allocation
from actors.attachment.state import Attachment
from actors.between import AttachmentSettled
from actors.facts import facts
from actors.namespace.state import Capabilities, Namespace
from actors.node.state import Node
from amends.turn.decision import Decision
from amends.turn.notify import notify
from amends.turn.recovery import begin_run, failure
from amends.values.mount_path import inside

STEP = "storage.precheck"


class Seen(NamedTuple):
    """All that the checks look at; None for what is not there any more."""

    allocation: Allocation | None
    namespace: Namespace | None
    node: Node | None
    can: Capabilities
    own_id: str
    again: bool


def _path_taken(s: Attachment, seen: Seen, d: Decision) -> bool:
    """Another one of the node is at this path, above it or below it; of two that were checked at once the elder may."""
    for other_id, path, state in facts(d).mounts_on(s.node_id or ""):
        later = seen.again and state == "validated" and other_id > seen.own_id
        if other_id != seen.own_id and not later and (inside(s.mount_path, path) or inside(path, s.mount_path)):
            return True
    return False


def _busy(s: Attachment, seen: Seen, d: Decision) -> bool:
    """Another one may write, or another node may: access outlives the writer whose readers share it."""
    others = (other for other in facts(d).writers_of(s.namespace_id) if other != seen.own_id)
    nodes = (node for node in facts(d).writing_nodes(s.namespace_id) if node != s.node_id)
    return any(others) or any(nodes)


def _allowed(path: str, prefixes: tuple[str, ...]) -> bool:
    return not prefixes or any(inside(path, prefix) for prefix in prefixes)


# code → whether it stands against the attachment
CHECKS: Mapping[str, Callable[[Attachment, Seen, Decision], bool]] = {
    "allocation_not_active": lambda s, seen, d: seen.allocation is None or seen.allocation.state != "active",
    "account_mismatch": lambda s, seen, d: seen.namespace is None or seen.namespace.account_id != s.account_id,
    "node_not_ready": lambda s, seen, d: seen.node is None or seen.node.state != "ready",
    "quota_exceeded": lambda s, seen, d: s.mode == "rw" and _over(seen.namespace),
    "quota_blocked": lambda s, seen, d: s.mode == "rw" and seen.namespace is not None and seen.namespace.rw_blocked,
    "grant_not_permitted": lambda s, seen, d: seen.namespace is None or seen.namespace.state != "active",
    "capability_missing": lambda s, seen, d: s.mode not in seen.can.modes,
    "mount_path_not_allowed": lambda s, seen, d: not _allowed(s.mount_path, seen.can.mount_path_prefixes),
    "mount_path_taken": _path_taken,
    "namespace_busy": lambda s, seen, d: s.mode == "rw" and not seen.can.multi_attach and _busy(s, seen, d),
    "blocked_by_drift": lambda s, seen, d: seen.namespace is not None and s.node_id in seen.namespace.drift,
}  # fmt: skip


def _over(namespace: Namespace | None) -> bool:
    """The last read was above the quota, flagged or not."""
    if namespace is None or namespace.flag or namespace.usage.used_bytes is None:
        return False
    return namespace.usage.used_bytes > namespace.quota_bytes


def look(s: Attachment, own_id: str, d: Decision, *, again: bool = False) -> Seen:
    """What there is now, for the attachment of that id."""
    know = facts(d)
    namespace = know.namespace(s.namespace_id)
    can = namespace.capabilities if namespace is not None and namespace.capabilities is not None else Capabilities()
    return Seen(know.allocation(s.allocation_id), namespace, know.node(s.node_id or ""), can, own_id, again)


def too_early(s: Attachment, d: Decision) -> bool:
    """The provider has not answered yet what it can do, for the namespace has only just been created."""
    namespace = facts(d).namespace(s.namespace_id)
    if namespace is None or namespace.state != "active":
        return False
    unheard = namespace.usage.used_bytes is None and namespace.usage.failed == 0
    return unheard and d.now_us < s.requested_us + d.limits.us("provider_timeout_ms")


def failing(s: Attachment, own_id: str, d: Decision, *, again: bool = False) -> list[str]:
    """The codes of all checks that fail now, in the table's order; `again`: within the turn that asks for access."""
    seen = look(s, own_id, d, again=again)
    return [code for code, fails in CHECKS.items() if fails(s, seen, d)]


def require(s: Attachment, d: Decision) -> None:
    """What the checks have found of others must be so when this turn commits."""
    d.require("namespace", s.namespace_id, ("active",))
    d.require("allocation", s.allocation_id, ("active",))
    d.require("node", s.node_id or "", ("ready",), s.node_epoch)


def refuse(s: Attachment, d: Decision, codes: list[str]) -> None:
    """Failed before anything was done: recorded as a decision that was taken back."""
    text = ",".join(codes)
    began_us = d.now_us
    span = d.did(STEP, 1, False, began_us, codes[0], f"not attached: {', '.join(codes)}")
    run = begin_run(d, d.context.matrix.row_of(STEP).id, original=(d.trace_id, span))
    run.caused_by(failure(
        d, codes[0], f"not attached: {', '.join(codes)}", component=STEP, span_id=span, failure_type="policy",
        severity="low", run=run,
    ))  # fmt: skip
    run.compensate(
        "cancel", "decision", "attach", d.ref, "success", of=f"{d.trace_id}:{span}", cause=run.id,
        duration_ms=0, metadata={"reasons": codes},
    )  # fmt: skip
    run.end("recovered")
    end(s, d, text)


def end(s: Attachment, d: Decision, reason: str) -> None:
    """Into `failed`; the customer is told."""
    d.cancel("check", "mount")
    d.set(reason=reason, rw_holder=None)
    d.to("failed", cause=reason)
    notify(
        d, "attachment.failed", account_id=s.account_id, state="failed", cause=reason, failure_code=reason,
    )  # fmt: skip
    d.tell("allocation", s.allocation_id, AttachmentSettled(d.id, "failed"))
