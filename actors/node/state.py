"""The node's state, the messages it gets, and the shape others see of it."""

from typing import Any

from amends.domain.kinds import ActorState

SELF_HEALING = frozenset(("offline", "cleanup_exhausted"))


class Node(ActorState, frozen=True, kw_only=True):
    """A machine that can be rented. Times in microseconds; `flaps` are the times of suspicion in the window.

    `probing` and `reconciling` name the step whose outcome is waited for; any other answers an older question.
    `unproven`: its address is new, and no probe has gone well there. `reachable`: the probe of this way back has.
    """

    ssh_host: str
    ssh_port: int
    ssh_host_key: str
    registered_us: int
    ssh_user: str | None = None
    labels: dict[str, str] = {}
    boot_id: str | None = None
    epoch: int = 1
    last_heartbeat_us: int | None = None
    before_suspect: str = ""
    flap_count: int = 0
    flaps: list[int] = []
    quarantine_reasons: list[str] = []
    probing: str = ""
    probe_tries: int = 0
    probe_failed_us: int = 0  # when the first of the probes failed that have failed in a row
    unproven: bool = False
    reachable: bool = False
    reconciling: str = ""
    reconcile_tries: int = 0
    dirty_acknowledged: bool = False
    setup_fails: list[str] = []  # allocations in a row that failed in their set-up here
    returning: bool = False  # an operator has released it; it goes back once it is reconciled


def ssh_endpoint(s: Node) -> dict[str, Any]:
    """Where the node's SSH server is, as the SSH adapter takes it."""
    return {"host": s.ssh_host, "port": s.ssh_port, "user": s.ssh_user, "host_key": s.ssh_host_key}


def address(s: Node) -> dict[str, Any]:
    """Where a case's reader finds it, and what its commands name."""
    return {"host": s.ssh_host, "port": s.ssh_port}


def view_node(s: Node, identifier: str, d: Any) -> dict[str, Any]:
    """Row of `public_v1.node`; assignment and debts stand beside the node's own state."""
    held = d.facts.assignment_of(identifier) if d.facts is not None else None
    allocation, state = held or (None, None)
    seen_us = d.facts.last_seen_us(identifier) if d.facts is not None else 0
    return {
        "node_id": identifier, "state": s.state, "labels": s.labels,
        "dirty": d.facts.is_dirty(identifier) if d.facts is not None else False,
        "reserved_by": allocation if state == "reserved" else None,
        "allocated_to": allocation if state == "active" else None,
        "epoch": s.epoch, "boot_id": s.boot_id,
        "last_heartbeat_us": max(s.last_heartbeat_us or 0, seen_us) or None,
        "flap_count": s.flap_count, "quarantine_reasons": s.quarantine_reasons, "version": s.version,
    }  # fmt: skip
