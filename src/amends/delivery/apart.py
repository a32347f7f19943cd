"""Outbox rows set apart: each could not be published while others could, and holds back its own entity alone (R01).

A row set apart is tried again for ever, after growing waits of its own; what follows it waits in Postgres.
"""

from collections.abc import Iterable

from amends.runtime.breaker import Breaker
from amends.values.backoff import Backoff
from amends.values.records import OutboxRow

MOST = 100  # beyond that the stream itself is in trouble


class _Row:
    __slots__ = ("attempts", "breaker", "due_us", "row")

    def __init__(self, row: OutboxRow, attempts: int, breaker: Breaker) -> None:
        self.row, self.attempts, self.breaker, self.due_us = row, attempts, breaker, 0


class Apart:
    """The rows set apart, by entity. Times in microseconds of the runtime's clock."""

    def __init__(self, waits: Backoff) -> None:
        self._waits = waits
        self._rows: dict[str, _Row] = {}

    def __contains__(self, entity: str) -> bool:
        return entity in self._rows

    def holds(self, row: OutboxRow) -> bool:
        """Whether this very row is still set apart."""
        found = self._rows.get(row.entity)
        return found is not None and found.row.outbox_id == row.outbox_id

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def full(self) -> bool:
        """Whether no more may be set apart."""
        return len(self._rows) >= MOST

    @property
    def entities(self) -> Iterable[str]:
        """Whose rows they are."""
        return self._rows.keys()

    def add(self, row: OutboxRow, attempts: int, now_us: int) -> None:
        """Set a row apart that was tried so often."""
        found = self._rows[row.entity] = _Row(row, attempts, Breaker(row.outbox_id, self._waits, lambda: now_us))
        self._wait(found, now_us)

    def due(self, now_us: int) -> OutboxRow | None:
        """A row whose next try is due."""
        return next((each.row for each in self._rows.values() if each.due_us <= now_us), None)

    @property
    def next_us(self) -> int | None:
        """When the next try is due."""
        return min((each.due_us for each in self._rows.values()), default=None)

    def failed(self, entity: str, now_us: int) -> int:
        """One more try has failed; how many there were."""
        found = self._rows[entity]
        found.attempts += 1
        self._wait(found, now_us)
        return found.attempts

    def attempts(self, entity: str) -> int:
        """How often it was tried."""
        return self._rows[entity].attempts

    def now(self, outbox_id: str) -> None:
        """An operator wants it tried at once."""
        for each in self._rows.values():
            if each.row.outbox_id == outbox_id:
                each.due_us = 0

    def remove(self, outbox_id: str) -> None:
        """It has gone out, or was given up."""
        self._rows = {entity: each for entity, each in self._rows.items() if each.row.outbox_id != outbox_id}

    def _wait(self, found: _Row, now_us: int) -> None:
        found.breaker.failed()
        found.due_us = now_us + int(found.breaker.wait_s * 1e6)
