"""What a storage provider keeps over restarts: the highest epoch, and each grant until 30 days after its revoke.

One file for each grant, written beside the old one, flushed and renamed, so a crash leaves the one or the other.
Knows no NATS and no file system that is served.
"""

import fcntl
import os
import threading
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from adapters.nats.durable_file import replace_file
from amends.ports.storage import Access, Mode
from amends.values.canonical import UNREADABLE
from amends.values.errors import BadConfiguration

TOMBSTONE_US: Final = 30 * 86_400 * 1_000_000
LEAP: Final = 2**40  # no epoch is that far above the last one: a restore raises it by 2**32


class Held(Struct, frozen=True):
    """A grant. `address` is what access was given to, empty if it never was; `applied` that it was seen to be there.

    `revoked_us`: when it was taken back; `settled`: the access was seen to be gone, or left to others.
    """

    grant_id: str
    namespace_id: str
    node_id: str
    node_address: str = ""
    address: str = ""
    mode: Mode = "ro"
    applied: bool = False
    revoked_us: int | None = None
    settled: bool = False


class Highest(Struct, frozen=True):
    """The highest epoch of a runtime that was seen."""

    runtime_epoch: int = 0


Kept = TypeVar("Kept", Held, Highest)


class ProviderStore:
    """The memory of one provider below `directory`; open from construction until `close`. Blocks; raises OSError."""

    def __init__(self, directory: Path) -> None:
        self._grants = directory / "grants"
        self._grants.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = directory / "provider.json"
        self._writing = threading.Lock()
        self._lock = os.open(directory / "provider.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._epoch = _read(self._file, Highest).runtime_epoch if self._file.exists() else 0
            self._held: dict[str, Held] = {}
            self._open: dict[Access, dict[str, Held]] = {}  # those that may still give access, by what they give it to
            self._revoked: dict[str, int] = {}  # when, the oldest first
            found = [_read(path, Held) for path in self._grants.glob("*.json")]
            for held in sorted(found, key=lambda held: held.revoked_us or 0):
                self._index(held)
        except BlockingIOError:
            os.close(self._lock)
            raise BadConfiguration(
                f"{directory} is in use by another provider; stop it, or give --state another"
            ) from None
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let another provider have the directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def stale(self, epoch: int) -> str:
        """Why a request of this epoch is refused, with the highest seen; empty if it is not."""
        if epoch - self._epoch > LEAP:
            return f"epoch {epoch} is no runtime's, far above {self._epoch}"
        if epoch < self._epoch:
            return f"stale runtime epoch {epoch}, highest seen {self._epoch}"
        return ""

    def raise_epoch(self, epoch: int) -> None:
        """Remember the highest epoch, before anything is done under it."""
        with self._writing:
            if epoch > self._epoch:
                replace_file(self._file, msgspec.json.encode(Highest(epoch)))
                self._epoch = epoch

    def get(self, grant_id: str) -> Held | None:
        """A grant, revoked or not."""
        return self._held.get(grant_id)

    def put(self, held: Held) -> None:
        """Keep it; only what is on the disk is believed."""
        with self._writing:
            replace_file(self._file_of(held.grant_id), msgspec.json.encode(held))
            self._index(held)

    def accesses(self) -> list[Access]:
        """What the grants that may still be there give access to."""
        return list(self._open)

    def owed(self) -> list[Held]:
        """Grants that were revoked and not yet seen to be gone."""
        return [held for grants in self._open.values() for held in grants.values() if held.revoked_us is not None]

    def of(self, namespace_id: str, address: str) -> list[Held]:
        """Grants of one access that may still be there: not revoked, or not yet seen to be gone."""
        return list(self._open.get((namespace_id, address), {}).values())  # a thread may be writing another one

    def widest(self, namespace_id: str, address: str) -> Mode | None:
        """The widest mode of the access that grants in force give; None: there is none."""
        modes = {held.mode for held in self.of(namespace_id, address) if held.applied and held.revoked_us is None}
        return "rw" if "rw" in modes else "ro" if modes else None

    def forget(self, now_us: int) -> None:
        """Drop tombstones that are older than 30 days and whose access is known to be gone."""
        with self._writing:
            for grant_id, revoked_us in list(self._revoked.items()):
                if revoked_us > now_us - TOMBSTONE_US:
                    break
                if self._held[grant_id].settled:
                    self._file_of(grant_id).unlink()
                    del self._held[grant_id], self._revoked[grant_id]

    def _file_of(self, grant_id: str) -> Path:
        return self._grants / f"{grant_id}.json"

    def _index(self, held: Held) -> None:
        self._held[held.grant_id] = held
        if held.revoked_us is not None:
            self._revoked.setdefault(held.grant_id, held.revoked_us)
        access = held.namespace_id, held.address
        grants = {key: each for key, each in self._open.get(access, {}).items() if key != held.grant_id}
        if not held.settled:
            grants[held.grant_id] = held
        if grants:
            self._open[access] = grants
        else:
            self._open.pop(access, None)


def _read(path: Path, of: type[Kept]) -> Kept:
    try:
        return msgspec.json.decode(path.read_bytes(), type=of)
    except UNREADABLE as error:
        raise BadConfiguration(
            f"{path} cannot be read ({error}); it says what was granted and is not replaced by itself: restore it, "
            "or move it away once nothing of it is exported any more"
        ) from error
