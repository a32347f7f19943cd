"""The runtime's program with one part that refuses to close: `refusing.py PART HOW run --config FILE`.

HOW: `waits` for ever and takes no cancellation, `blocks` the whole event loop.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

from supervisors import closing
from supervisors.boot import program


def main(part: str, how: str) -> int:
    """Run the program; its own arguments follow."""
    opened = closing.Parts.opened

    async def refuse() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                sys.stderr.write("refused\n")

    async def block() -> None:
        while True:
            signal.pause()  # the whole event loop refuses

    def open_it(parts: closing.Parts, name: str, close: Callable[[], Awaitable[object]]) -> None:
        sys.stderr.write(f"opened {name}\n")
        opened(parts, name, {"waits": refuse, "blocks": block}[how] if name == part else close)

    setattr(closing.Parts, "opened", open_it)  # noqa: B010 - a method is replaced on purpose
    return program.main()


if __name__ == "__main__":
    part, how = sys.argv[1:3]
    del sys.argv[1:3]
    sys.exit(main(part, how))
