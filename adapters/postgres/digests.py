"""`audit verify` over all rows: the digest chain recomputed, and every row compared with its newest digest.

Needs no more than SELECT on the tables. One snapshot, read as a stream; what is compared lies in a temporary file.
`amends.values.facets` says what a digest is over.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct

from adapters.postgres.archives import Place, in_order
from adapters.postgres.audit import AuditVerdict, verify_chain
from adapters.postgres.connect import DRIVER_ERRORS, close, connect
from adapters.postgres.derived import columns_fit
from adapters.postgres.leaves import LeafFile
from adapters.postgres.statements import statement
from amends.values.anchors import Anchored
from amends.values.canonical import UNREADABLE, ZERO_HASH, canonical
from amends.values.errors import BadConfiguration, Unavailable
from amends.values.facets import Covered, Facet, chain, digest

CHUNK = 1000
SHOWN = 200  # findings told one by one
TOLD_EVERY = 100_000
STATES = Facet(name="state", table="", key=("kind", "id"), columns=("state", "version", "due_us", "body"), wins="last")
# Tables whose rows stay and are known by the leaf of their birth: none of the older ones can have gone.
LASTING = frozenset({
    "assignments", "debts", "meters", "ledger_entries", "failure", "recovery_run", "recovery_action", "compensation",
    "ops_case", "step", "outbox", "message_quarantine", "command",
})  # fmt: skip
PARTED = {"command_reply": "command"}  # tables that were part of another one when a chain may have begun
Say = Callable[[str], None]


class Finding(Struct, frozen=True):
    """One thing that is not as the runtime left it."""

    table: str
    key: str
    what: str


class DigestVerdict(Struct):
    """What was compared and what is wrong; `older` rows were written before the chain began, at turn `since_seq`.

    `archived`: it does not begin at its beginning, since what came before lies in archives that were not given.
    """

    audit: AuditVerdict
    commits: int = 0
    rows: int = 0
    older: int = 0
    since_seq: int = 0
    archived: bool = False
    head: str = ZERO_HASH
    wrong: int = 0
    findings: list[Finding] = []

    @property
    def valid(self) -> bool:
        """Whether everything is as it was written."""
        return self.audit.valid and not self.wrong

    def tell(self, table: str, key: object, what: str) -> None:
        """One more finding."""
        self.wrong += 1
        if len(self.findings) < SHOWN:
            self.findings.append(Finding(table, str(key), what))


async def verify_digests(
    dsn: str, covered: Covered, anchors: Iterable[Anchored] = (), say: Say = lambda line: None,
    archives: Sequence[Path] = (),
) -> DigestVerdict:  # fmt: skip
    """Verify both chains, all rows, and that every anchored head is one the chain has passed.

    Without its `archives` (the folders of `amends archive`) a database is verified from the end of the last one on;
    rows that stand from before are counted.

    Raises `Unavailable`, and `BadConfiguration` where the role may not read the tables.
    """
    connection = await connect(dsn, name="amends-verify", read_only=True)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute(statement("unbounded"))
            await connection.execute(statement("unhurried"))
            with LeafFile() as leaves:
                return await _Verification(connection, covered, leaves, say).run(list(anchors), archives)
    except asyncpg.InsufficientPrivilegeError as error:
        raise BadConfiguration(f"the role of the DSN cannot read all tables: {error}; see docs/security.md") from error
    except (asyncpg.UndefinedColumnError, asyncpg.UndefinedTableError) as error:
        raise BadConfiguration(f"the database is not of this release: start it there first ({error})") from error
    except DRIVER_ERRORS as error:
        raise Unavailable(f"Postgres: {error}") from error
    finally:
        await close(connection)


class _Verification:
    """One verification under way."""

    def __init__(self, connection: "asyncpg.Connection[Any]", covered: Covered, leaves: LeafFile, say: Say) -> None:
        self._connection, self._covered, self._leaves, self._say = connection, covered, leaves, say
        self._known = {facet.name: facet for facet in (*covered.facets, STATES)}
        self._before: dict[str, int] = {}  # rows of each table when the chain began
        self._older: dict[str, int] = {}  # those of them that no commit has written since

    async def run(self, anchors: list[Anchored], archives: Sequence[Path]) -> DigestVerdict:
        """Both chains, then row by row."""
        starts = await self._open(archives)
        entries = (row for each in self._archives for row in each.rows("audit_log"))
        audit = await verify_chain(self._connection, starts.audit_seq, starts.audit_hash, entries)
        self.verdict = verdict = DigestVerdict(audit, since_seq=starts.seq, archived=starts.seq > 0)
        self._say(f"audit log: {verdict.audit.entries} entries")
        await self._walk(anchors, starts)
        self._say(f"digest chain: {verdict.commits} commits")
        for row in await self._connection.fetch(statement("audit_untied")):
            verdict.tell("audit_log", row["seq"], "not the entry that its commit wrote, or written by none")
        for table in sorted({*self._covered.states.values(), "actors"}):
            await self._find(table, [STATES])
        self._compare(STATES, [STATES])
        for table, facets in self._covered.tables().items():
            await self._find(table, facets)
            self._compare(facets[0], facets)
        self._count_older()
        return verdict

    async def _open(self, folders: Sequence[Path]) -> Place:
        """Where both chains begin: after the last archive, or with the first one that is given."""
        end, manifest = await self._connection.fetchrow(statement("archive_end")), ""
        assert end is not None
        if end["seq"]:
            manifest = await self._connection.fetchval(statement("archive_manifest"))
        if folders and not end["seq"]:
            raise BadConfiguration("--archives: nothing of this database is archived")
        self._archives = await asyncio.to_thread(in_order, folders, (end["seq"], manifest))
        return self._archives[0].manifest.starts if self._archives else Place(**dict(end))

    # --- the chain -----------------------------------------------------------------------------------

    async def _commits(self) -> AsyncIterator[Mapping[str, Any]]:
        for each in self._archives:
            for row in each.rows("journal_digest"):
                yield row
        async for found in self._connection.cursor(statement("digest_chain"), prefetch=CHUNK):
            yield found

    async def _walk(self, anchors: list[Anchored], starts: Place) -> None:
        verdict, seq, last = self.verdict, starts.seq or -1, starts.digest
        ends = (starts.seq, starts.audit_seq, starts.audit_hash, starts.digest)
        wanted = {anchor.seq for anchor in anchors}
        passed: dict[int, tuple[str, int, str]] = {starts.seq: (starts.digest, starts.audit_seq, starts.audit_hash)}
        async for row in self._commits():
            if row["prev_hash"] != last:
                verdict.tell("journal_digest", row["seq"], f"does not follow turn {seq}: commits between are missing")
            begins, seq, last = seq < 0, row["seq"], row["hash"]
            if last != chain(row["prev_hash"], seq, row["epoch"], row["audit_seq"], row["audit_hash"], row["leaves"]):
                verdict.tell("journal_digest", seq, "rewritten: its hash does not fit")
            ends = (seq, row["audit_seq"], row["audit_hash"], last)
            if seq in wanted:
                passed[seq] = (last, row["audit_seq"], row["audit_hash"])
            self._take(row, begins=begins)
            if verdict.commits % TOLD_EVERY == TOLD_EVERY - 1:
                self._say(f"digest chain: {verdict.commits + 1} commits so far")
        head = await self._connection.fetchrow(statement("read_head"))
        assert head is not None
        verdict.head = last
        if ends != (head["seq"], head["audit_seq"], head["hash"], head["digest"]):
            verdict.tell("journal_head", head["seq"], f"rewritten or its tail cut: the digest chain ends at turn {seq}")
        for anchor in anchors:
            if anchor.seq < starts.seq:
                continue  # in an archive that was not given
            if anchor.seq > seq:
                verdict.tell("journal_digest", anchor.seq, f"tail cut: anchored, but the chain ends at turn {seq}")
            elif passed.get(anchor.seq) != (anchor.digest, anchor.audit_seq, anchor.audit_hash):
                verdict.tell("journal_digest", anchor.seq, "rewritten: another head was anchored at this turn")

    def _take(self, row: Mapping[str, Any], *, begins: bool) -> None:
        """The leaves of one commit; the chain's first row holds counts instead."""
        try:
            if begins:
                self._before = msgspec.json.decode(row["leaves"], type=dict[str, int])
                self.verdict.since_seq = row["seq"]
                return
            self.verdict.commits += 1
            for name, entry in msgspec.json.decode(row["leaves"], type=dict[str, list[Any]]).items():
                self._leaves.leave(self._known[name], entry)
        except (*UNREADABLE, KeyError, IndexError) as error:
            self.verdict.tell("journal_digest", row["seq"], f"rewritten: its leaves cannot be made out ({error!r})")

    # --- the rows ------------------------------------------------------------------------------------

    async def _find(self, table: str, facets: list[Facet]) -> None:
        """Read a table whole and keep the digests of its rows as they are."""
        query, key, has_seq = _query(table, facets, self._covered)
        rows: list[tuple[str, str, str, int]] = []
        count = 0
        async for row in self._rows(table, query):
            name = ":".join(row[column] for column in key)
            seq = row["jseq"] if has_seq else 0
            if facets[0] is STATES and not row["fits"]:
                self.verdict.tell(table, name, "rewritten: a column does not say what its body says")
            for facet in facets:
                values = tuple(row[column] for column in facet.columns)
                if facet is STATES:
                    values = (*values[:-1], canonical(msgspec.json.decode(values[-1])).decode())
                rows.append((facet.name, name, digest(values), seq))
            count += 1
            if len(rows) >= CHUNK:
                self._leaves.find(rows)
                rows.clear()
                await asyncio.sleep(0)
            if count % TOLD_EVERY == 0:
                self._say(f"{table}: {count} rows so far")
        self._leaves.find(rows)
        self.verdict.rows += count
        self._say(f"{table}: {count} rows")

    async def _rows(self, table: str, query: str) -> AsyncIterator[Mapping[str, Any]]:
        async for found in self._connection.cursor(query, prefetch=CHUNK):
            yield found
        for each in self._archives:
            for row in each.rows(table):
                yield row

    def _compare(self, birth: Facet, facets: list[Facet]) -> None:
        """Each row with what the chain says of it; `birth` is the facet that is written with a new row."""
        verdict = self.verdict
        names = [facet.name for facet in facets]
        for key, seq in self._leaves.unborn(birth.name):
            table = self._table(birth, key)
            if verdict.archived:  # one that is older and has been written since is known by what was written
                fits = seq <= verdict.since_seq or self._leaves.knows(names, key)
            else:
                fits = seq <= verdict.since_seq and self._before.get(PARTED.get(table, table), 0) > 0
            if not fits:
                verdict.tell(table, key, "slipped in: no commit wrote this row")
            else:
                self._older[table] = self._older.get(table, 0) + 1
        for key in self._leaves.missing(birth):
            verdict.tell(self._table(birth, key), key, "missing: a commit wrote this row")
        for key in self._leaves.twice(birth.name):
            verdict.tell(self._table(birth, key), key, "stands twice: one of the two is slipped in")
        for key in self._leaves.put_back(birth.name):
            verdict.tell(self._table(birth, key), key, "slipped in: a commit has taken this row away")
        for facet in facets:
            default = digest(facet.default) if facet.default is not None else ""
            unwritten = self._leaves.unwritten(facet.name, default, birth.name)
            if verdict.archived and facet.keeps:  # it may have been written before
                unwritten = ()
            for key in (*self._leaves.rewritten(facet.name), *unwritten):
                verdict.tell(self._table(facet, key), key, f"rewritten: {', '.join(facet.columns)}")

    def _table(self, facet: Facet, key: str) -> str:
        return facet.table or self._covered.states.get(key.partition(":")[0], "actors")

    def _count_older(self) -> None:
        """Of rows that stood there before the chain began only the number is known; of archived ones not even that."""
        if self.verdict.archived:
            self.verdict.older = sum(self._older.values())
            return
        for table in sorted(self._before.keys() | self._older.keys()):
            before, now = self._before.get(PARTED.get(table, table), 0), self._older.get(table, 0)
            self.verdict.older += now
            if now > before:
                self.verdict.tell(
                    table, "-", f"slipped in: {now} rows from before the chain began, there were {before}"
                )
            if now < before and table in LASTING:
                self.verdict.tell(table, "-", f"missing: {now} rows from before the chain began, there were {before}")


def _query(table: str, facets: list[Facet], covered: Covered) -> tuple[str, tuple[str, ...], bool]:
    """The statement that reads a table, the columns of its key, and whether its rows have a place in the journal."""
    if facets == [STATES]:
        kinds = [kind for kind, each in covered.states.items() if each == table]
        fits = {kind: columns_fit(covered.columns[kind], sorted(covered.ends[kind])) for kind in kinds}
        key, fit = "kind, id", " AND ".join(("true", *(f"(kind <> '{kind}' OR {each})" for kind, each in fits.items())))
        if table != "actors":
            key, fit = f"'{kinds[0]}'::text AS kind, {kinds[0]}_id AS id", fits[kinds[0]]
        columns = f"{key}, state, version, due_us, body::text AS body, {fit} AS fits"
        return f"SELECT {columns} FROM {table}", ("kind", "id"), False  # noqa: S608 - names of ours
    named = list(dict.fromkeys((*facets[0].key, *(column for facet in facets for column in facet.columns))))
    return f"SELECT {', '.join(named)} FROM {table}", facets[0].key, "jseq" in named  # noqa: S608 - names of ours
