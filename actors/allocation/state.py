"""The allocation's state, its references, and the shapes others see of it."""

import base64
import hashlib
from typing import Any

from msgspec import Struct, to_builtins

from amends.domain.kinds import ActorState
from amends.values import ids


class Access(Struct, frozen=True):
    """How the customer logs in: user, address, and what the machine must show (OpenSSH line, and its hash)."""

    user: str
    host: str
    port: int
    host_key: str
    fingerprint: str


class Allocation(ActorState, frozen=True, kw_only=True):
    """One rental. Times in microseconds; `key_line` is the customer's key, re-encoded.

    `failing` names the failure code while an inline undo runs; `leaving` the cause of a release that came during
    set-up, or while the allocation was paused; `access` how the customer gets in, from `active` on.
    """

    account_id: str
    rate_uminor_per_hour: int
    key_line: str
    requested_us: int
    node_labels: dict[str, str] = {}
    wanted_node: str | None = None
    external_ref: str | None = None
    node_id: str | None = None
    node_epoch: int = 0
    attempt_id: str | None = None
    failing: str = ""
    leaving: str = ""
    accepted_us: int | None = None
    activation_tries: int = 0
    activated_us: int | None = None
    access: Access | None = None
    ended_us: int | None = None
    failure_code: str | None = None
    release_cause: str | None = None
    billing_state: str = "none"
    meter_id: str | None = None
    policy_version: str = ""
    policy_sha256: str = ""
    stopped_us: int | None = None
    locked: bool = False
    cleanup_pending: bool = False
    cleanup_attempts: int = 0
    cleanup_run: str = ""  # the matrix row whose run carries the cleanup
    cleanup_operator: str = ""
    cleanup_superseded: str = ""  # the failed record that an operator's run settles
    debt_id: str | None = None
    debt_since_us: int = 0


def access_to(allocation_id: str, host: str, port: int, host_key: str) -> Access:
    """The access of an allocation to a machine; the fingerprint is as `ssh` prints it."""
    digest = hashlib.sha256(base64.b64decode(host_key.split(" ")[1])).digest()
    fingerprint = "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
    return Access(user_of(allocation_id), host, port, host_key, fingerprint)


def user_of(allocation_id: str) -> str:
    """The Unix user of an allocation (api.md 8)."""
    return f"am-{ids.suffix(allocation_id)}"


def user_ref(s: Allocation, allocation_id: str) -> str:
    """target_ref of the user on its node."""
    return f"node:{s.node_id}/user:{user_of(allocation_id)}"


def ssh_args(s: Allocation, allocation_id: str, **more: Any) -> dict[str, Any]:
    """What an SSH step needs; the address is looked up when it runs, since a node may move."""
    return {
        "node_id": s.node_id, "user": user_of(allocation_id), "allocation": allocation_id, "attempt": s.attempt_id,
        **more,
    }  # fmt: skip


def create_ref(s: Allocation) -> str:
    """The span that may have made the user, "" for none: what compensations compensate."""
    return s.owed[0].of if s.owed else ""


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


def view_allocation(s: Allocation, identifier: str, d: Any) -> dict[str, Any]:
    """Row of `public_v1.allocation`."""
    return {
        "allocation_id": identifier, "account_id": s.account_id, "node_id": s.node_id, "state": s.state,
        "failure_code": s.failure_code, "release_cause": s.release_cause, "cleanup_pending": s.cleanup_pending,
        "cleanup_attempts": s.cleanup_attempts, "billing_state": s.billing_state,
        "rate_uminor_per_hour": s.rate_uminor_per_hour, "attempt_id": s.attempt_id, "external_ref": s.external_ref,
        "access": to_builtins(s.access), "requested_us": s.requested_us, "activated_us": s.activated_us,
        "ended_us": s.ended_us, "trace_id": s.trace_id, "version": s.version,
    }  # fmt: skip
