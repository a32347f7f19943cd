"""What runtime and agent say to each other, as types with their bounds (api.md 6). Knows neither side."""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from amends.values.mount_path import MAX_PATH_BYTES

MAX_HEARTBEAT_BYTES: Final = 16 * 1024
MAX_TASK_BYTES: Final = 64 * 1024
MAX_RESULT_BYTES: Final = 512 * 1024
MAX_INVENTORY: Final = 1024  # names of each kind
MAX_EXPECTED: Final = 4096
MAX_NAME: Final = 255
MAX_HOLDERS: Final = 32
MAX_HOLDER: Final = 200
MAX_MESSAGE: Final = 1000
PROTO: Final = 2  # of heartbeats and tasks; 1 is that of agents and runtimes that say none
SPOKEN: Final = (PROTO - 1, PROTO)
MOUNT_OPS: Final = ("mount", "probe_mount", "unmount")

# An agent is believed about its own machine only, and its words go into rows: nothing unprintable, nothing endless.
BootId = Annotated[str, Meta(pattern=r"^[ -~]{1,128}$(?!\n)")]
Code = Annotated[str, Meta(pattern=r"^[a-z0-9_]{0,64}$(?!\n)")]
Name = Annotated[str, Meta(max_length=MAX_NAME)]
Names = Annotated[list[Name], Meta(max_length=MAX_INVENTORY)]
Id = Annotated[str, Meta(pattern=r"^[!-~]{1,128}$(?!\n)")]
Epoch = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Heartbeat(Struct, frozen=True):
    """`hb.<node_id>` (api.md 6). `health` is stored as is and reserved."""

    boot_id: BootId
    seq: int
    sent_us: int
    health: dict[str, Any] | None = None
    version: str | None = None
    proto: int = 1


class Expected(Struct, frozen=True):
    """What the runtime believes to be on the node: attachment ids and user names."""

    mounts: Annotated[list[Name], Meta(max_length=MAX_EXPECTED)] = []
    users: Annotated[list[Name], Meta(max_length=MAX_EXPECTED)] = []


class Task(Struct, frozen=True):
    """`task.<node_id>`; the fields of ops that are not known here are not looked at."""

    task_id: Annotated[str, Meta(min_length=1, max_length=128)]
    op: Annotated[str, Meta(min_length=1, max_length=64)]
    node_epoch: Epoch
    runtime_epoch: Epoch
    expected: Expected | None = None
    report_only: bool = False
    ttl_ms: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    proto: int = 1


class MountTask(Struct, frozen=True):
    """What a task on a mount has besides. `source` is what the grant said."""

    attachment_id: Id
    attempt_id: Id
    mode: Literal["ro", "rw"]
    mount_path: Annotated[str, Meta(min_length=1, max_length=MAX_PATH_BYTES)]
    source: dict[str, Any]
    namespace_id: Annotated[str, Meta(max_length=128)] = ""


class Inventory(Struct, frozen=True):
    """What an agent found on its machine: attachment ids, user names, mounts that are not its own."""

    mounts: Names
    users: Names
    foreign: Names = []


class Observed(Struct, frozen=True, omit_defaults=True):
    """What the mount table shows of the attachment; `mounted` is null while nobody can know."""

    mounted: bool | None = None
    mode: Literal["", "ro", "rw"] = ""


class TaskResult(Struct, frozen=True):
    """`result.<node_id>` (api.md 6)."""

    task_id: str
    status: Literal["ok", "error", "noop"]
    code: Code | None = None
    message: str | None = None
    holders: list[Any] | None = None
    observed: Observed | None = None
    inventory: Inventory | None = None
