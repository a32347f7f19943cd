"""Running meters: through which instant each is posted, and when its next window is. Posting is a low-priority lane.

An index over committed rows, rebuilt at the start. A window is posted in the window that follows, each meter at a place
of its own in it, so that a fleet's do not fall due at once; the allocation's own turn posts it.
"""

import asyncio
import zlib
from typing import Protocol

from msgspec import Struct

from actors.allocation.messages import PostWindows
from actors.money.metering import window_end
from actors.money.policy import Policy
from actors.tables import MeterRow
from amends.runtime.engine import Engine
from amends.runtime.timers import Timers
from amends.turn.decision import Decision
from amends.turn.messages import Envelope
from amends.values.errors import Rejected

QUIET = 64  # turns that may wait for the journal before windows wait for them
PATIENCE = 20  # how often they wait, 50 ms each
AGAIN_US = 1_000_000


class Known(Struct):
    """A running meter."""

    allocation_id: str
    posted_us: int
    window_us: int


class PolicyOf(Protocol):
    """Finds a policy under its hash; KeyError where there is none."""

    def __call__(self, sha256: str) -> Policy:
        """The policy."""
        ...


class Meters:
    """Follows committed turns; `run` posts."""

    def __init__(self, policy_of: PolicyOf) -> None:
        self._policy_of = policy_of
        self._meters: dict[str, Known] = {}
        self._engine: Engine | None = None
        self._timers: Timers | None = None

    def attach(self, engine: Engine) -> None:
        """Follow this engine's committed turns."""
        self._engine = engine
        self._timers = Timers(engine.now_us, self._fire, self._room, engine.monotonic_us)
        engine.listeners.append(self.follow)

    def __len__(self) -> int:
        return len(self._meters)

    def posted_us(self, meter_id: str) -> int | None:
        """Through which instant a running meter is posted."""
        known = self._meters.get(meter_id)
        return known.posted_us if known is not None else None

    def known(self, meter_id: str) -> Known | None:
        """What is known of a running meter."""
        return self._meters.get(meter_id)

    def load_known(self, meter_id: str, known: Known) -> None:
        """Take in what another index knows of a meter; nothing is posted of it here."""
        self._meters[meter_id] = known

    def follow(self, decision: Decision) -> None:
        """A turn has committed."""
        for row in decision.rows:
            if type(row) is MeterRow:
                self.take_in(row)

    def take_in(self, row: MeterRow) -> None:
        """A meter as it stands now."""
        if row.state != "accruing":
            self._meters.pop(row.meter_id, None)
            self._arm(row.meter_id, None)
            return
        window_us = self._policy_of(row.policy_sha256).time.window_us
        self._meters[row.meter_id] = Known(row.allocation_id, row.posted_through_us, window_us)
        end_us = window_end(row.posted_through_us, window_us)
        self._arm(row.meter_id, end_us + zlib.crc32(row.meter_id.encode()) % window_us)

    def _arm(self, meter_id: str, due_us: int | None) -> None:
        assert self._timers is not None
        self._timers.arm("meter", meter_id, due_us)

    async def run(self) -> None:
        """Post until cancelled."""
        assert self._timers is not None
        await self._timers.run()

    async def _room(self) -> None:
        """Whatever else there is goes first, for a while."""
        assert self._engine is not None
        await self._engine.writer.room()
        for _ in range(PATIENCE):
            if self._engine.writer.waiting <= QUIET:
                break
            await asyncio.sleep(0.05)

    def _fire(self, kind: str, meter_id: str) -> None:
        engine, known = self._engine, self._meters.get(meter_id)
        if known is None or engine is None:
            return

        def ended(_: bool) -> None:
            """A turn that posted has armed it anew before; any other is asked again."""
            if self._meters.get(meter_id) is known:
                self._arm(meter_id, engine.now_us() + AGAIN_US)

        try:
            engine.tell("allocation", known.allocation_id, Envelope(PostWindows(), done=ended))
        except Rejected:  # its mailbox is full
            ended(False)
