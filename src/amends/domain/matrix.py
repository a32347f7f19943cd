"""The compensation matrix as data: its rows, their version and hash, and the kinds of operator case."""

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

from amends.values.canonical import canonical, sha256


class CaseKind(Struct, frozen=True):
    """A kind of operator case: the commands that may settle it and the page that says how."""

    kind: str
    commands: tuple[str, ...]
    runbook: str  # docs/runbooks/<kind>.md


class MatrixRow(Struct, frozen=True, kw_only=True):
    """One row of the compensation matrix. The first five fields are the seed document's own cells."""

    id: str
    step: str
    failure_point: str
    detection: str
    action: str
    owner: str
    name: str
    entity: str
    covers: tuple[str, ...]
    compensations: tuple[str, ...]
    budget: tuple[str, ...]
    billing: str
    exhaustion: str
    failure_types: tuple[str, ...] = ("error",)
    cases: tuple[str, ...] = ()
    status: Literal["built", "not_built"] = "built"
    owed: tuple[str, ...] = ()  # compensations of what is still owed after the run's own
    exhausts: str = ""  # the case that a spent budget opens
    books: tuple[str, ...] = ()  # tables of money that a turn of an open run of this row may write
    code: str = ""  # the module that is this row


class OpenRow(Struct, frozen=True):
    """An open recovery run, and its row as the matrix had it under which the run began."""

    recovery_id: str
    entity: str
    version: str
    row: dict[str, Any]


def broken_promises(matrix: "Matrix", runs: Iterable[OpenRow]) -> list[str]:
    """What this matrix no longer owes of what open runs began with, a line each: a release may extend a row only."""
    faults = []
    for run in runs:
        name = run.row["id"]
        try:
            row = matrix.row(name)
        except KeyError:
            row = None
        if row is None or row.status != "built":
            faults.append(f"run {run.recovery_id} of {run.entity}: {name} is not built in this release")
            continue
        kept = {"compensations": row.compensations, "owed": row.owed, "cases": row.cases}
        for field, now in kept.items():
            gone = [one for one in run.row.get(field, ()) if one not in now]
            if gone:
                said = ", ".join(gone)
                faults.append(f"run {run.recovery_id} of {run.entity}: {name} has no {field} {said} any more")
    return faults


class Matrix(Struct, frozen=True):
    """All rows under one version; `sha256` is over their canonical JSON, stored whole under that hash."""

    version: str
    rows: tuple[MatrixRow, ...]

    def body(self) -> bytes:
        """The canonical bytes that the hash is over."""
        return canonical({"version": self.version, "rows": self.rows})

    @property
    def sha256(self) -> str:
        """Lower-case hex."""
        return sha256(self.body())

    def row(self, row_id: str) -> MatrixRow:
        """The row of that id; KeyError if there is none."""
        for row in self.rows:
            if row.id == row_id:
                return row
        raise KeyError(row_id)

    def row_of(self, step: str) -> MatrixRow:
        """The built row that covers the step; KeyError if there is none."""
        found = self.row_for(step)
        if found is None:
            raise KeyError(step)
        return found

    def row_for(self, step: str, failure_type: str = "error") -> MatrixRow | None:
        """The built row that covers failures of `step` of that kind, if any."""
        for row in self.rows:
            if step in row.covers and failure_type in row.failure_types and row.status == "built":
                return row
        return None
