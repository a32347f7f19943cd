"""The node's state, the messages it gets, and the shape others see of it."""

from typing import Any

from msgspec import Struct

from actors.differences import Look
from amends.domain.kinds import ActorState

SELF_HEALING = frozenset(("offline", "cleanup_exhausted"))


class Probes(Struct, frozen=True, omit_defaults=True):
    """The probes of its SSH server (`probes`).

    `step`: the one whose outcome is waited for; any other answers an older question. `tries`: failures in a row, the
    first of them at `failed_us`. `unproven`: its address is new, and no probe has gone well there.
    """

    step: str = ""
    tries: int = 0
    failed_us: int = 0
    unproven: bool = False


class Silence(Struct, frozen=True, omit_defaults=True):
    """That it has fallen silent (`r08_offline`), from its last beat on.

    `failed`: its SSH probes since then that have failed in a row; `confirmed`: an operator's word that it is lost.
    """

    last_us: int = 0
    failed: int = 0
    confirmed: bool = False


class Reboot(Struct, frozen=True, omit_defaults=True):
    """Another boot id was heard under a customer (`r08_offline`): a reboot, unless the old one is heard again soon.

    `before_us`: the last beat with the boot id that the node had until then.
    """

    boot_id: str = ""
    before_us: int = 0


class WayBack(Struct, frozen=True, omit_defaults=True):
    """Its way out of quarantine (`reconcile`).

    `returning`: an operator has released it; it goes back once it is reconciled. `reachable`: the probe of this way
    back has gone well. `step`: the one whose outcome is waited for; any other answers an older question.
    """

    returning: bool = False
    dirty_acknowledged: bool = False
    reachable: bool = False
    step: str = ""
    tries: int = 0


class Node(ActorState, frozen=True, kw_only=True):
    """A machine that can be rented. Times in microseconds; `flaps` are the times of suspicion in the window."""

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
    drained: bool = False  # an operator's drain, while neither its state nor `before_suspect` says so
    flap_count: int = 0
    flaps: list[int] = []
    quarantine_reasons: list[str] = []
    restored: int = 0  # the last restore of the database that it was told of
    left_mounts: dict[str, str] = {}  # attachments that ended with its loss, by the span that mounted them
    setup_fails: list[str] = []  # allocations in a row that failed in their set-up here
    probes: Probes = Probes()
    silence: Silence = Silence()
    reboot: Reboot = Reboot()
    way_back: WayBack = WayBack()
    look: Look = Look()


def is_drained(s: Node) -> bool:
    """Whether an operator's drain stands, whatever has become of the node since."""
    return s.drained or "draining" in (s.state, s.before_suspect)


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
