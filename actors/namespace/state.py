"""The state of a namespace, and the shape others see of it."""

from typing import Any

from msgspec import Struct, to_builtins

from actors.differences import Look
from amends.domain.kinds import ActorState


class Capabilities(Struct, frozen=True, omit_defaults=True):
    """What its provider can do, as it said when it was last read."""

    modes: tuple[str, ...] = ()
    multi_attach: bool = False
    mount_path_prefixes: tuple[str, ...] = ()
    enforcement: str = ""


class Usage(Struct, frozen=True, omit_defaults=True):
    """The reads of what it uses: the last one, and how many in a row were above, well below, enforced, or failed."""

    used_bytes: int | None = None
    as_of_us: int = 0
    enforced: bool = True
    over: int = 0
    calm: int = 0
    steady: int = 0
    failed: int = 0


class Drift(Struct, frozen=True, omit_defaults=True):
    """A grant on one node that could not be taken back; `attachments`: who left it.

    `comp_id`: the record of that; the case that a person settles is of one of them: `case_of`.
    """

    grant_id: str
    since_us: int
    comp_id: str = ""
    attachments: tuple[str, ...] = ()
    case_of: str = ""
    case_kind: str = ""
    case_id: str = ""


class Namespace(ActorState, frozen=True, kw_only=True):
    """Whose it is, where, and how much it may hold. `flag`: over, unenforced or unknown; `drift` by node."""

    account_id: str
    provider_id: str
    quota_bytes: int
    created_us: int
    capabilities: Capabilities | None = None
    usage: Usage = Usage()
    flag: str = ""
    drift: dict[str, Drift] = {}
    look: Look = Look()

    @property
    def rw_blocked(self) -> bool:
        """Whether new read-write attachments are refused."""
        return bool(self.flag)


def view_namespace(s: Namespace, identifier: str, d: Any) -> dict[str, Any]:
    """Row of `public_v1.namespace`."""
    return {
        "namespace_id": identifier, "account_id": s.account_id, "provider_id": s.provider_id, "state": s.state,
        "quota_bytes": s.quota_bytes, "used_bytes": s.usage.used_bytes, "rw_blocked": s.rw_blocked,
        "quota_flag": s.flag or None, "drift": {node: to_builtins(each) for node, each in s.drift.items()},
        "version": s.version,
    }  # fmt: skip
