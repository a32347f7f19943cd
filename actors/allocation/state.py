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


class Setup(Struct, frozen=True, omit_defaults=True):
    """The set-up on its node (`r02_setup`). `failing` names the failure code while an inline undo runs."""

    node_epoch: int = 0
    attempt_id: str | None = None
    failing: str = ""


class Rental(Struct, frozen=True, omit_defaults=True):
    """The activation (`r03_activation`). `access`: how the customer gets in, from `active` on.

    `ref`: `<trace id>:<span id>` of the activation, which is what the end of its meter counterbalances.
    """

    tries: int = 0
    activated_us: int | None = None
    ref: str = ""
    access: Access | None = None


class Billing(Struct, frozen=True, omit_defaults=True):
    """The meter, and the policy that it counts by (`billing`).

    `cause` (and `reason`) of its first stop, which chose `rule_id`; by then it had taken and given back so much.
    """

    state: str = "none"
    meter_id: str | None = None
    policy_version: str = ""
    policy_sha256: str = ""
    stopped_us: int | None = None
    cause: str = ""
    reason: str = ""
    rule_id: str = ""
    posted_us: int = 0
    debited: int = 0
    credited: int = 0


class Ending(Struct, frozen=True, omit_defaults=True):
    """How it comes to its end (`release`).

    `leaving`: the cause of a release that came during set-up, or while the allocation was paused, with the `reason` of
    one by force; `cause` that of the release which ended it.
    """

    leaving: str = ""
    reason: str = ""
    accepted_us: int | None = None
    cause: str | None = None
    ended_us: int | None = None
    locked: str = ""  # how the lock-out went, while attachments are waited for: "done", or the code of its failure
    stuck: tuple[str, ...] = ()  # attachments whose mount its node owes


class Cleanup(Struct, frozen=True, omit_defaults=True):
    """What it owes its node, or owed (`r04_cleanup`)."""

    locked: bool = False  # the customer is locked out
    attempts: int = 0
    run: str = ""  # the matrix row whose run carries the cleanup
    operator: str = ""
    superseded: str = ""  # the failed record that an operator's run settles
    debt_id: str | None = None
    debt_since_us: int = 0


class Allocation(ActorState, frozen=True, kw_only=True):
    """One rental: what was asked for, where it is, and a part for each phase, which one module alone changes.

    Times in microseconds; `key_line` is the customer's key, re-encoded. What the database searches by stays on top.
    """

    account_id: str
    rate_uminor_per_hour: int
    key_line: str
    requested_us: int
    node_labels: dict[str, str] = {}
    wanted_node: str | None = None
    external_ref: str | None = None
    node_id: str | None = None
    failure_code: str | None = None
    cleanup_pending: bool = False
    setup: Setup = Setup()
    rental: Rental = Rental()
    billing: Billing = Billing()
    ending: Ending = Ending()
    cleanup: Cleanup = Cleanup()


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
        "node_id": s.node_id, "user": user_of(allocation_id), "allocation": allocation_id,
        "attempt": s.setup.attempt_id, **more,
    }  # fmt: skip


def create_ref(s: Allocation) -> str:
    """The span that may have made the user, "" for none: what compensations compensate."""
    return s.owed[0].of if s.owed else ""


def view_allocation(s: Allocation, identifier: str, d: Any) -> dict[str, Any]:
    """Row of `public_v1.allocation`."""
    return {
        "allocation_id": identifier, "account_id": s.account_id, "node_id": s.node_id, "state": s.state,
        "failure_code": s.failure_code, "release_cause": s.ending.cause, "cleanup_pending": s.cleanup_pending,
        "cleanup_attempts": s.cleanup.attempts, "billing_state": s.billing.state,
        "rate_uminor_per_hour": s.rate_uminor_per_hour, "attempt_id": s.setup.attempt_id,
        "external_ref": s.external_ref, "access": to_builtins(s.rental.access), "requested_us": s.requested_us,
        "activated_us": s.rental.activated_us, "ended_us": s.ending.ended_us, "trace_id": s.trace_id,
        "version": s.version,
    }  # fmt: skip
