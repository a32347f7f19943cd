"""Work in slices: whoever goes through much at once gives the loop away every few milliseconds.

The lease is renewed, heartbeats are read and commits go on in between; what is gone through must bear that.
"""

import asyncio
from collections.abc import Callable

SLICE_US = 10_000


class Slices:
    """`await shared()` in the body of a long loop: it returns at once until the slice is used up."""

    def __init__(self, monotonic_us: Callable[[], int]) -> None:
        self._clock = monotonic_us
        self._since = monotonic_us()

    async def shared(self) -> None:
        """Let others have the loop if it was ours for `SLICE_US`."""
        if self._clock() - self._since > SLICE_US:
            await asyncio.sleep(0)
            self._since = self._clock()
