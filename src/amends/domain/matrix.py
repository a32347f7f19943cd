"""The compensation matrix as data: its rows, their version and hash, and the kinds of operator case."""

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

from amends.values.canonical import canonical, sha256


class CaseKind(Struct, frozen=True):
    """A kind of operator case: the commands that may settle it and the page that says how.

    `owes` false: whatever its entity owes is no matter of this case.
    """

    kind: str
    commands: tuple[str, ...]
    runbook: str  # docs/runbooks/<kind>.md
    owes: bool = True


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
    """A row under which recovery runs are open, as an earlier matrix had it; None where that is not known any more.

    `named`: the first of its `runs`, each with its entity.
    """

    id: str
    version: str
    runs: int
    named: tuple[str, ...]
    row: dict[str, Any] | None

    def fault(self, what: str) -> str:
        """What is wrong with it, and whose."""
        more = f" and {self.runs - len(self.named)} more" if self.runs > len(self.named) else ""
        return f"{self.id} (matrix {self.version}) {what}: {', '.join(self.named)}{more}"


def broken_promises(matrix: "Matrix", rows: Iterable[OpenRow]) -> list[str]:
    """What this matrix no longer owes of what open runs began with, a line each: a release may extend a row only."""
    built = {row.id: row for row in matrix.rows if row.status == "built"}
    faults = []
    for old in rows:
        row = built.get(old.id)
        if row is None:
            faults.append(old.fault("is not built in this release"))
        elif old.row is None:
            faults.append(old.fault("is not stored as it was declared"))
        else:
            kept = {
                "compensations": row.compensations, "owed": row.owed, "cases": row.cases, "books": row.books,
                "exhausts": (row.exhausts,),
            }  # fmt: skip
            for field, now in kept.items():
                before = old.row.get(field) or ()
                if gone := [one for one in ((before,) if isinstance(before, str) else before) if one not in now]:
                    faults.append(old.fault(f"has no {field} {', '.join(gone)} any more"))
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
        """The built row that covers the step, whatever its failures are; KeyError if there is none."""
        for row in self.rows:
            if step in row.covers and row.status == "built":
                return row
        raise KeyError(step)

    def row_for(self, step: str, failure_type: str = "error") -> MatrixRow | None:
        """The built row that covers failures of `step` of that kind, if any."""
        for row in self.rows:
            if step in row.covers and failure_type in row.failure_types and row.status == "built":
                return row
        return None
