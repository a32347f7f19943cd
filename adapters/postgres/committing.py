"""A commit as one call: a function of the writer's own session runs the statements of a batch one after the other.

So a commit is one way to the database and back, whatever it writes, and the loop has its time meanwhile. The function
is made from the named statements when the session begins, and goes with it: no release finds another one's.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct

from adapters.postgres.statements import statement
from amends.ports.journal import Commit
from amends.values.errors import CONSUMED, REQUIREMENT, Fenced, Refused, TurnFailed
from amends.values.records import AuditRow
from amends.values.tables import table_of

CALL = "SELECT pg_temp.amends_commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
MOVED, TAKEN_IN, VERSION, REQUIRED = "AM001", "AM002", "AM003", "AM004"  # SQLSTATEs that the function raises
HEAD = "journal_head"  # only the statement that moves the head speaks of it
_encode = msgspec.json.Encoder().encode
_FRAME = """CREATE FUNCTION pg_temp.amends_commit(
    bigint, bigint, text, bigint, bigint, bigint, text, text, text, text[], json[]
) RETURNS void LANGUAGE plpgsql AS $amends$
#variable_conflict use_column
DECLARE
    done bigint;
    keys text[];
BEGIN
{body}
END $amends$"""
_PART = """IF $11[{place}] IS NOT NULL THEN
{body}
END IF;"""
_KEYS = "keys := ARRAY(SELECT given ->> '{key}' FROM json_array_elements($11[{place}]) AS given);"
_COUNT = """GET DIAGNOSTICS done = ROW_COUNT;
IF done <> {wanted} THEN
    RAISE EXCEPTION USING ERRCODE = '{state}', MESSAGE = '{message}';
END IF;"""


class Batches:
    """How batches of some domains are written. `tables`: of each actor kind; `rows`: in the order of their writing."""

    def __init__(self, tables: Mapping[str, str], rows: Sequence[type[Struct]]) -> None:
        self._tables, self._rows = tables, rows
        self._states = sorted(set(tables.values()))
        self.function = _FRAME.format(body="\n".join(self._parts()))

    def arguments(self, commit: Commit) -> tuple[Any, ...]:
        """Those of `CALL`."""
        after, before = commit.after, commit.before
        return (
            after.seq, after.audit_seq, after.hash, _newest_us(commit), before.epoch, before.seq, after.digest,
            before.digest, commit.leaves, commit.consumed, self._documents(commit),
        )  # fmt: skip

    def _documents(self, commit: Commit) -> list[str | None]:
        """The rows of each statement as JSON, in the order of the statements; None where there are none."""
        required: dict[str, set[tuple[Any, ...]]] = {}
        for kind, identifier, states, epoch in commit.requires:
            required.setdefault(self._tables[kind], set()).add((kind, identifier, ",".join(states), epoch))
        written: dict[str, list[Struct]] = {}
        for write in commit.states:
            written.setdefault(self._tables[write.kind], []).append(write)
        return [
            *(_document(map(_required, required.get(table, ()))) for table in self._states),
            *(_document(written.get(table, ())) for table in self._states),
            *(numbered(commit.rows.get(row, ())) for row in self._rows),
        ]

    # --- the function --------------------------------------------------------------------------------

    def _parts(self) -> Iterator[str]:
        yield statement("advance_head")
        yield _COUNT.format(wanted=1, state=MOVED, message="the journal has moved on")
        place = 0
        for table in self._states:
            place += 1
            text = statement(f"require_{table}").replace("SELECT", "PERFORM", 1)
            message = f"{table}: what the turn requires of another entity does not hold"
            yield _part(place, text, keys="id", counted=(REQUIRED, message))
        consume = statement("consume").replace("$1::text[]", "$10")
        counted = _COUNT.format(
            wanted="cardinality($10)", state=TAKEN_IN, message="a message of the batch was taken in before"
        )
        yield f"IF cardinality($10) > 0 THEN\n{consume}\n{counted}\nEND IF;"
        for table in self._states:
            place += 1
            message = f"{table}: a row has another version than the one decided on"
            yield _part(place, statement(f"state_{table}"), counted=(VERSION, message))
        for row in self._rows:
            place += 1
            kept = table_of(row)
            keys = row.__struct_fields__[0] if kept.writes == "close" else ""
            yield _part(place, statement(kept.statement), keys=keys)


def blame_of(error: asyncpg.PostgresError) -> TurnFailed | Fenced | None:
    """What the function itself has refused; None for all else."""
    state, text = error.sqlstate, str(error)
    if state == MOVED:
        return Fenced(text)
    code = {TAKEN_IN: CONSUMED, VERSION: "version", REQUIRED: REQUIREMENT}.get(str(state))
    return Refused(code, text) if code is not None else None


def _part(place: int, text: str, *, keys: str = "", counted: tuple[str, str] | None = None) -> str:
    """A statement of the function, run where there are rows for it; `counted`: each of them must count."""
    lines = [_KEYS.format(key=keys, place=place)] if keys else []
    lines.append(text.replace("$1::json", f"$11[{place}]").replace("$2::text[]", "keys"))
    if counted is not None:
        state, message = counted
        lines.append(_COUNT.format(wanted=f"json_array_length($11[{place}])", state=state, message=message))
    return _PART.format(place=place, body="\n".join(lines))


def _required(wanted: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("kind", "id", "states", "epoch"), wanted, strict=True))


def _document(rows: Any) -> str | None:
    found = list(rows)
    return _encode(found).decode() if found else None


def numbered(rows: Sequence[tuple[Struct, int]]) -> str | None:
    """Rows, each with the place of its turn."""
    if not rows:
        return None
    return (b"[" + b",".join([b'%b,"jseq":%d}' % (_encode(row)[:-1], seq) for row, seq in rows]) + b"]").decode()


def _newest_us(commit: Commit) -> int:
    """The newest time in the batch: the high-water mark of the clock."""
    audits = (row for row, _ in commit.rows.get(AuditRow, ()))
    return max((row.at_us for row in audits if isinstance(row, AuditRow)), default=0)
