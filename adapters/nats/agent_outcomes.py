"""What an agent's result means to the step that asked for it. What goes into rows is printable and bounded."""

from typing import Any, Final

import msgspec

from adapters.nats.agent_messages import MAX_HOLDER, MAX_HOLDERS, MAX_MESSAGE, MAX_NAME, MOUNT_OPS, TaskResult
from amends.ports.steps import Outcome
from amends.values.text import printable

MALFORMED: Final = "agent_malformed"
LISTS: Final = ("reconcile", "inventory")
MOUNTED_AFTER: Final = {"mount": True, "probe_mount": True, "unmount": False}


def outcome(op: str, result: TaskResult, mode: str = "") -> Outcome:
    """How the step ended. A result that contradicts itself is none; `mode`: what was asked to be mounted."""
    data = _seen(result) if op in MOUNT_OPS else {}
    if result.status == "error":
        return Outcome("failed", result.code or "agent_error", printable(result.message or "", MAX_MESSAGE), data=data)
    if op in MOUNT_OPS:
        return _of_mount(op, result, data, mode)
    if result.inventory is None:
        if op in LISTS:
            return Outcome("failed", MALFORMED, "the result says ok and has no inventory")
        return Outcome("done")
    names = {
        kind: [printable(name, MAX_NAME) for name in found]
        for kind, found in msgspec.to_builtins(result.inventory).items()
    }
    return Outcome("done", message=printable(result.message or "", MAX_MESSAGE), data=names)


def late_outcome(result: TaskResult) -> Outcome:
    """What a result says whose task, and with it its op, is forgotten."""
    if result.status == "error":
        return outcome(MOUNT_OPS[0], result)
    return Outcome("done", data=_seen(result) | ({"noop": True} if result.status == "noop" else {}))


def _of_mount(op: str, result: TaskResult, data: dict[str, Any], mode: str) -> Outcome:
    mounted = data["observed"].get("mounted")
    if mounted is not None and mounted is not MOUNTED_AFTER[op]:
        return Outcome("failed", MALFORMED, f"the result says {result.status} and mounted {mounted}", data=data)
    seen = data["observed"].get("mode")
    if op == "probe_mount" and mode and seen in ("ro", "rw") and seen != mode:
        return Outcome("failed", seen, f"it was to be mounted {mode} and is {seen}", data=data)
    done: dict[str, Any] = {"observed": data["observed"]}
    return Outcome("done", data=({"noop": True} if result.status == "noop" else {}) | done)


def _seen(result: TaskResult) -> dict[str, Any]:
    holders = [printable(each, MAX_HOLDER) for each in (result.holders or [])[:MAX_HOLDERS] if isinstance(each, str)]
    return {"observed": msgspec.to_builtins(result.observed) if result.observed else {}, "holders": holders}
