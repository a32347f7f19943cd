"""Jaeger's JSON there and back, and `trace verify`: quiet when all is well, precise when something differs."""

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from adapters.otel.jaeger import jaeger_json, spans_of_jaeger
from adapters.otel.otlp_file import spans_of_file
from adapters.otel.verify import spans_from_jaeger, verify
from adapters.postgres.spans import SpanReader
from amends.values.errors import BadConfiguration, Unavailable
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import lost_cleanup, whole_story

Rows = list[dict[str, Any]]


async def told(database: Database) -> tuple[Rows, Rows, list[tuple[str, str]]]:
    """(spans, compensations, steps) of the whole story, and of a cleanup that was cancelled without a try."""
    await whole_story(database.book)
    await lost_cleanup(database.book)
    spans, _ = await SpanReader(database.read).after(0, 1_000_000)
    steps = [(row["step_id"], row["state"]) for row in await database.read.rows("ended_steps")]
    return spans, await database.read.rows("all_compensations"), steps


def first_undo(spans: Rows) -> dict[str, Any]:
    return next(span for span in spans if "compensation.compensation_id" in span["attributes"])


def without_duration(spans: Rows) -> dict[str, Any]:
    return next(
        span
        for span in spans
        if "compensation.compensation_id" in span["attributes"] and "compensation.duration_ms" not in span["attributes"]
    )


def below(spans: Rows, name: str) -> dict[str, Any]:
    """The work of that name which hangs below an undo."""
    undone = {span["span_id"] for span in spans if span["name"] == "reverse user-create"}
    return next(span for span in spans if span["name"] == name and span["parent_span_id"] in undone)


def root(spans: Rows) -> dict[str, Any]:
    return next(span for span in spans if span["name"].startswith("recovery R"))


Damage = Callable[[Rows], Any]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "a field": (lambda s: first_undo(s)["attributes"].update({"compensation.outcome": "partial"}), "outcome is"),
    "a type": (lambda s: first_undo(s)["attributes"].update({"compensation.sequence": "1"}), "sequence is"),
    "a null": (lambda s: without_duration(s)["attributes"].update({"compensation.duration_ms": 0}), "duration_ms is"),
    "metadata": (lambda s: first_undo(s)["attributes"].update({"compensation.metadata": "{}"}), "metadata is"),
    "a span lost": (lambda s: s.remove(first_undo(s)), "no span"),
    "a span more": (
        lambda s: s.append({**first_undo(s), "attributes": {"compensation.compensation_id": "comp_x"}}),
        "a span without a row",
    ),
    "a span twice": (lambda s: s.append({**first_undo(s), "span_id": "ab" * 8}), "two spans"),
    "two contents": (lambda s: s.append({**first_undo(s), "name": "other"}), "different contents"),
    "another trace": (lambda s: first_undo(s).update(trace_id="ab" * 16), "its span stands in trace"),
    "a parent lost": (lambda s: s.remove(next(x for x in s if x["name"] == "recovery.started")["parent"]), "no parent"),
    "a child early": (lambda s: below(s, "ssh.user-remove").update(start_us=1), "before its parent (reverse"),
    "a child late": (lambda s: below(s, "ssh.user-remove").update(end_us=1 << 62), "after its action (reverse"),
    "a link to nothing": (lambda s: root(s).update(links=[{"trace_id": "ab" * 16, "span_id": "cd" * 8}]), "points at"),
    "a ref to nothing": (
        lambda s: first_undo(s)["attributes"].update(
            {"compensation.compensated_action_ref": "ab" * 16 + ":" + "cd" * 8}
        ),
        "points at span cdcdcdcdcdcdcdcd of trace abab",
    ),
    "an error hidden": (lambda s: next(x for x in s if x["status"] == "ERROR").update(status="UNSET"), "failed True"),
    "an error invented": (lambda s: first_undo(s).update(status="ERROR"), "failed"),
}


async def test_a_true_picture_has_no_differences(database: Database) -> None:
    spans, compensations, steps = await told(database)
    assert verify(compensations, spans, steps, elsewhere=()) == []


async def test_each_difference_is_named(database: Database) -> None:
    spans, compensations, steps = await told(database)
    for what, (damage, sign) in DAMAGES.items():
        damaged = copy.deepcopy(spans)
        for span in damaged:
            if span["name"] == "recovery.started":
                span["parent"] = next(one for one in damaged if one["span_id"] == span["parent_span_id"])
        if what == "an error invented":
            done = next(one for one in damaged if one["name"] == "ssh.probe")
            done["status"] = "ERROR"
        else:
            damage(damaged)
        found = verify(compensations, damaged, steps, elsewhere=())
        assert any(sign in line for line in found), (what, found)


async def test_jaeger_s_json_keeps_every_field(database: Database) -> None:
    spans, compensations, steps = await told(database)
    document = msgspec.json.decode(msgspec.json.encode(jaeger_json(spans)))
    back = spans_of_jaeger(document)
    assert verify(compensations, back, steps) == []
    assert verify(compensations, spans_of_file(msgspec.json.encode(document)), steps) == []
    originals = {(span["trace_id"], span["span_id"]): span for span in spans}
    for span in back:
        original = originals[(span["trace_id"], span["span_id"])]
        for field in ("parent_span_id", "name", "kind", "start_us", "end_us", "status", "events", "links", "resource"):
            assert span[field] == original[field], field


async def test_jaeger_s_json_has_the_shape_its_ui_opens(database: Database) -> None:
    spans, _, _ = await told(database)
    document = jaeger_json(spans)
    assert {trace["traceID"] for trace in document["data"]} == {span["trace_id"] for span in spans}
    for trace in document["data"]:
        assert trace["processes"].keys() >= {span["processID"] for span in trace["spans"]}
        assert all(process["serviceName"] == "amends" for process in trace["processes"].values())
        for span in trace["spans"]:
            assert span["duration"] >= 0
            assert {tag["type"] for tag in span["tags"]} <= {"string", "bool", "int64", "float64"}
            assert {one["refType"] for one in span["references"]} <= {"CHILD_OF", "FOLLOWS_FROM"}


async def test_a_jaeger_is_asked_for_each_trace(database: Database) -> None:
    spans, compensations, _ = await told(database)

    async def trace(request: web.Request) -> web.Response:
        own = [span for span in spans if span["trace_id"] == request.match_info["id"]]
        return web.json_response(jaeger_json(own), status=200 if own else 404)

    app = web.Application()
    app.router.add_get("/api/traces/{id}", trace)
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    wanted = {row["recovery_trace_id"] for row in compensations} | {"ab" * 16}
    found = await spans_from_jaeger(url, wanted)
    await runner.cleanup()
    assert {span["trace_id"] for span in found} == wanted - {"ab" * 16}
    assert verify(compensations, found) == []
    with pytest.raises(Unavailable):
        await spans_from_jaeger(url, wanted)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00nothing", b"{", b'{"data": [}'])
def test_a_file_that_is_nothing_is_refused(data: bytes) -> None:
    with pytest.raises(BadConfiguration):
        spans_of_file(data)
