"""Stored bodies of older releases, brought up a version at a time. It speaks of the past: what stands here stays."""

from typing import Any

from actors.allocation.state import user_of

# Part → its fields, by their names in bodies up to version 2, which were flat.
PARTS: dict[str, dict[str, str]] = {
    "setup": {"node_epoch": "node_epoch", "attempt_id": "attempt_id", "failing": "failing"},
    "rental": {"activation_tries": "tries", "activated_us": "activated_us", "access": "access"},
    "billing": {
        "billing_state": "state", "meter_id": "meter_id", "policy_version": "policy_version",
        "policy_sha256": "policy_sha256", "stopped_us": "stopped_us",
    },
    "ending": {
        "leaving": "leaving", "accepted_us": "accepted_us", "release_cause": "cause", "ended_us": "ended_us",
    },
    "cleanup": {
        "locked": "locked", "cleanup_attempts": "attempts", "cleanup_run": "run", "cleanup_operator": "operator",
        "cleanup_superseded": "superseded", "debt_id": "debt_id", "debt_since_us": "debt_since_us",
    },
}  # fmt: skip


def owes_its_user(body: dict[str, Any], allocation_id: str) -> dict[str, Any]:
    """Of version 1: `user_may_exist` and `create_ref` become the undo that is owed."""
    exists, ref = body.pop("user_may_exist", False), body.pop("create_ref", "")
    if exists or body["state"] == "provisioning":
        args = {
            "node_id": body.get("node_id"), "user": user_of(allocation_id), "allocation": allocation_id,
            "attempt": body.get("attempt_id"),
        }  # fmt: skip
        body["owed"] = [{
            "step": "ssh.user-remove", "target": f"node:{body.get('node_id')}", "args": args, "what": "ssh.user-create",
            "of": ref or f"{body['trace_id']}:{body['span_id']}",
        }]  # fmt: skip
    return body


def in_parts(body: dict[str, Any], allocation_id: str) -> dict[str, Any]:
    """Of version 2: the flat fields of each phase become its part."""
    for part, fields in PARTS.items():
        moved = {name: body.pop(old) for old, name in fields.items() if old in body}
        if moved:
            body[part] = moved
    return body
