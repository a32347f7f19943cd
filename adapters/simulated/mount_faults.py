"""Mounts that break on order: around those of an agent, for the fleet's commands and for tests."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

from adapters.simulated.faults import FaultQueue
from amends.ports.mounts import Mode, Mounted, Mounts

HOLDER: Final = "process 1 (sh): cwd"
SLOW_S: Final = 1.0
KINDS: Final = {
    "mount": ("fail", "hang", "slow"),
    "unmount": ("fail", "busy", "hang", "slow"),
    "probe_mount": ("stale", "hang"),
}


class MountFaults:
    """What goes wrong with a machine's mounts, and outlives its agent. `read_only`: its server lets nobody write."""

    def __init__(self) -> None:
        self._next = FaultQueue()
        self.hanging: dict[str, asyncio.Task[str]] = {}
        self.mended = asyncio.Event()
        self.blocked = 0  # threads that ask a server which says nothing
        self._answers = threading.Event()
        self.read_only = False
        self.mounts: Mounts | None = None

    def reboot(self) -> None:
        """What hung is gone."""
        for hanging in self.hanging.values():
            hanging.cancel()
        self.hanging.clear()
        self._let_go()

    def inject(self, op: str, kind: str, times: int = 1) -> None:
        """Let the next ones of that op go wrong; a hang lasts until `mend`, and what hung is done then.

        Raises ValueError for what is unknown.
        """
        if kind not in KINDS.get(op, ()):
            raise ValueError(f"faults of {op} are {', '.join(KINDS.get(op, ('none',)))}")
        self._next.add(op, kind, times)

    def mend(self) -> None:
        """Nothing goes wrong any more; what hung goes on."""
        self._next.clear()
        self.read_only = False
        self.mended.set()
        self.mended = asyncio.Event()
        self._let_go()

    def block(self) -> None:
        """Hold this thread as a server that says nothing does, until `mend` or `reboot`."""
        answers = self._answers
        self.blocked += 1
        answers.wait()
        self.blocked -= 1

    def _let_go(self) -> None:
        self._answers.set()
        self._answers = threading.Event()

    def take(self, op: str) -> str:
        """The fault of this one, "" for none."""
        return self._next.take(op)


class BrokenMounts:
    """Implements `amends.ports.mounts.Mounts` by others, with faults."""

    def __init__(self, mounts: Mounts, faults: MountFaults) -> None:
        self._mounts, self._faults = mounts, faults
        faults.mounts = mounts

    def where(self, mount_path: str) -> str:
        """As it is."""
        return self._mounts.where(mount_path)

    def name_of(self, source: dict[str, Any]) -> str:
        """As it is."""
        return self._mounts.name_of(source)

    def prepare(self, path: str) -> bool:
        """As it is."""
        return self._mounts.prepare(path)

    def clear(self, path: str) -> None:
        """As it is."""
        self._mounts.clear(path)

    def table(self) -> list[Mounted]:
        """As it is, or all of it read-only."""
        lines = self._mounts.table()
        return [Mounted(line.path, line.names, "ro") for line in lines] if self._faults.read_only else lines

    def foreign(self, own: set[str]) -> list[str]:
        """As it is."""
        return self._mounts.foreign(own)

    def look(self, path: str) -> None:
        """As it is, or as a server that is gone: it knows nothing of the mount, or says nothing at all."""
        kind = self._faults.take("probe_mount")
        if kind == "hang":
            self._faults.block()
        if kind == "stale":
            raise OSError(116, "Stale file handle")
        self._mounts.look(path)

    def holders(self, path: str, found: list[str]) -> None:
        """Somebody."""
        found.append(HOLDER)

    def pending(self, key: str) -> bool:
        """Whether what hung has not ended."""
        hanging = self._faults.hanging.get(key)
        return hanging is not None and not hanging.done()

    async def mount(self, key: str, source: dict[str, Any], path: str, mode: Mode, within_s: float) -> str:
        """As it is, or broken."""
        kind = self._faults.take("mount")
        if kind == "hang":
            return await self._hang(key, within_s, lambda now: now.mount(key, source, path, mode, within_s))
        if kind == "slow":
            await asyncio.sleep(SLOW_S)
        return "fault injected" if kind == "fail" else await self._mounts.mount(key, source, path, mode, within_s)

    async def unmount(self, key: str, path: str, within_s: float) -> str:
        """As it is, or broken."""
        kind = self._faults.take("unmount")
        if kind == "hang":
            return await self._hang(key, within_s, lambda now: now.unmount(key, path, within_s))
        if kind == "slow":
            await asyncio.sleep(SLOW_S)
        if kind in ("fail", "busy"):
            return "target is busy" if kind == "busy" else "fault injected"
        return await self._mounts.unmount(key, path, within_s)

    async def _hang(self, key: str, within_s: float, later: Callable[[Mounts], Awaitable[str]]) -> str:
        """Hang as in the kernel: it is done once that is over, whoever waits."""

        async def go_on(mended: asyncio.Event) -> str:
            await mended.wait()
            assert self._faults.mounts is not None
            return await later(self._faults.mounts)  # those of the agent that runs now

        hanging = self._faults.hanging[key] = asyncio.create_task(go_on(self._faults.mended))
        await asyncio.wait({hanging}, timeout=within_s)
        if not hanging.done():
            raise TimeoutError("it hangs")
        return hanging.result()
