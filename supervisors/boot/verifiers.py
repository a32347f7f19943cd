"""`amends audit verify` and `amends trace verify`: proofs read from the database, with or without a runtime."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from adapters.otel.otlp_file import spans_of_file
from adapters.otel.verify import spans_from_jaeger, verify
from adapters.postgres.audit import verify_audit
from adapters.postgres.reading import ReadSide
from adapters.postgres.spans import SpanReader
from amends.values.errors import BadConfiguration
from supervisors.settings import Settings

CHUNK = 10_000


def dsn_of(settings: Settings) -> str:
    """The configured Postgres, or that of the runtime whose state directory it is."""
    if settings.postgres.dsn:
        return settings.postgres.dsn
    file = Path(settings.state_dir) / "endpoints.json"
    try:
        host = json.loads(file.read_text(encoding="utf-8"))["postgres_dsn"].partition("host=")[2]
    except (OSError, ValueError, KeyError):
        raise BadConfiguration(
            f"no runtime has written {file}: give --config with its state_dir, or AMENDS_POSTGRES_DSN"
        ) from None
    return f"postgresql://amends@/amends?host={quote(host, safe='/%')}"


async def verify_audit_log(settings: Settings) -> int:
    """Recompute the chain; exit status."""
    verdict = await verify_audit(dsn_of(settings))
    print(f"audit log: {verdict.entries} entries, head {verdict.head_hash}")
    if verdict.valid:
        print("valid: the chain is gapless and its head is the journal's")
        return 0
    print(f"NOT valid: entry {verdict.first_bad_seq}: {verdict.problem}")
    return 1


async def all_spans(read: ReadSide) -> list[dict[str, Any]]:
    """Every span the records make."""
    reader, cursor = SpanReader(read), 0
    spans: list[dict[str, Any]] = []
    while True:
        rows, upto = await reader.after(cursor, CHUNK)
        spans += rows
        if upto <= cursor:
            return spans
        cursor = upto


async def verify_traces(settings: Settings, jaeger: str | None, otlp_file: Path | None) -> int:
    """Compare compensation records with spans read back from the view, a Jaeger or a file; exit status."""
    read = ReadSide(dsn_of(settings))
    try:
        compensations = await read.rows("all_compensations")
        steps = [(row["step_id"], row["state"]) for row in await read.rows("ended_steps")]
        if otlp_file is not None:
            spans: list[dict[str, Any]] = spans_of_file(Path(otlp_file).read_bytes())
        elif jaeger:
            spans = await spans_from_jaeger(jaeger, {row["recovery_trace_id"] for row in compensations})
            steps = []
        else:
            spans = await all_spans(read)
    finally:
        await read.aclose()
    found = verify(compensations, spans, steps)
    print(f"{len(compensations)} compensations, {len(spans)} spans")
    for line in found:
        print(f"differs: {line}")
    print("NOT valid" if found else "valid: compensations and spans match one to one, field by field")
    return 1 if found else 0
