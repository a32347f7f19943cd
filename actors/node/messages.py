"""What a node is told: by callers and operators, and by the detector."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct

from actors.fields import KeyText, Labels, NodeId
from amends.domain.api import Asked, Command, Reason, Request

_CLEAN: Mapping[str, Any] = {"dirty": False, "quarantine_reasons": []}
_REGISTERED = {**_CLEAN, "state": "registered", "boot_id": None, "last_heartbeat_us": None, "version": 1}


def _ops(verb: str, text: str, then: Mapping[str, Any], why: str = "a fan is replaced", **more: Any) -> Command:
    """An operator's command on a node."""
    example = {"reason": why, **more.pop("example", {})}
    return Command(
        subject=f"ops.node.{verb}", help=text, of="node", by="node_id", role="operator", example=example,
        then={**_CLEAN, **then}, **more,
    )  # fmt: skip


class SshAddress(Request, frozen=True):
    """Where a node's SSH server is, and the host key it must show (an OpenSSH public key line)."""

    host: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,252}|[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,15})?)$(?!\n)",
            description="a host name, an IPv4 or an IPv6 address without brackets",
        ),
        Asked("where its SSH server is", "--host", example="10.0.0.11"),
    ]
    port: Annotated[int, Meta(ge=1, le=65535), Asked("its port", "--port", default=22, example=22)]
    host_key: Annotated[
        KeyText, Asked("the host key it must show: a line or @FILE", "--host-key", "line", example="{host_key}")
    ]
    user: Annotated[
        Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_-]{0,31}$(?!\n)")] | None,
        Asked("as whom to log in, if not as [ssh].user", "--user"),
    ] = None


class RegisterNode(Request, frozen=True):
    """cmd.node.register"""

    command: ClassVar[Command] = Command(
        subject="cmd.node.register", help="make a machine known", of="node", by="node_id", trusted=True,
        checks=("host_key",), example={"labels": {"site": "here"}}, then=_REGISTERED,
    )  # fmt: skip
    node_id: NodeId
    ssh: SshAddress
    labels: Annotated[Labels, Asked("a label of the node", "--label")] = {}


class DrainNode(Request, frozen=True):
    """ops.node.drain"""

    command: ClassVar[Command] = _ops("drain", "no new rentals on it", {"state": "draining"})
    node_id: NodeId
    reason: Reason


class UndrainNode(DrainNode, frozen=True):
    """ops.node.undrain"""

    command: ClassVar[Command] = _ops("undrain", "rentals on it again", {"state": "ready"})


class QuarantineNode(DrainNode, frozen=True):
    """ops.node.quarantine"""

    command: ClassVar[Command] = _ops("quarantine", "take it out of service", {"quarantine_reasons": ["operator"]})


class ReturnNode(Request, frozen=True):
    """ops.node.return_to_service"""

    command: ClassVar[Command] = _ops(
        "return_to_service", "out of quarantine, once reconciled", {"quarantine_reasons": ["operator"]},
        example={"acknowledge_dirty": False},
    )  # fmt: skip
    node_id: NodeId
    reason: Reason
    acknowledge_dirty: Annotated[bool, Asked("even though it owes cleanups", "--acknowledge-dirty")] = False


class RetireNode(Request, frozen=True):
    """ops.node.retire"""

    command: ClassVar[Command] = _ops(
        "retire", "out of the fleet for good", {"state": "retired", "dirty": True}, example={"acknowledge_lost": True}
    )
    node_id: NodeId
    reason: Reason
    acknowledge_lost: Annotated[bool, Asked("give up the cleanups it owes", "--acknowledge-lost")] = False


class UpdateNode(Request, frozen=True):
    """ops.node.update"""

    command: ClassVar[Command] = _ops(
        "update", "another address, host key or labels", {"state": "ready", "labels": {"site": "there"}},
        "moved to another rack", checks=("host_key",), example={"labels": {"site": "there"}},
    )  # fmt: skip
    node_id: NodeId
    reason: Reason
    ssh: SshAddress | None = None
    labels: Annotated[Labels | None, Asked("a label; all labels are replaced", "--label")] = None


class HeartbeatSeen(Struct, frozen=True):
    """The detector has heard the node: for the first time, again after silence, or with a new boot id.

    `rival`: a boot id that was heard between two beats with `boot_id`, within `flap_window_ms`; "" if none was.
    `before_us`: the last beat with the boot id that the node had until then; 0 if that is not known.
    """

    boot_id: str
    at_us: int
    rival: str = ""
    before_us: int = 0


class Silent(Struct, frozen=True):
    """Nothing was heard for `suspect_after_ms`; `last_us` is the last receive time."""

    last_us: int


class Verdict(Struct, frozen=True):
    """Nothing was heard for `offline_after_ms`, the detector sees, and no guard holds it: the node is lost (R08)."""

    last_us: int


class Restored(Struct, frozen=True):
    """The database was restored: the number of that restore, and the operator's reason."""

    number: int
    reason: str


class Reprobe(Struct, frozen=True):
    """It is this node's turn to be probed again: it is ready and without a customer."""
