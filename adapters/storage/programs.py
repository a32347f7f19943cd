"""The storage host's own programs, run with a time limit. Their exit status is not believed where one can look.

They die with the provider, where `setpriv` is there to see to it: one that went on could give access after its revoke.
"""

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from amends.ports.storage import Trouble

WITHIN_S: Final = 10.0
MAX_OUTPUT_BYTES: Final = 16 * 1024 * 1024
SHOWN: Final = 300
KILLED_S: Final = 0.5
_SETPRIV: Final = shutil.which("setpriv")
_DIES_WITH_US: Final = (_SETPRIV, "--pdeathsig", "KILL", "--") if _SETPRIV else ()


async def run(command: Sequence[str], within_s: float = WITHIN_S, *, changes: bool) -> tuple[int, str]:
    """Exit status and standard output. Raises `Trouble` if it is not there, says too much or does not end.

    `changes`: one that does not end may have done what it was to do, or a part of it.
    """
    if shutil.which(command[0]) is None:
        raise Trouble("program_missing", f"{command[0]} is not there, or may not be run")
    try:
        process = await asyncio.create_subprocess_exec(
            *_DIES_WITH_US, *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, limit=MAX_OUTPUT_BYTES,
        )  # fmt: skip
    except OSError as error:
        raise Trouble("program_failed", f"{command[0]} cannot be started: {error.strerror}") from None
    try:
        async with asyncio.timeout(within_s):
            said, complained = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            status = await process.wait()
    except TimeoutError:
        raise Trouble("program_timeout", f"{command[0]} did not end within {within_s:g} s", partial=changes) from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.wait({asyncio.create_task(process.wait())}, timeout=KILLED_S)  # one in the kernel stays
    return status, said if status == 0 else f"{said} {complained}"[-SHOWN:]


async def _read(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    data = bytearray()
    while chunk := await stream.read(MAX_OUTPUT_BYTES):
        data += chunk
        if len(data) > MAX_OUTPUT_BYTES:
            raise Trouble("program_output", f"more than {MAX_OUTPUT_BYTES} bytes of output")
    return data.decode(errors="replace")
