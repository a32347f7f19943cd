"""What must hold of plain records, in any world: the simulated one, and rows read from Postgres alike. Pure.

`committed` says what the view `public_v1.invariant_violation` says, by the same names and words; a test holds both to
one another. `rest` has what no view says: a world at rest, hashes, the bus.
"""

from collections.abc import Callable, Iterator
from typing import Final

from supervisors.invariants import entities, money, recoveries, storage
from supervisors.invariants.records import Records, Violation

COMMITTED: Final[tuple[Callable[[Records], Iterator[Violation]], ...]] = (
    entities.assigned, entities.moved, entities.brought_back, entities.owed, entities.metered, entities.audited,
    entities.replayed, entities.told, entities.deferred, storage.written, storage.held, storage.outlived, storage.moved,
    money.billed, money.balanced, recoveries.open_runs, recoveries.ended_runs, recoveries.numbered,
    recoveries.published, recoveries.chained,
)  # fmt: skip


def committed(records: Records) -> list[Violation]:
    """What does not hold of a committed instant; `entities.overdue` beside it needs to know what time it is."""
    return [violation for check in COMMITTED for violation in check(records)]
