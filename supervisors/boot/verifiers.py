"""`amends trace verify`: the proof of the traces read from the database, with or without a runtime."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

from adapters.cli.settings import NoRuntime, endpoints
from adapters.otel.links import Place, missing_traces, places
from adapters.otel.verify import spans_from_jaeger, verify
from adapters.postgres.reading import ReadSide
from adapters.postgres.spans import snapshot
from amends.values.errors import Unavailable
from supervisors.api.traces import TraceVerdict
from supervisors.settings import Settings

TRACES_AT_ONCE = 64  # compared before others get the loop: some 20 ms


def dsn_of(settings: Settings) -> str:
    """The configured Postgres, or that of the runtime whose state directory it is. Raises `Unavailable` for none."""
    if settings.postgres.dsn:
        return settings.postgres.dsn
    state_dir = Path(settings.state_dir)
    try:
        reader = endpoints(state_dir).get("postgres_dsn", "")
    except NoRuntime as error:
        raise Unavailable(str(error)) from None
    if not reader:
        raise Unavailable(
            f"no runtime has written {state_dir / 'endpoints.json'}: start `amends run`, or give --config with its "
            "state_dir, --state-dir, or AMENDS_POSTGRES_DSN"
        )
    host = reader.partition("host=")[2]
    return f"postgresql://amends@/amends?host={quote(host, safe='/%')}"


async def verify_records(read: ReadSide) -> TraceVerdict:
    """Compensations against the view's spans, over all that is recorded at this instant.

    A few traces at a time: neither the memory nor the loop of a runtime that serves is its.
    """
    verdict = TraceVerdict()
    async with snapshot(read) as records:
        async for part in records.by_trace(TRACES_AT_ONCE):
            elsewhere = await records.places(missing_traces(part.spans))
            found = verify(part.compensations, part.spans, part.steps, elsewhere=elsewhere)
            verdict.take(len(part.compensations), len(part.spans), found)
            await asyncio.sleep(0)
    return verdict


async def verify_traces(settings: Settings, jaeger: str | None, otlp_file: Path | None) -> int:
    """Compare compensation records with spans read back from the view, a Jaeger or a file; exit status."""
    read = ReadSide(dsn_of(settings))
    try:
        verdict = await _verified(read, jaeger, otlp_file)
    finally:
        await read.aclose()
    print(f"{verdict.compensations} compensations, {verdict.spans} spans")
    for line in verdict.differences:
        print(f"differs: {line}")
    if verdict.different > len(verdict.differences):
        print(f"… and {verdict.different - len(verdict.differences)} more")
    if verdict.valid:
        print("valid: compensations and spans match one to one, field by field")
        return 0
    print("NOT valid")
    return 1


async def _verified(read: ReadSide, jaeger: str | None, otlp_file: Path | None) -> TraceVerdict:
    if otlp_file is None and not jaeger:
        return await verify_records(read)
    async with snapshot(read) as records:
        compensations, steps = await records.ended()
    elsewhere: set[Place] = set()
    if otlp_file is not None:
        from adapters.otel.otlp_file import spans_of_file  # noqa: PLC0415 - with it OpenTelemetry's library

        spans: list[dict[str, Any]] = spans_of_file(Path(otlp_file).read_bytes())
    else:
        spans = await spans_from_jaeger(jaeger or "", {row["recovery_trace_id"] for row in compensations})
        steps = []  # only the recoveries' traces were asked for
        elsewhere = places(await spans_from_jaeger(jaeger or "", missing_traces(spans)))
    verdict = TraceVerdict()
    verdict.take(len(compensations), len(spans), verify(compensations, spans, steps, elsewhere=elsewhere))
    return verdict
