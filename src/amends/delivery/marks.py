"""What became of published events, on its way into the journal.

Marks wait a moment for one another: a commit of their own would stand in the way of an actor's turn. A lost mark only
means one more publish with the same id.
"""

import asyncio
import logging
from collections.abc import Callable

from amends.ports.journal import Turn
from amends.runtime.writer import JournalWriter, Pending
from amends.values.errors import TurnFailed
from amends.values.records import OutboxMarkRow

log = logging.getLogger("amends.relay")
AT_ONCE, EVERY_US = 512, 20_000


class Marks:
    """Those of one relay; `landed` is called when some have been committed."""

    def __init__(
        self, writer: Callable[[], JournalWriter], now_us: Callable[[], int], landed: Callable[[], None]
    ) -> None:
        self._writer, self._now, self._landed = writer, now_us, landed
        self._marks: dict[str, OutboxMarkRow] = {}
        self._marking = self._later = False  # whether marks are on their way; whether a flush is due
        self._flushed_us = now_us()

    @property
    def none(self) -> bool:
        """Whether all that was marked is committed."""
        return not self._marks and not self._marking

    def put(self, mark: OutboxMarkRow) -> None:
        """Have it written with the next ones; a later one of its row takes its place."""
        self._marks[mark.outbox_id] = mark

    def flush(self) -> None:
        """Send off what is there, unless more is worth waiting for."""
        if not self._marks or self._marking:
            return
        now = self._now()
        if len(self._marks) < AT_ONCE and now - self._flushed_us < EVERY_US:
            if not self._later:
                self._later = True
                asyncio.get_running_loop().call_later(EVERY_US / 1e6, self._flush_now)
            return
        self._flushed_us, self._marking = now, True
        turn = Turn()
        turn.rows, self._marks = list(self._marks.values()), {}
        self._writer().submit(Pending(turn, self._marked))

    def _flush_now(self) -> None:
        self._later = False
        self._flushed_us = 0
        self.flush()

    def _marked(self, error: TurnFailed | None) -> None:
        self._marking = False
        self._landed()
        if error is not None:
            log.error("the database refuses what became of published events: %s", error)
