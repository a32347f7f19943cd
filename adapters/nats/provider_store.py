"""What a storage provider keeps over restarts: the highest epoch, and each grant until 30 days after its revoke.

One file for each grant, written beside the old one, flushed and renamed, so a crash leaves the one or the other.
Knows no NATS and no file system that is served.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from adapters.nats.durable_file import replace_file
from amends.ports.storage import Mode
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
            found = (_read(path, Held) for path in self._grants.glob("*.json"))
            # The oldest tombstone first; what is not revoked has no place in that order.
            self._held = {held.grant_id: held for held in sorted(found, key=lambda held: held.revoked_us or 0)}
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

    def all(self) -> list[Held]:
        """Every grant that is kept."""
        return list(self._held.values())

    def put(self, held: Held) -> None:
        """Keep it; only what is on the disk is believed."""
        with self._writing:
            replace_file(self._grants / f"{held.grant_id}.json", msgspec.json.encode(held))
            if held.revoked_us is not None:
                self._held.pop(held.grant_id, None)  # to the end: tombstones stand in the order of their time
            self._held[held.grant_id] = held

    def of(self, namespace_id: str, address: str) -> Iterator[Held]:
        """Grants of one access that may still be there: not revoked, or not yet seen to be gone."""
        for held in self.all():  # a copy: a thread may be writing another one
            if (held.namespace_id, held.address) == (namespace_id, address) and not held.settled:
                yield held

    def widest(self, namespace_id: str, address: str) -> Mode | None:
        """The widest mode of the access that grants in force give; None: there is none."""
        modes = {held.mode for held in self.of(namespace_id, address) if held.applied and held.revoked_us is None}
        return "rw" if "rw" in modes else "ro" if modes else None

    def forget(self, now_us: int) -> None:
        """Drop tombstones that are older than 30 days and whose access is known to be gone."""
        with self._writing:
            for held in self.all():
                if held.revoked_us is None:
                    continue
                if held.revoked_us > now_us - TOMBSTONE_US:
                    break
                if held.settled:
                    (self._grants / f"{held.grant_id}.json").unlink()
                    del self._held[held.grant_id]


def _read(path: Path, of: type[Kept]) -> Kept:
    try:
        return msgspec.json.decode(path.read_bytes(), type=of)
    except msgspec.DecodeError as error:
        raise BadConfiguration(
            f"{path} cannot be read ({error}); it says what was granted and is not replaced by itself: restore it, "
            "or move it away once nothing of it is exported any more"
        ) from error
