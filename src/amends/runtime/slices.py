"""Work in slices: whoever goes through much at once gives the loop away every few milliseconds.

The lease is renewed, heartbeats are read and commits go on in between; what is gone through must bear that.
"""

import asyncio
import time

SLICE_S = 0.01


class Slices:
    """`await shared()` in the body of a long loop: it returns at once until the slice is used up."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def shared(self) -> None:
        """Let others have the loop if it was ours for `SLICE_S`."""
        if time.monotonic() - self._since > SLICE_S:
            await asyncio.sleep(0)
            self._since = time.monotonic()
