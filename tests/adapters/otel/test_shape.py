"""The shape of the picture, over the bytes that are exported: who hangs where, who covers whom, what says what."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import SpanFlags

from adapters.otel.encoding import SCHEMA_URL, encode_rows
from adapters.otel.links import missing_traces, with_pointed_at
from adapters.otel.otlp_file import spans_of_otlp, spans_of_otlp_json
from adapters.otel.otlp_json import otlp_json
from adapters.otel.summaries import summaries
from adapters.otel.verify import verify
from adapters.postgres.spans import SpanReader
from amends.turn.messages import Envelope, TimerFired, TurnRefused
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import Book, lost_cleanup, requested, whole_story

REMOTE = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


async def refused_activation(book: Book) -> None:
    """R03: the database refuses the activation three times; the user that stands on the node is owed."""
    await book.end("node:n2", "agent.reconcile", users=[], mounts=[], foreign=[])
    allocation_id = await requested(book, "n2")
    ref = f"allocation:{allocation_id}"
    await book.end(ref, "ssh.user-create")
    await book.end(ref, "ssh.key-install")
    for tries in range(1, 4):
        refused = TurnRefused(TimerFired("activate"), "23514", "the meter is refused", tries, book.now_us + 900_000)
        await book.tell("allocation", allocation_id, Envelope(refused))
    await book.end(ref, "ssh.user-remove")


async def exported(database: Database) -> ExportTraceServiceRequest:
    book = database.book
    await whole_story(book)
    await lost_cleanup(book)
    await refused_activation(book)
    rows, _ = await SpanReader(database.read).after(0, 1_000_000)
    request: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(await encode_rows(rows))
    return request


def spans(request: ExportTraceServiceRequest) -> Iterator[Any]:
    for group in request.resource_spans:
        for scope in group.scope_spans:
            yield from scope.spans


async def test_no_child_begins_before_its_parent_and_actions_cover_their_children(database: Database) -> None:
    request = await exported(database)
    by_place = {(span.trace_id, span.span_id): span for span in spans(request)}
    compared = covered = 0
    for span in by_place.values():
        parent = by_place.get((span.trace_id, span.parent_span_id))
        if parent is None:
            continue
        compared += 1
        assert parent.start_time_unix_nano <= span.start_time_unix_nano, (parent.name, span.name)
        if any(one.key == "recovery.action_id" for one in parent.attributes):
            covered += 1
            assert span.end_time_unix_nano <= parent.end_time_unix_nano, (parent.name, span.name)
    assert compared > 60
    assert covered >= 6


async def test_a_retry_and_an_undo_are_drawn_as_long_as_their_try_was(database: Database) -> None:
    rows = spans_of_otlp(await exported(database))
    actions = [row for row in rows if "recovery.action_id" in row["attributes"]]
    retries = [row for row in actions if row["name"].startswith("retry ")]
    tries = {(row["name"].rpartition(".")[2], row["start_us"]) for row in rows if "amends.attempt" in row["attributes"]}
    assert len(retries) >= 8
    for row in retries:
        what = row["name"].removeprefix("retry ")
        assert (what, row["start_us"]) in tries, row["name"]
        assert row["end_us"] - row["start_us"] >= 12_345, row["name"]
    undone = {
        (row["name"], row["attributes"]["compensation.outcome"]): row["attributes"].get("compensation.duration_ms")
        for row in actions
        if "compensation.outcome" in row["attributes"]
    }
    assert undone == {
        ("reverse user-create", "failure"): 12, ("reverse user-create", "success"): 12,
        ("rollback reservation", "success"): 0, ("compensate user-create", "partial"): 12,
        ("compensate user-create", "failure"): 12, ("compensate user-create", "success"): 0,
        ("compensate notification", "partial"): 12, ("compensate notification", "success"): 12,
        ("cancel user-create", "success"): None,
    }  # fmt: skip


async def test_what_follows_an_undo_hangs_below_the_run_and_not_below_the_undo(database: Database) -> None:
    rows = spans_of_otlp(await exported(database))
    names = {(row["trace_id"], row["span_id"]): row["name"] for row in rows}
    above = {
        names[(row["trace_id"], row["parent_span_id"])].partition(" ")[0]
        for row in rows
        if row["name"] == "notification.publish" and row["parent_span_id"] in {place[1] for place in names}
    }
    assert {one for one in above if not one.startswith("cmd.")} == {"recovery"}
    # and of a run's own root no child begins earlier, so that no viewer divides by what is not there
    for root in (row for row in rows if row["name"].startswith("recovery R") and not row["parent_span_id"]):
        own = [row for row in rows if row["trace_id"] == root["trace_id"]]
        assert min(row["start_us"] for row in own) == root["start_us"]


async def test_all_that_is_pointed_at_is_there(database: Database) -> None:
    rows = spans_of_otlp(await exported(database))
    compensations = await database.read.rows("all_compensations")
    assert verify(compensations, rows, (), elsewhere=()) == []
    # a file of a few recoveries is given the traces that these lead to
    reader = SpanReader(database.read)
    runs = await database.all("SELECT recovery_trace_id FROM recovery_run WHERE matrix_row = 'R07'")
    alone = await reader.of([run["recovery_trace_id"] for run in runs])
    assert missing_traces(alone)
    assert any("points at" in line for line in verify((), alone, (), elsewhere=()))
    led, whole = await with_pointed_at([run["recovery_trace_id"] for run in runs], reader.of)
    assert whole
    assert missing_traces(led) == []
    # where that is more than one answer holds, it says so
    cut, whole = await with_pointed_at([run["recovery_trace_id"] for run in runs], reader.of, at_most=1)
    assert not whole
    assert len({span["trace_id"] for span in cut}) == 1
    assert not [line for line in verify((), led, (), elsewhere=()) if "points at" in line]


async def test_scope_and_callers_are_said(database: Database) -> None:
    request = await exported(database)
    for group in request.resource_spans:
        for scope in group.scope_spans:
            assert (scope.scope.name, scope.scope.version, scope.schema_url) == ("amends", "0.1.0", SCHEMA_URL)
    remote = {span.name for span in spans(request) if span.flags & REMOTE == REMOTE}
    known = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
    local = {span.name for span in spans(request) if span.flags & REMOTE == known}
    assert {name.partition(".")[0] for name in remote} == {"cmd"}
    assert {"ssh.user-create", "reverse user-create", "recovery.ended"} <= local


CONVENTIONS: dict[str, dict[str, Any]] = {
    "ssh.user-create": {"rpc.system.name": "ssh", "rpc.method": "user-create", "server.address": "localhost",
                        "server.port": 22},
    "notification.publish": {"messaging.system": "nats", "messaging.operation.name": "publish",
                             "messaging.operation.type": "send",
                             "messaging.destination.name": "amends.v1.ntf.account.acct1.allocation.failed"},
    "agent.reconcile": {"messaging.system": "nats", "messaging.operation.name": "publish",
                        "messaging.operation.type": "send", "messaging.destination.name": "amends.v1.task.n2"},
    "activation": {"db.system.name": "postgresql", "db.operation.name": "COMMIT", "db.response.status_code": "23514"},
    "cmd.allocation.RequestAllocation": {"messaging.system": "nats", "messaging.operation.name": "process",
                                         "messaging.destination.name": "cmd.allocation.RequestAllocation"},
}  # fmt: skip


@pytest.mark.parametrize("name", CONVENTIONS)
async def test_outside_calls_follow_the_semantic_conventions(database: Database, name: str) -> None:
    rows = [row for row in spans_of_otlp(await exported(database)) if row["name"] == name]
    assert any(CONVENTIONS[name].items() <= row["attributes"].items() for row in rows), rows
    assert not any("rpc.system" in row["attributes"] for row in rows)
    if name == "activation":
        assert all(row["attributes"]["db.namespace"].startswith("test") for row in rows)


async def test_the_address_is_the_one_of_the_intent(database: Database) -> None:
    book = database.book
    await whole_story(book)
    before = {row["span_id"]: row["attributes"] for row in await SpanReader(database.read).recent(limit=500)}
    await database.force("""UPDATE nodes SET body = body || '{"ssh_host": "elsewhere", "ssh_port": 2022}'""")
    after = {row["span_id"]: row["attributes"] for row in await SpanReader(database.read).recent(limit=500)}
    assert before == after


async def test_a_trace_as_jaeger_2_reads_it_is_the_same_trace(database: Database) -> None:
    await exported(database)
    reader = SpanReader(database.read)
    rows = await reader.recent(limit=500)
    document = msgspec.json.decode(msgspec.json.encode(await otlp_json(rows)))
    back = spans_of_otlp_json(document["result"])
    known = {(row["trace_id"], row["span_id"]): row for row in rows}
    assert len(back) == len(rows)
    for span in back:
        row = known[(span["trace_id"], span["span_id"])]
        for field in (
            "parent_span_id",
            "name",
            "kind",
            "start_us",
            "end_us",
            "status",
            "attributes",
            "events",
            "links",
        ):
            assert span[field] == row[field], (row["name"], field)
    scope = document["result"]["resourceSpans"][0]["scopeSpans"][0]
    assert scope["scope"] == {"name": "amends", "version": "0.1.0"}
    assert isinstance(scope["spans"][0]["kind"], int)


async def test_a_summary_counts_what_the_trace_has(database: Database) -> None:
    entities = await whole_story(database.book)
    reader = SpanReader(database.read)
    ref = f"allocation:{entities['failed']}"
    rows = await reader.recent(limit=500, tags={"amends.entity": ref, "amends.step": "ssh.key-install"})
    (summary,) = summaries(rows)["summaries"]
    errors = sum(row["status"] == "ERROR" for row in rows)
    assert errors > 0
    assert summary == {
        "traceId": rows[0]["trace_id"], "rootServiceName": "amends",
        "rootOperationName": "cmd.allocation.RequestAllocation",
        "minStartTimeUnixNano": str(min(row["start_us"] for row in rows) * 1000),
        "maxEndTimeUnixNano": str(max(row["end_us"] for row in rows) * 1000),
        "spanCount": len(rows), "errorSpanCount": errors,
        "orphanSpanCount": 1,  # the command continues its caller's trace
        "services": [{"name": "amends", "spanCount": len(rows), "errorSpanCount": errors}],
    }  # fmt: skip
    recovery = await reader.recent(limit=1, name="recovery R02 remote user setup")
    (own,) = summaries(recovery)["summaries"]
    assert (own["rootOperationName"], own["orphanSpanCount"]) == ("recovery R02 remote user setup", 0)
    assert summaries([]) == {"summaries": []}
