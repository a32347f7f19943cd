"""What a node agent keeps over restarts: highest epochs, its own mounts, undone attempts, last results. One file.

Written whole beside the old file, flushed and renamed, so a crash leaves the one or the other. Knows no NATS. Its
methods may be called from several threads at once.
"""

import fcntl
import os
import threading
from pathlib import Path
from typing import Any, Final

import msgspec

from adapters.nats.agent_messages import TaskResult
from adapters.nats.durable_file import replace_file
from amends.ports.mounts import Mode
from amends.values.canonical import UNREADABLE
from amends.values.errors import BadConfiguration

KEPT_RESULTS: Final = 256
KEPT_UNDONE: Final = 2048
LEAP: Final = 2**40  # no epoch is that far above the last one: a restore raises it by 2**32


class StoreUnusable(BadConfiguration):
    """The agent's file cannot be used. The message names it and says what to do."""


class Held(msgspec.Struct, frozen=True):
    """A mount of this agent: written down before it is made. `name` is what the mount table calls its source."""

    attempt_id: str
    path: str
    name: str
    mode: Mode
    made: bool = False  # the directory as well


class Memory(msgspec.Struct):
    """The file's content. `held` by attachment; `undone`: attachment and attempt, the oldest first."""

    node_epoch: int = 0
    runtime_epoch: int = 0
    held: dict[str, Held] = {}
    undone: list[tuple[str, str]] = []
    results: dict[str, TaskResult] = {}


class AgentStore:
    """The memory of one agent below `directory`; open from construction until `close`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = directory / "agent.json"
        self._writing = threading.Lock()
        self._lock = os.open(directory / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.memory = self._read()
        except BlockingIOError:
            os.close(self._lock)
            raise StoreUnusable(f"{directory} is in use by another agent; stop it, or give --state another") from None
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let another agent have the directory, once what is being written is."""
        with self._writing:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def result(self, task_id: str) -> TaskResult | None:
        """The kept result of a task."""
        return self.memory.results.get(task_id)

    def stale(self, node_epoch: int, runtime_epoch: int) -> str:
        """Why epochs as these are refused, with the highest seen; empty if they are not.

        One far above all that was seen is refused as well: remembered, it would shut out every runtime for ever.
        """
        memory = self.memory
        if max(runtime_epoch - memory.runtime_epoch, node_epoch - memory.node_epoch) > LEAP:
            return f"epochs {runtime_epoch} and {node_epoch} are no runtime's, far above {memory.runtime_epoch}"
        if runtime_epoch < memory.runtime_epoch:
            return f"stale runtime epoch {runtime_epoch}, highest seen {memory.runtime_epoch}"
        if node_epoch < memory.node_epoch:
            return f"stale node epoch {node_epoch}, highest seen {memory.node_epoch}"
        return ""

    def raise_epochs(self, node_epoch: int, runtime_epoch: int) -> None:
        """Remember the highest epochs, before anything is done under them. Raises OSError; blocks."""
        with self._writing:
            memory = self.memory
            higher = max(node_epoch, memory.node_epoch), max(runtime_epoch, memory.runtime_epoch)
            if higher != (memory.node_epoch, memory.runtime_epoch):
                self._write(node_epoch=higher[0], runtime_epoch=higher[1])

    def keep(self, result: TaskResult) -> None:
        """Keep a result, forgetting the oldest beyond `KEPT_RESULTS`. Raises OSError; blocks."""
        with self._writing:
            kept = [*self.memory.results.items(), (result.task_id, result)][-KEPT_RESULTS:]
            self._write(results=dict(kept))

    def hold(self, attachment_id: str, held: Held) -> None:
        """Write a mount down before it is made. Raises OSError; blocks."""
        with self._writing:
            self._write(held=self.memory.held | {attachment_id: held})

    def let_go(self, attachment_id: str) -> None:
        """Forget a mount that is no more. Raises OSError; blocks."""
        with self._writing:
            if attachment_id in self.memory.held:
                self._write(held={key: held for key, held in self.memory.held.items() if key != attachment_id})

    def undo(self, attachment_id: str, attempt_id: str) -> None:
        """Remember that an attempt is not to be mounted any more, before it is undone. Raises OSError; blocks."""
        with self._writing:
            if not self.is_undone(attachment_id, attempt_id):
                self._write(undone=[*self.memory.undone, (attachment_id, attempt_id)][-KEPT_UNDONE:])

    def is_undone(self, attachment_id: str, attempt_id: str) -> bool:
        """Whether its mount comes too late."""
        return (attachment_id, attempt_id) in self.memory.undone

    def _read(self) -> Memory:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Memory)
        except FileNotFoundError:
            return Memory()
        except UNREADABLE as error:
            raise StoreUnusable(
                f"{self._file} cannot be read ({error}); it holds the highest epochs seen and is not "
                "replaced by itself: restore it, or move it away if this node was installed anew"
            ) from error

    def _write(self, **changes: Any) -> None:
        if self._lock < 0:
            raise OSError("the agent has been stopped")
        memory = msgspec.structs.replace(self.memory, **changes)
        replace_file(self._file, msgspec.json.encode(memory))
        self.memory = memory  # only what is on disk is believed
