"""`amends archive`: the history of closed months, verified, exported, and taken out of the tables.

Ledger, meters, cases and the entities themselves stay, and so does what explains money.
"""

import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from adapters.postgres.archives import ArchiveFolder
from adapters.postgres.archiving import SCHEMA, Archiving, Plan
from adapters.postgres.digests import verify_digests
from amends.domain.domain import covered
from amends.values.anchors import Anchored
from amends.values.errors import BadConfiguration
from supervisors.boot.anchors import KEY, Anchors
from supervisors.boot.verifiers import dsn_of
from supervisors.paths import WRITABLE, directory_fault
from supervisors.rental import RENTAL
from supervisors.settings import Settings

DONE, REFUSED = 0, 1


async def archive(settings: Settings, before: str, to: Path | None, *, drop: bool, unexported: bool) -> int:
    """Archive what was closed before that month; exit status. Raises `BadConfiguration`, `Unavailable`."""
    month = _month(before)
    _check_retention(before, month, settings.archive.span_retention_h)
    state_dir = Path(settings.state_dir)
    folder = to if to is not None else state_dir / "archives" / f"before-{before}"
    if why := directory_fault(folder):
        raise BadConfiguration(f"--to: {folder} cannot be used: {why}; {WRITABLE}")
    if os.path.lexists(folder):
        raise BadConfiguration(f"--to: {folder} is there already; name another folder, or move it away")
    dsn = dsn_of(settings)
    async with Archiving(dsn, _say) as archiving:
        plan = await archiving.plan(month, exported=not unexported)
        _say("verifying what is to be archived, and all else")
        verdict = await verify_digests(dsn, covered((RENTAL,)), say=_say)
        if not verdict.valid:
            print("NOT valid: nothing is archived; `amends audit verify` says what is wrong", file=sys.stderr)
            return REFUSED
        manifest = await archiving.export(plan, folder)
        sha256 = ArchiveFolder(folder).sha256
        parts = await archiving.take_out(plan, sha256, drop=drop)
    ends, rows = manifest.ends, sum(table.rows for table in manifest.tables.values())
    print(f"archived: {rows} rows of {len(manifest.tables)} tables in {folder}, manifest {sha256}")
    print(f"history begins after turn {ends.seq}, audit entry {ends.audit_seq}, digest {ends.digest}")
    print(await _anchored(settings, state_dir, plan))
    if drop:
        print(f"dropped: {len(parts)} parts")
    else:
        print(f"{len(parts)} parts stand in the schema {SCHEMA}; once the folder is safe: DROP SCHEMA {SCHEMA} CASCADE")
    return DONE


async def _anchored(settings: Settings, state_dir: Path, plan: Plan) -> str:
    """The place at which history begins, signed in the file of anchors, so that it can be held to it."""
    if not settings.anchors.key and not os.path.lexists(state_dir / KEY):
        return "no anchor is signed: the key of anchors is not here; keep the line above where nobody rewrites it"
    anchors, ends = Anchors(settings, state_dir), plan.ends
    await anchors.keep(anchors.sign(Anchored(
        at_us=time.time_ns() // 1000, epoch=plan.epoch, seq=ends.seq, digest=ends.digest, audit_seq=ends.audit_seq,
        audit_hash=ends.audit_hash, key="",
    )))  # fmt: skip
    if anchors.trouble:
        return f"no anchor is kept: {anchors.trouble}"
    return f"signed in {anchors.path}: `amends audit verify --anchors` holds the beginning to it"


def _month(before: str) -> int:
    found = re.fullmatch(r"(\d{4})-(0[1-9]|1[0-2])", before)
    if found is None:
        raise BadConfiguration(f"--before: {before!r} is no month; write it like 2026-11")
    return int(found[1]) * 100 + int(found[2])


def _check_retention(before: str, month: int, hours: int) -> None:
    """Spans are shown so long at least (`tables.md`, Growth)."""
    begins = datetime(month // 100, month % 100, 1, tzinfo=UTC)
    ago_h = (datetime.now(UTC) - begins).total_seconds() / 3600
    if ago_h < hours:
        when = f"ended {int(ago_h)} hours ago" if ago_h >= 0 else f"has not ended before {begins:%Y-%m-%d}"
        raise BadConfiguration(
            f"--before {before}: the month before it {when}, and spans are shown for {hours} hours at least "
            "([archive].span_retention_h); name an earlier month"
        )


def _say(line: str) -> None:
    """Progress, apart from the result."""
    print(line, file=sys.stderr)
