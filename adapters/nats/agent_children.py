"""Commands that the kernel may hold for ever, as children of the agent: one at a time for each attachment.

A child keeps a lock on a file as long as it lives, so also an agent that was started again sees that it has not ended.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

KILLED_WITHIN_S: Final = 1.0
MAX_SAID: Final = 1000
ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


class Children:
    """The children of one agent; their locks lie in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ending: set[asyncio.Task[tuple[bytes, bytes]]] = set()

    def pending(self, key: str) -> bool:
        """Whether one for that key still runs, of this agent or of one before it."""
        if not self._file(key).exists():
            return False
        try:
            with self._lock(key):
                return False
        except BlockingIOError:
            return True

    async def run(self, key: str, argv: Sequence[str], within_s: float) -> str:
        """Run it to its end and return what it said, "" for nothing.

        One that does not end in time is killed. Raises TimeoutError if it lives on, or another one does; OSError.
        """
        try:
            with self._lock(key) as lock:
                child = await asyncio.create_subprocess_exec(
                    *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE, env=ENVIRONMENT, pass_fds=(lock,), start_new_session=True,
                )  # fmt: skip
        except BlockingIOError:
            raise TimeoutError("an earlier one has not ended") from None
        talk = asyncio.create_task(child.communicate())
        self._ending.add(talk)  # it may outlive this call
        talk.add_done_callback(self._ending.discard)
        try:
            await asyncio.wait({talk}, timeout=within_s)
        finally:
            if not talk.done():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
        killed = not talk.done()
        if killed:
            await asyncio.wait({talk}, timeout=KILLED_WITHIN_S)
        if not talk.done() or self.pending(key):
            raise TimeoutError("it has not ended and cannot be killed")
        self._file(key).unlink(missing_ok=True)  # nobody holds it, and nobody else begins one for this key
        said = talk.result()[1].decode(errors="replace")[:MAX_SAID].strip()
        if killed:
            return f"it did not end in time and was killed; {said}"
        return said or (f"it ended with status {child.returncode}" if child.returncode else "")

    @contextlib.contextmanager
    def _lock(self, key: str) -> Iterator[int]:
        descriptor = os.open(self._file(key), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield descriptor
        finally:
            os.close(descriptor)

    def _file(self, key: str) -> Path:
        return self._directory / f"mounting-{hashlib.sha256(key.encode()).hexdigest()[:32]}.lock"
