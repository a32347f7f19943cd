"""The exporter against a real receiver and a real journal: complete, in order, patient, and the same every time."""

import asyncio
import contextlib
import email.utils
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from adapters.otel.encoding import encode_rows
from adapters.otel.environment import Target, export_target, traces_url
from adapters.otel.exporter import SpanExporter
from adapters.otel.http import LONGEST_WAIT_S, OtlpHttp, _wait_s
from adapters.otel.otlp_file import spans_of_file
from adapters.otel.verify import rebuilt, verify
from adapters.postgres.spans import SpanReader
from amends.values.backoff import Backoff
from amends.values.errors import Unavailable
from tests.adapters.otel.receiver import Receiver
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import ready_node, whole_story
from tests.patience import PATIENCE_S

QUICK = Backoff(10, 40)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


def to(url: str) -> Target:
    return Target(traces_url(url, {}))


def exporter_of(database: Database, url: str | Target, batch: int = 512) -> SpanExporter:
    async def read_cursor() -> int:
        rows = await database.journal.fetch("read_cursor", "otlp")
        return int(rows[0]["jseq"]) if rows else 0

    async def write_cursor(jseq: int) -> None:
        await database.journal.fetch("write_cursor", "otlp", jseq)

    read = SpanReader(database.read).after
    target = url if isinstance(url, Target) else to(url)
    return SpanExporter(
        OtlpHttp(target), read=read, read_cursor=read_cursor, write_cursor=write_cursor, backoff=QUICK, batch=batch
    )


@asynccontextmanager
async def running(exporter: SpanExporter) -> AsyncIterator[SpanExporter]:
    task = asyncio.create_task(exporter.run())
    try:
        yield exporter
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def all_spans(database: Database) -> int:
    return len((await SpanReader(database.read).after(0, 1_000_000))[0])


async def test_every_compensation_can_be_rebuilt_from_what_arrives(database: Database, receiver: Receiver) -> None:
    await whole_story(database.book)
    total = await all_spans(database)
    async with running(exporter_of(database, receiver.url)) as exporter:
        await until(lambda: exporter.exported == total and exporter.kept == exporter.cursor)
    rows = await database.read.rows("all_compensations")
    found = {record["compensation_id"]: record for span in receiver.spans if (record := rebuilt(span))}
    assert len(found) == len(rows) >= 8
    for row in rows:
        assert found[row["compensation_id"]] == {field: row[field] for field in found[row["compensation_id"]]}
    steps = [(row["step_id"], row["state"]) for row in await database.read.rows("ended_steps")]
    assert verify(rows, receiver.spans, steps) == []
    assert set(receiver.copies().values()) == {1}
    shown = await database.all("SELECT DISTINCT exported FROM public_v1.span")
    assert shown == [{"exported": True}]


async def test_what_arrives_is_the_view_s_span_with_its_types(database: Database, receiver: Receiver) -> None:
    await whole_story(database.book)
    rows, _ = await SpanReader(database.read).after(0, 1_000_000)
    async with running(exporter_of(database, receiver.url)) as exporter:
        await until(lambda: exporter.exported == len(rows))
    arrived = {(span["trace_id"], span["span_id"]): span for span in receiver.spans}
    for row in rows:
        span = arrived[(row["trace_id"], row["span_id"])]
        for field in span:
            wanted = row[field]
            if field == "status_message" and row["status"] != "ERROR":
                wanted = ""
            assert span[field] == wanted, (row["name"], field)
        for key, value in row["attributes"].items():
            assert type(span["attributes"][key]) is type(value)
    assert {row["resource"]["service.instance.id"] for row in rows} == {"instance-1"}


async def test_small_batches_in_order_and_a_restart_loses_and_repeats_nothing(
    database: Database, receiver: Receiver
) -> None:
    await whole_story(database.book)
    total = await all_spans(database)
    async with running(exporter_of(database, receiver.url, batch=7)) as first:
        await until(lambda: first.exported > total // 2)
    async with running(exporter_of(database, receiver.url, batch=7)) as second:
        await until(lambda: len(receiver.copies()) == total and second.up)
    # Cut off between the acknowledgement and the note of it, a batch may come twice: the same bytes.
    assert len(receiver.spans) - total <= 7 + 10
    rows, _ = await SpanReader(database.read).after(0, 1_000_000)
    places = {(row["trace_id"], row["span_id"]): row["jseq"] for row in rows}
    first_run = [places[(span["trace_id"], span["span_id"])] for span in receiver.spans[: first.exported]]
    assert first_run == sorted(first_run)


async def test_a_receiver_that_is_down_delays_and_changes_nothing(database: Database, receiver: Receiver) -> None:
    await receiver.stop()
    async with running(exporter_of(database, receiver.url)) as exporter:
        await whole_story(database.book)
        exporter.notify()
        await until(lambda: exporter.failures > 3)
        assert not exporter.up
        assert exporter.exported == 0
        assert await database.read.rows("violations") == []
        receiver.status = 503
        await receiver.start()
        await until(lambda: receiver.refused > 1)
        receiver.status = 200
        total = await all_spans(database)
        await until(lambda: exporter.exported == total and exporter.kept == exporter.cursor)
        await until(lambda: exporter.up)
    assert set(receiver.copies().values()) == {1}


async def test_new_commits_go_out_when_they_are_told_and_not_at_the_next_poll(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an exporter that has nothing to do, and would look again by itself only in an hour
    monkeypatch.setattr("adapters.otel.exporter.POLL_S", 3600)
    pauses = 0
    exporter = exporter_of(database, receiver.url)
    pause = exporter._pause

    async def counted() -> None:
        nonlocal pauses
        pauses += 1
        await pause()

    monkeypatch.setattr(exporter, "_pause", counted)
    async with running(exporter):
        await until(lambda: pauses == 1)
        # when something commits
        await ready_node(database.book, "n7")
        exporter.notify()
        # then
        await until(lambda: exporter.exported >= 2)


async def test_a_batch_that_is_too_large_is_divided(database: Database, receiver: Receiver) -> None:
    receiver.room = 3
    await whole_story(database.book)
    total = await all_spans(database)
    async with running(exporter_of(database, receiver.url)) as exporter:
        await until(lambda: exporter.exported == total and exporter.kept == exporter.cursor)
    assert set(receiver.copies().values()) == {1}
    assert receiver.refused > 0


async def test_a_span_that_is_refused_for_good_does_not_hold_up_the_others(
    database: Database, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.poison = "ssh.probe"
    await whole_story(database.book)
    total = await all_spans(database)
    async with running(exporter_of(database, receiver.url)) as exporter:
        await until(lambda: exporter.kept == exporter.cursor == database.book.head.seq)
        assert (exporter.exported, exporter.rejected) == (total - 2, 2)
        assert exporter.up
    assert set(receiver.copies().values()) == {1}
    assert caplog.text.count("(ssh.probe)") == 2


async def test_whoever_refuses_everything_is_waited_for(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("adapters.otel.exporter.SAY_AGAIN_S", 0.0)
    receiver.status = 400
    await ready_node(database.book, "n8")
    total = await all_spans(database)
    async with running(exporter_of(database, receiver.url)) as exporter:
        await until(lambda: exporter.failures > 2)
        assert (exporter.exported, exporter.rejected, exporter.kept) == (0, 0, 0)
        receiver.status = 200
        await until(lambda: exporter.exported == total)
    assert caplog.text.count("spans wait") > 1


async def test_spans_a_receiver_rejects_for_good_are_counted(database: Database, receiver: Receiver) -> None:
    receiver.rejects = 2
    await ready_node(database.book, "n8")
    async with running(exporter_of(database, receiver.url)) as exporter:
        await until(lambda: exporter.exported >= 2)
        assert exporter.rejected == 2


async def test_postgres_away_is_waited_out(receiver: Receiver) -> None:
    tries = 0

    async def read(cursor: int, limit: int) -> tuple[list[dict[str, object]], int]:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise Unavailable("away")
        return [], 5

    async def read_cursor() -> int:
        return 0

    async def write_cursor(jseq: int) -> None:
        raise AssertionError("nothing was sent")

    exporter = SpanExporter(
        OtlpHttp(to(receiver.url)), read=read, read_cursor=read_cursor, write_cursor=write_cursor, backoff=QUICK
    )
    async with running(exporter):
        await until(lambda: exporter.cursor == 5)
    assert exporter.up


async def test_without_an_endpoint_nothing_is_asked() -> None:
    async def never(*_: object) -> Any:
        raise AssertionError("asked")

    exporter = SpanExporter(None, read=never, read_cursor=never, write_cursor=never)
    async with running(exporter):
        exporter.notify()
        await asyncio.sleep(0.1)
    assert (exporter.up, exporter.exported) == (True, 0)


async def test_a_token_reaches_the_receiver_and_no_log(
    database: Database, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.token, receiver.status = "Bearer hush-hush-hush", 401
    await ready_node(database.book, "n8")
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20hush-hush-hush"}
    environ["OTEL_EXPORTER_OTLP_COMPRESSION"] = "gzip"
    async with running(exporter_of(database, export_target(receiver.url, {"x-tenant": "t1"}, environ))) as exporter:
        await until(lambda: exporter.failures > 1)
        assert "hush" not in exporter.last_error
        receiver.status = 200
        await until(lambda: exporter.exported >= 2)
    assert receiver.headers["x-tenant"] == "t1"
    assert receiver.headers["Content-Encoding"] == "gzip"
    assert "hush" not in caplog.text


@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_that_names_its_time_is_not_asked_before(
    database: Database, receiver: Receiver, status: int
) -> None:
    receiver.status, receiver.retry_after = status, "1"
    await ready_node(database.book, "n8")
    async with running(exporter_of(database, receiver.url)) as exporter:
        await until(lambda: exporter.failures == 1)
        receiver.status = 200
        began = asyncio.get_running_loop().time()
        await until(lambda: exporter.exported >= 2)
        assert asyncio.get_running_loop().time() - began > 0.8
    assert receiver.refused == 1


def test_the_time_may_be_a_number_a_date_or_nonsense() -> None:
    soon = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert _wait_s("7") == 7
    assert 25 < _wait_s(soon) <= 30
    assert _wait_s("Thu, 01 Jan 1970 00:00:00 GMT") == _wait_s("later") == _wait_s("") == _wait_s("-5") == 0
    assert _wait_s("999999999999") == 3600


async def test_the_same_rows_give_the_same_bytes_and_files_of_them_are_read_back(database: Database) -> None:
    await whole_story(database.book)
    reader = SpanReader(database.read)
    rows, _ = await reader.after(0, 1_000_000)
    again, _ = await reader.after(0, 1_000_000)
    data = await encode_rows(rows)
    assert data == await encode_rows(again)
    assert len(spans_of_file(data)) == len(rows)
    lines = b"\n".join(_otlp_json(row) for row in rows)
    compensations = await database.read.rows("all_compensations")
    assert verify(compensations, spans_of_file(lines)) == []


def _otlp_json(row: dict[str, Any]) -> bytes:
    """One span as a collector's file exporter writes it."""

    def value(one: object) -> dict[str, object]:
        if isinstance(one, bool):
            return {"boolValue": one}
        return {"intValue": str(one)} if isinstance(one, int) else {"stringValue": one}

    return msgspec.json.encode(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "amends"}}]},
                    "scopeSpans": [
                        {
                            "spans": [
                                {
                                    "traceId": row["trace_id"],
                                    "spanId": row["span_id"],
                                    "parentSpanId": row["parent_span_id"] or "",
                                    "name": row["name"],
                                    "kind": f"SPAN_KIND_{row['kind']}",
                                    "startTimeUnixNano": str(row["start_us"] * 1000),
                                    "endTimeUnixNano": str(row["end_us"] * 1000),
                                    "attributes": [
                                        {"key": key, "value": value(one)} for key, one in row["attributes"].items()
                                    ],
                                    "events": [
                                        {"name": one["name"], "timeUnixNano": str(one["time_us"] * 1000)}
                                        for one in row["events"]
                                    ],
                                    "status": {"code": 2} if row["status"] == "ERROR" else {},
                                }
                            ]
                        }
                    ],
                }
            ]
        }
    )


@pytest.mark.parametrize(
    "retry_after", ["Mon, 01 Jan 99999999999 00:00:00 GMT", "-5", "soon", "", "1e9", "٣", "Mon, 99 Foo 2026 00:00:00"]
)
def test_whatever_a_receiver_asks_to_wait_is_a_bounded_number(retry_after: str) -> None:
    assert 0.0 <= _wait_s(retry_after) <= LONGEST_WAIT_S


@pytest.mark.parametrize("pad", [0, 150, 195])
def test_no_part_of_a_header_that_a_receiver_repeats_is_shown(pad: int) -> None:
    token = "".join(f"{number:04x}" for number in range(100))
    target = SimpleNamespace(headers={"authorization": f"Bearer {token}", "x-key": f"name={token[::-1]}"})
    one = cast(Any, SimpleNamespace(_target=target))
    for text in (f"{'x' * pad} invalid token {token}", f"{'y' * pad}{token[::-1]}"):
        shown = OtlpHttp._safe(one, text)
        assert token[:8] not in shown
        assert token[::-1][:8] not in shown
