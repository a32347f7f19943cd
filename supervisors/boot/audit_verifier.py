"""`amends audit verify`: both chains, every row, and the anchors of a file, with no more than SELECT on the tables."""

import sys
from datetime import UTC, datetime
from pathlib import Path

from adapters.postgres.digests import DigestVerdict, verify_digests
from amends.domain.domain import covered
from amends.values.anchors import Anchored
from supervisors.boot.anchors import read_anchors, trusted_keys
from supervisors.boot.verifiers import dsn_of
from supervisors.rental import RENTAL
from supervisors.settings import Settings

NO_ANCHORS = "no anchors given: a history cut or rewritten without a seam would not show (--anchors FILE)"


async def verify_audit_log(settings: Settings, anchors: Path | None = None, public_key: str = "") -> int:
    """Verify, tell what is wrong; exit status."""
    good: list[Anchored] = []
    bad: list[str] = []
    if anchors is not None:
        for line, anchor, why in read_anchors(anchors, trusted_keys(public_key, Path(settings.state_dir))):
            if anchor is not None:
                good.append(anchor)
            else:
                bad.append(f"{anchors} line {line}: {why}")
        if not good:
            bad.append(f"{anchors}: no anchor of a trusted key")
    verdict = await verify_digests(dsn_of(settings), covered((RENTAL,)), good, _say)
    for text in _told(verdict):
        print(text)
    print(_anchored(good, anchors))
    for text in bad:
        print(f"wrong: {text}")
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
    if verdict.older:
        lines.append(f"rows from before the digest chain began: {verdict.older}, of which only the number is verified")
    if not audit.valid:
        lines.append(f"wrong: audit_log {audit.first_bad_seq}: {audit.problem}")
    lines += [f"wrong: {each.table} {each.key}: {each.what}" for each in verdict.findings]
    if verdict.wrong > len(verdict.findings):
        lines.append(f"… and {verdict.wrong - len(verdict.findings)} more")
    return lines


def _anchored(good: list[Anchored], file: Path | None) -> str:
    if file is None:
        return NO_ANCHORS
    if not good:
        return "anchors: none"
    last = max(good, key=lambda anchor: anchor.seq)
    when = datetime.fromtimestamp(last.at_us / 1e6, UTC).isoformat(timespec="seconds")
    return f"anchors: {len(good)}, the last one of {when} at turn {last.seq}; later turns are not anchored yet"


def _say(line: str) -> None:
    """Progress, apart from the verdict."""
    print(line, file=sys.stderr)
