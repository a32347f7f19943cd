"""`amends archive`: closed months exported to files, and their parts taken out of the tables. Needs the owner's DSN.

Nothing is taken out before the files are on disk and read back. A runtime may be at work meanwhile: taking out holds
its journal for an instant, and gives way where it would have to wait.
"""

import asyncio
import gzip
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

import asyncpg
import msgspec
from msgspec import Struct

from adapters.postgres.archives import MANIFEST, ArchiveFolder, Manifest, Place, StoredTable
from adapters.postgres.connect import DRIVER_ERRORS, close, connect
from adapters.postgres.statements import statement
from amends.values.errors import BadConfiguration, Unavailable

Say = Callable[[str], None]
TABLES: Mapping[str, str] = {  # as readers know it → whose parts they are
    "step": "step_closed", "outbox": "outbox_closed", "recovery_run": "recovery_run_closed", "command": "command",
    "failure": "failure", "recovery_action": "recovery_action", "compensation": "compensation",
    "audit_log": "audit_log", "journal_digest": "journal_digest",
}  # fmt: skip
ORDER: Mapping[str, str] = {"audit_log": "seq", "journal_digest": "seq"}
SCHEMA = "amends_archived"
PREFETCH = 2000
TOLD_EVERY = 500_000
LEVEL = 1  # of gzip: twice as fast as the usual one, a tenth larger
TRIES, PAUSE_S = 20, 0.5


class Plan(Struct, frozen=True):
    """What is to be taken out: parts by table, and where both chains begin and end in them."""

    before_month: int
    parts: dict[str, list[str]]
    starts: Place
    ends: Place
    epoch: int  # of the turn at which they end


class Archiving:
    """One archiving of one database; used as `async with`. Raises `BadConfiguration`, `Unavailable`."""

    def __init__(self, dsn: str, say: Say) -> None:
        self._dsn, self._say = dsn, say
        self._connection: Any = None

    async def __aenter__(self) -> Self:
        self._connection = await connect(self._dsn, name="amends-archive")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        await close(self._connection)
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            raise BadConfiguration(f"archiving needs the DSN of the database's owner: {error}") from error
        if isinstance(error, DRIVER_ERRORS):
            raise Unavailable(f"the archiving did not come to its end: {error}") from error

    async def plan(self, before_month: int, *, exported: bool) -> Plan:
        """What lies before that month; `exported`: only what a span exporter has sent."""
        ask = self._connection
        if not await ask.fetchval(statement("has_months")):
            raise BadConfiguration("the database is of an older release: start this one on it first")
        parts: dict[str, list[str]] = {}
        for row in await ask.fetch(statement("months_before"), before_month):
            if row["till"] is None:
                raise BadConfiguration(
                    f"{row['part']} has {row['rows']} rows of these months that came while there was no part for them; "
                    "they stay, and so does what lies beside them"
                )
            parts.setdefault(row["whole"], []).append(row["part"])
        if missing := sorted(set(TABLES.values()) - parts.keys()):
            oldest = await ask.fetchval(statement("oldest_month_end"))
            raise BadConfiguration(
                f"nothing can be archived before {_named(before_month)}: {missing[0]} has no part of its own there; "
                f"the oldest part of all holds what was closed before {_named(oldest)}"
            )
        starts = Place(**dict(await ask.fetchrow(statement("archive_end"))))
        chain = " UNION ALL ".join(f"SELECT * FROM {part}" for part in parts["journal_digest"])  # noqa: S608 - ours
        found = await ask.fetchrow(
            f"SELECT seq, hash AS digest, audit_seq, audit_hash, epoch FROM ({chain}) AS chain "  # noqa: S608 - the same
            "ORDER BY seq DESC LIMIT 1"
        )
        if found is None or found["seq"] <= starts.seq:
            raise BadConfiguration(f"nothing was committed before {_named(before_month)} that is not archived")
        ends = Place(found["seq"], found["digest"], found["audit_seq"], found["audit_hash"])
        await self._check_boundary(parts, ends)
        if exported and (sent := await ask.fetchval(statement("sent_spans"))) is not None and sent < ends.seq:
            raise BadConfiguration(
                f"the exporter of spans has come to turn {sent}, and these months end with turn {ends.seq}: wait for "
                "it, or say --unexported"
            )
        return Plan(before_month, parts, starts, ends, found["epoch"])

    async def _check_boundary(self, parts: Mapping[str, list[str]], ends: Place) -> None:
        """The months end between two turns: a server's clock that stepped back may have mixed them."""
        for whole, column, last in (
            ("journal_digest", "seq", ends.seq), ("audit_log", "seq", ends.audit_seq), ("command", "jseq", ends.seq),
            ("failure", "jseq", ends.seq), ("recovery_action", "jseq", ends.seq), ("compensation", "jseq", ends.seq),
        ):  # fmt: skip
            named = ", ".join(f"'{part}'::regclass" for part in parts[whole])
            mixed = await self._connection.fetchval(
                f"SELECT {column} FROM {whole} WHERE ({column} > $1) = (tableoid IN ({named})) LIMIT 1", last,  # noqa: S608
                timeout=600,
            )  # fmt: skip
            if mixed is not None:
                raise BadConfiguration(
                    f"{whole} {mixed} lies in the wrong month: the server's clock has stepped; archive up to a later "
                    "month"
                )

    async def export(self, plan: Plan, folder: Path) -> Manifest:
        """The parts' rows in files of a new folder, one snapshot; read back before it is believed."""
        await asyncio.to_thread(folder.mkdir, parents=True, mode=0o700)
        tables: dict[str, StoredTable] = {}
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            await self._connection.execute(statement("unbounded"))
            await self._connection.execute(statement("unhurried"))
            for name, whole in TABLES.items():
                tables[name] = await self._export(name, plan.parts[whole], folder)
        manifest = Manifest(1, plan.before_month, plan.starts, plan.ends, time.time_ns() // 1000, tables)
        with (folder / MANIFEST).open("xb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest)))
            _settle(file)
        _settle_folder(folder)
        written = ArchiveFolder(folder)
        written.check()
        for name in tables:
            for _ in written.rows(name):
                pass
        return manifest

    async def _export(self, name: str, parts: list[str], folder: Path) -> StoredTable:
        rows = " UNION ALL ".join(f"SELECT * FROM {part}" for part in parts)  # noqa: S608 - ours
        order = f" ORDER BY {ORDER[name]}" if name in ORDER else ""
        found = await self._connection.prepare(f"SELECT * FROM ({rows}) AS part{order}")  # noqa: S608 - the same
        columns = [each.name for each in found.get_attributes()]
        file, count = f"{name}.jsonl.gz", 0
        encode = msgspec.json.Encoder().encode
        with (folder / file).open("xb") as raw:
            hashed = _Hashed(raw)
            with gzip.GzipFile(filename="", mode="wb", fileobj=hashed, compresslevel=LEVEL, mtime=0) as packed:
                async for row in found.cursor(prefetch=PREFETCH):
                    packed.write(encode(list(row.values())) + b"\n")
                    count += 1
                    if count % TOLD_EVERY == 0:
                        self._say(f"{name}: {count} rows so far")
            _settle(raw)
        self._say(f"{name}: {count} rows")
        return StoredTable(file, count, hashed.digest.hexdigest(), columns)

    async def take_out(self, plan: Plan, manifest_sha256: str, *, drop: bool) -> list[str]:
        """Detach the parts, and drop them or leave them in a schema of their own; history begins after them."""
        for _ in range(TRIES):
            try:
                names = await self._take_out(plan, manifest_sha256)
                break
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                self._say("somebody reads these months: trying again")
                await asyncio.sleep(PAUSE_S)
        else:
            raise Unavailable("somebody reads these months all the time; they are exported, and nothing was taken out")
        for name in names if drop else ():  # nobody waits for that
            await self._connection.execute(f"DROP TABLE {SCHEMA}.{name}")
        return names

    async def _take_out(self, plan: Plan, manifest_sha256: str) -> list[str]:
        out, names = self._connection, list[str]()
        async with out.transaction():
            await out.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            await out.execute(statement("unbounded"))
            await out.execute(statement("be_runtime"))
            await out.execute(statement("keep_evaluations"), plan.ends.audit_seq, timeout=3600)
            await out.execute(statement("impatient"))
            await out.execute(statement("hold_head"))
            await out.execute(
                statement("record_archive"), plan.ends.seq, plan.ends.digest, plan.ends.audit_seq, plan.ends.audit_hash,
                plan.before_month, manifest_sha256, time.time_ns() // 1000,
            )  # fmt: skip
            await out.execute(statement("mark_archived"))
            for whole, parts in plan.parts.items():
                for part in parts:
                    name = f"{part}_before_{plan.before_month}"
                    await out.execute(f"ALTER TABLE {whole} DETACH PARTITION {part}")
                    await out.execute(f"ALTER TABLE {part} RENAME TO {name}")
                    await out.execute(f"ALTER TABLE {name} SET SCHEMA {SCHEMA}")
                    names.append(name)
        return names


class _Hashed:
    """A file that is hashed as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _settle_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _named(month: int) -> str:
    return f"{month // 100}-{month % 100:02}"
