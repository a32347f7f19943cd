"""Tasks on mounts: what is done for mount, unmount, probe_mount, and what a reconcile takes away.

A mount is written down before it is made, and only what is written down is ever unmounted. Whether it worked is what
the mount table shows afterwards, not what the command said. While a change hangs in the kernel nobody knows: `mounted`
is null then.
"""

import asyncio
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Final

import msgspec
from msgspec import Struct

from adapters.nats.agent_machine import bounded
from adapters.nats.agent_messages import MAX_HOLDER, MAX_HOLDERS, MountTask, Observed, TaskResult
from adapters.nats.agent_store import AgentStore, Held
from amends.ports.mounts import Mounted, MountRefused, Mounts
from amends.values.mount_path import inside

LOOK_S: Final = 5.0  # what a probe, a path or a scan of processes may take
PENDING_POLL_S: Final = 0.1
IN_DOUBT: Final = Observed()
GONE: Final = Observed(mounted=False)
Left = Callable[[], float]  # seconds until the task's time is over


class Refused(Exception):
    """A task that ends in an error, with what is known of the mount."""

    def __init__(self, code: str, message: str, seen: Observed, holders: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code, self.seen, self.holders = code, seen, list(holders)


class Done(Struct, frozen=True):
    """A task that went well; `noop`: there was nothing to do."""

    seen: Observed
    noop: bool = False


class Mounting:
    """The mounts of one agent: its record in `store`, the machine's in `mounts`.

    Of one attachment one method at a time is called; of several, any.
    """

    def __init__(self, store: AgentStore, mounts: Mounts) -> None:
        self._store, self._mounts = store, mounts
        self._making: dict[str, str] = {}  # paths of mounts that are being made, by attachment

    async def do(self, task_id: str, op: str, task: MountTask, left: Left) -> TaskResult:
        """Do one of `MOUNT_OPS`. Raises OSError where the disk fails."""
        act = {"mount": self._mount, "unmount": self._unmount, "probe_mount": self._probe}[op]
        try:
            done = await act(task, left)
        except Refused as error:
            holders = [each[:MAX_HOLDER].encode(errors="replace").decode() for each in error.holders[:MAX_HOLDERS]]
            return TaskResult(task_id, "error", error.code, str(error), holders, error.seen)
        return TaskResult(task_id, "noop" if done.noop else "ok", "", "", [], done.seen)

    def held(self) -> list[str]:
        """Attachments of the record, mounted or not."""
        return list(self._store.memory.held)

    def own(self, doubtful: Container[str]) -> list[str]:
        """Attachments of the record that are mounted, or may be: in doubt, or a change of them has not ended."""
        table = self._mounts.table()
        return [
            key for key, held in self._store.memory.held.items()
            if _of(table, held) or key in doubtful or self._mounts.pending(key)
        ]  # fmt: skip

    async def foreign(self) -> list[str]:
        """Mounts where attachments could be that the record does not know."""
        own = {held.path for held in self._store.memory.held.values()}
        return await bounded(partial(self._mounts.foreign, own), LOOK_S)

    async def take_away(self, attachment_id: str, left: Left) -> str:
        """Unmount one of the record; why it could not be, if so. Raises OSError where the disk fails."""
        held = self._store.memory.held.get(attachment_id)
        if held is not None:
            await self._undo(attachment_id, held.attempt_id)
            try:
                await self._release(attachment_id, held, left)
            except Refused as error:
                return f"{error.code}: {error}"
        return ""

    # --- mount -----------------------------------------------------------------------------------------------

    async def _mount(self, task: MountTask, left: Left) -> Done:
        key, held = task.attachment_id, self._store.memory.held.get(task.attachment_id)
        if self._store.is_undone(key, task.attempt_id):
            raise Refused("undone", f"attempt {task.attempt_id} was unmounted", self._seen(key))
        await self._settled(key, left)
        wanted = await self._wanted(task)
        if held is not None and _of(self._mounts.table(), held):
            if not _same(held, wanted):
                raise Refused("attempt_taken", f"attempt {held.attempt_id} is mounted at {held.path}", self._seen(key))
            return self._verified(key, wanted, "")
        if held is not None and held.path == wanted.path:
            wanted = msgspec.structs.replace(wanted, made=held.made)  # by a try that was cut off
        self._free(key, wanted)
        self._making[key] = wanted.path
        try:
            return await self._make(task, wanted, left)
        finally:
            del self._making[key]

    async def _make(self, task: MountTask, wanted: Held, left: Left) -> Done:
        key = task.attachment_id
        wanted = await self._begin(key, wanted)
        try:
            said = await self._mounts.mount(key, task.source, wanted.path, task.mode, left())
        except TimeoutError as error:
            raise Refused("timeout", f"the mount has not ended: {error}", IN_DOUBT) from None
        except (MountRefused, OSError) as error:
            said = str(error)
        if not _of(self._mounts.table(), wanted):
            await self._forget(key, wanted)
            code = "timeout" if left() <= 0 else "mount_failed"
            raise Refused(code, said or "the mount table does not show it", GONE)
        return self._verified(key, wanted, said)

    async def _wanted(self, task: MountTask) -> Held:
        """The mount that a task asks for, in the words of the record."""
        try:
            path = await bounded(partial(self._mounts.where, task.mount_path), LOOK_S)
            name = await bounded(partial(self._mounts.name_of, task.source), LOOK_S)
        except MountRefused as error:
            raise Refused(error.code, str(error), self._seen(task.attachment_id)) from None
        except OSError as error:  # a TimeoutError is one
            words = str(error) or "the path or the source does not answer"
            raise Refused("mount_failed", words, self._seen(task.attachment_id)) from None
        return Held(task.attempt_id, path, name, task.mode)

    def _free(self, key: str, wanted: Held) -> None:
        """Refuse a path that is another's, or above or below it. Awaits nothing: of two the second sees the first."""
        table = self._mounts.table()
        used = dict(self._making)
        for other, held in self._store.memory.held.items():
            if other != key and (_of(table, held) or self._mounts.pending(other)):
                used[other] = held.path
        for other, path in used.items():
            if inside(wanted.path, path) or inside(path, wanted.path):
                raise Refused("path_taken", f"{other} is mounted at {path}", GONE)
        if any(line.path == wanted.path for line in table):
            raise Refused("path_taken", "something that is not of this agent is mounted there", GONE)

    async def _begin(self, key: str, wanted: Held) -> Held:
        """Write the mount down and have a directory for it."""
        await asyncio.to_thread(self._store.hold, key, wanted)
        try:
            made = await bounded(partial(self._mounts.prepare, wanted.path), LOOK_S)
        except (MountRefused, OSError) as error:  # a TimeoutError is one
            await asyncio.to_thread(self._store.let_go, key)
            code = error.code if isinstance(error, MountRefused) else "mount_failed"
            raise Refused(code, str(error) or "its directory does not answer", GONE) from None
        if made and not wanted.made:
            wanted = msgspec.structs.replace(wanted, made=True)
            await asyncio.to_thread(self._store.hold, key, wanted)
        return wanted

    def _verified(self, key: str, wanted: Held, said: str) -> Done:
        seen = self._seen(key)
        line = _of(self._mounts.table(), wanted)
        if line is None or line.mode != wanted.mode or not line.safe:
            raise Refused("mount_failed", said or "it is not mounted as it was asked for", seen)
        return Done(seen)

    async def _settled(self, key: str, left: Left) -> None:
        """Wait for a change that was begun earlier, perhaps by an agent before this one."""
        while self._mounts.pending(key):
            if left() <= 0:
                raise Refused("busy", "an earlier change has not ended", IN_DOUBT, ["mount(8) of this attachment"])
            await asyncio.sleep(PENDING_POLL_S)  # a lock of another process: nothing tells of its end

    # --- unmount ---------------------------------------------------------------------------------------------

    async def _unmount(self, task: MountTask, left: Left) -> Done:
        key, held = task.attachment_id, self._store.memory.held.get(task.attachment_id)
        await self._undo(key, task.attempt_id)
        if held is not None and held.attempt_id == task.attempt_id:
            return await self._release(key, held, left)
        if held is None and await self._stands(task):
            raise Refused("not_own", "it is mounted, and this agent's record does not know it", Observed(mounted=True))
        return Done(GONE, noop=True)

    async def _release(self, key: str, held: Held, left: Left) -> Done:
        await self._settled(key, left)
        table = self._mounts.table()
        if not _of(table, held):
            await self._forget(key, held)
            return Done(GONE, noop=True)
        if held.name not in [line for line in table if line.path == held.path][-1].names:
            raise Refused("path_taken", "something that is not of this agent is mounted over it", self._seen(key))
        try:
            said = await self._mounts.unmount(key, held.path, left())
        except TimeoutError as error:
            raise Refused("timeout", f"the unmount has not ended: {error}", IN_DOUBT) from None
        except OSError as error:
            said = str(error)
        if _of(self._mounts.table(), held):
            busy = "busy" in said.lower()
            found = await self._holders(held.path) if busy else []
            raise Refused("busy" if busy else "unmount_failed", said or "it is still mounted", self._seen(key), found)
        await self._forget(key, held)
        return Done(GONE)

    async def _stands(self, task: MountTask) -> bool:
        """Whether what the task names is mounted, whoever did it. Refuses where that cannot be told."""
        try:
            path = await bounded(partial(self._mounts.where, task.mount_path), LOOK_S)
        except MountRefused:
            return False  # no agent mounts anything there
        except OSError as error:  # a TimeoutError is one
            raise Refused("unmount_failed", str(error) or "the path does not answer", IN_DOUBT) from None
        there = [line for line in self._mounts.table() if line.path == path]
        if not there or path in {held.path for held in self._store.memory.held.values()}:
            return False
        try:
            name = await bounded(partial(self._mounts.name_of, task.source), LOOK_S)
        except (MountRefused, OSError) as error:  # something is mounted there, and its source is gone or stale
            raise Refused("unmount_failed", str(error) or "the source does not answer", IN_DOUBT) from None
        return any(name in line.names for line in there)

    async def _holders(self, path: str) -> list[str]:
        found: list[str] = []
        try:
            await bounded(partial(self._mounts.holders, path, found), LOOK_S)
        except OSError as error:  # a TimeoutError is one
            found.append(f"not all could be looked at: {error}")
        return found[:MAX_HOLDERS]

    async def _undo(self, key: str, attempt_id: str) -> None:
        await asyncio.to_thread(self._store.undo, key, attempt_id)

    async def _forget(self, key: str, held: Held) -> None:
        if held.made:
            await bounded(partial(self._mounts.clear, held.path), LOOK_S)
        await asyncio.to_thread(self._store.let_go, key)

    # --- probe -----------------------------------------------------------------------------------------------

    async def _probe(self, task: MountTask, left: Left) -> Done:
        key, held = task.attachment_id, self._store.memory.held.get(task.attachment_id)
        if self._mounts.pending(key):
            raise Refused("missing", "a change of this mount has not ended", IN_DOUBT)
        line = _of(self._mounts.table(), held) if held else None
        if held is None or line is None or held.attempt_id != task.attempt_id:
            raise Refused("missing", "it is not mounted", self._seen(key))
        if line.mode != task.mode:
            code = "ro" if line.mode == "ro" else "missing"
            raise Refused(code, f"it is mounted {line.mode} and not {task.mode}", self._seen(key))
        try:
            await bounded(partial(self._mounts.look, held.path), min(LOOK_S, left()))
        except OSError as error:  # a TimeoutError is one
            raise Refused("stale", f"it does not answer: {str(error) or 'time-out'}", self._seen(key)) from None
        return Done(self._seen(key))

    def _seen(self, key: str) -> Observed:
        """What the table shows of an attachment, whichever attempt made it."""
        held = self._store.memory.held.get(key)
        if self._mounts.pending(key):
            return IN_DOUBT
        line = _of(self._mounts.table(), held) if held else None
        return Observed(line is not None, line.mode if line else "")


def _of(table: Sequence[Mounted], held: Held) -> Mounted | None:
    """The line of a mount of the record."""
    return next((line for line in reversed(table) if line.path == held.path and held.name in line.names), None)


def _same(held: Held, wanted: Held) -> bool:
    return (held.attempt_id, held.path, held.name, held.mode) == (
        wanted.attempt_id, wanted.path, wanted.name, wanted.mode,
    )  # fmt: skip
