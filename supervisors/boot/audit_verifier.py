"""`amends audit verify`: both chains, every row, and the anchors of a file, with no more than SELECT on the tables."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from adapters.postgres.digests import DigestVerdict, verify_digests
from amends.domain.domain import covered
from amends.values.anchors import Anchored, gaps
from supervisors.boot.anchors import read_anchors, trusted_keys
from supervisors.boot.verifiers import dsn_of
from supervisors.rental import RENTAL
from supervisors.settings import Settings

SHOWN = 50  # lines of one kind
NO_ANCHORS = "no anchors given: a history cut or rewritten without a seam would not show (--anchors FILE)"


async def verify_audit_log(
    settings: Settings, anchors: Sequence[Path] = (), public_key: str = "", archives: Sequence[Path] = ()
) -> int:
    """Verify, tell what is wrong; exit status. `anchors`: the files of one or more runtimes; `archives`: folders."""
    good: list[Anchored] = []
    bad: list[str] = []
    trusted = trusted_keys(public_key, Path(settings.state_dir)) if anchors else frozenset()
    for path in anchors:
        own = 0
        for line, anchor, why in read_anchors(path, trusted):
            if anchor is not None:
                good.append(anchor)
                own += 1
            else:
                bad.append(f"{path} line {line}: {why}")
        if not own:
            bad.append(f"{path}: no anchor of a trusted key")
    notes, slips = _between(good)
    bad += slips
    verdict = await verify_digests(dsn_of(settings), covered((RENTAL,)), good, _say, archives)
    for text in _told(verdict):
        print(text)
    print(_anchored(good, given=bool(anchors)))
    for text in (*_first("note: ", notes), *_first("wrong: ", bad)):
        print(text)
    if verdict.valid and not bad:
        print("valid: both chains are gapless and end at the journal's head, and every row is as it was written")
        return 0
    print("NOT valid")
    return 1


def _told(verdict: DigestVerdict) -> list[str]:
    audit = verdict.audit
    lines = [
        f"audit log: {audit.entries} entries, head {audit.head_hash}",
        f"digest chain: {verdict.commits} commits after turn {verdict.since_seq}, head {verdict.head}",
        f"rows: {verdict.rows} compared",
    ]
    if verdict.archived:
        lines.append(
            f"history up to turn {verdict.since_seq} is archived: {verdict.older} rows that stand from before are "
            "counted, not verified (--archives FOLDER, once for each archive, verifies all)"
        )
    elif verdict.older:
        lines.append(f"rows from before the digest chain began: {verdict.older}, of which only the number is verified")
    if not audit.valid:
        lines.append(f"wrong: audit_log {audit.first_bad_seq}: {audit.problem}")
    lines += [f"wrong: {each.table} {each.key}: {each.what}" for each in verdict.findings]
    if verdict.wrong > len(verdict.findings):
        lines.append(f"… and {verdict.wrong - len(verdict.findings)} more")
    return lines


def _between(good: Iterable[Anchored]) -> tuple[list[str], list[str]]:
    """What was written between two runtimes: notes, and what is wrong."""
    notes, wrong = [], []
    for gap in gaps(good):
        turns = f"{gap.first}..{gap.last}: {gap.what}"
        if gap.wrong:
            wrong.append(f"journal_digest {turns}")
        else:
            notes.append(f"turns {turns}")
    return notes, wrong


def _first(kind: str, lines: Sequence[str]) -> Iterator[str]:
    yield from (f"{kind}{line}" for line in lines[:SHOWN])
    if len(lines) > SHOWN:
        yield f"{kind}… and {len(lines) - SHOWN} more"


def _anchored(good: list[Anchored], *, given: bool) -> str:
    if not given:
        return NO_ANCHORS
    if not good:
        return "anchors: none"
    last = max(good, key=lambda anchor: anchor.seq)
    when = datetime.fromtimestamp(last.at_us / 1e6, UTC).isoformat(timespec="seconds")
    return f"anchors: {len(good)}, the last one of {when} at turn {last.seq}; later turns are not anchored yet"


def _say(line: str) -> None:
    """Progress, apart from the verdict."""
    print(line, file=sys.stderr)
