"""A line in the log for every decision that somebody may look for: failures, amends, cases, and what a command did.

Written after the commit. At `info` what has gone wrong or been put right, at `debug` every change of a state.
"""

import logging

from amends.turn.decision import Decision
from amends.values.records import CaseRow, CompensationRow, FailureRow, RunEndRow, RunRow

log = logging.getLogger("amends.decisions")


def follow(decision: Decision) -> None:
    """A turn has committed."""
    told = list(filter(None, map(_said, decision.rows))) if log.isEnabledFor(logging.INFO) else []
    moved = _moved(decision)
    if told:
        log.info("%s%s: %s", decision.ref, moved, "; ".join(told), extra=_fields(decision))
    elif moved and log.isEnabledFor(logging.DEBUG):
        log.debug("%s%s", decision.ref, moved, extra=_fields(decision))


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
