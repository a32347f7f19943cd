"""A line in the log for every decision that somebody may look for: failures, amends, cases, and what a command did.

Written after the commit. At `info` what has gone wrong or been put right, at `debug` every change of a state.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from amends.turn.decision import Decision
from amends.values.records import CaseRow, CompensationRow, FailureRow, RunEndRow, RunRow

log = logging.getLogger("amends.decisions")
MOST, WINDOW_S = 500, 10.0
TOLD: Final = frozenset((CaseRow, CompensationRow, FailureRow, RunEndRow, RunRow))


class Decisions:
    """A listener of committed turns. Beyond `MOST` lines within `WINDOW_S` they are only counted."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since, self._count = clock(), 0

    def follow(self, decision: Decision) -> None:
        """A turn has committed."""
        if decision.rows and log.isEnabledFor(logging.INFO) and (told := _told(decision.rows)):
            self._write(logging.INFO, decision, told)
        elif log.isEnabledFor(logging.DEBUG) and _moved(decision):
            self._write(logging.DEBUG, decision, [])

    def _write(self, level: int, decision: Decision, told: list[str]) -> None:
        now, left_out = self._clock(), 0
        if now - self._since >= WINDOW_S:
            left_out, self._since, self._count = max(0, self._count - MOST), now, 0
        self._count += 1
        if self._count <= MOST:
            said = f"{decision.ref}{_moved(decision)}{': ' if told else ''}{'; '.join(told)}"
            log.log(level, "%s", said, extra={**_fields(decision), "left_out": left_out})


def _told(rows: Sequence[object]) -> list[str]:
    return [said for row in rows if type(row) in TOLD and (said := _said(row))]


def _fields(decision: Decision) -> dict[str, str]:
    return {
        "entity": decision.ref, "trace_id": decision.trace_id, "recovery_trace_id": decision.recovery_trace_id,
        "request_id": decision.env.request_id,
    }  # fmt: skip


def _moved(decision: Decision) -> str:
    before = decision.before.state if decision.before is not None else ""
    after = decision.state.state if decision.state is not None else ""
    return f" {before or 'new'} → {after}" if before != after else ""


def _said(row: object) -> str:
    """A row of the record in a few words, "" for those that say nothing here."""
    if isinstance(row, FailureRow):
        return f"failed {row.code}"
    if isinstance(row, RunRow):
        return f"recovery {row.matrix_row} begun"
    if isinstance(row, CompensationRow):
        return f"{row.compensation_type} {row.target_ref} {row.outcome}"
    if isinstance(row, RunEndRow):
        return f"recovery {row.final_outcome}"
    if isinstance(row, CaseRow):
        return f"case {row.kind} {row.state}"
    return ""
