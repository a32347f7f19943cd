"""What a node is told: by callers and operators, and by the detector."""

from typing import Annotated

from msgspec import Meta, Struct

from actors.fields import KeyText, Labels, Name, Reason, Request


class SshAddress(Request, frozen=True):
    """Where a node's SSH server is, and the host key it must show (an OpenSSH public key line)."""

    host: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,252}|[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,15})?)$(?!\n)",
            description="a host name, an IPv4 or an IPv6 address without brackets",
        ),
    ]
    port: Annotated[int, Meta(ge=1, le=65535)]
    host_key: KeyText
    user: Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_-]{0,31}$(?!\n)")] | None = None


class RegisterNode(Request, frozen=True):
    """cmd.node.register"""

    node_id: Name
    ssh: SshAddress
    labels: Labels = {}


class DrainNode(Request, frozen=True):
    """ops.node.drain"""

    node_id: Name
    reason: Reason


class UndrainNode(DrainNode, frozen=True):
    """ops.node.undrain"""


class QuarantineNode(DrainNode, frozen=True):
    """ops.node.quarantine"""


class ReturnNode(Request, frozen=True):
    """ops.node.return_to_service"""

    node_id: Name
    reason: Reason
    acknowledge_dirty: bool = False


class RetireNode(Request, frozen=True):
    """ops.node.retire"""

    node_id: Name
    reason: Reason
    acknowledge_lost: bool = False


class UpdateNode(Request, frozen=True):
    """ops.node.update"""

    node_id: Name
    reason: Reason
    ssh: SshAddress | None = None
    labels: Labels | None = None


class HeartbeatSeen(Struct, frozen=True):
    """The detector has heard the node: for the first time, again after silence, or with a new boot id.

    `rival`: a boot id that was heard between two beats with `boot_id`, within `flap_window_ms`; "" if none was.
    """

    boot_id: str
    at_us: int
    rival: str = ""


class Silent(Struct, frozen=True):
    """Nothing was heard for `suspect_after_ms`; `last_us` is the last receive time."""

    last_us: int


class Reprobe(Struct, frozen=True):
    """It is this node's turn to be probed again: it is ready and without a customer."""
