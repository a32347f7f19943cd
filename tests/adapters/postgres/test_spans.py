"""Following the journal for spans, and looking traces up."""

from typing import Any

import pytest

from adapters.postgres.spans import SpanReader
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import whole_story


async def test_a_follower_gets_whole_turns_in_order_however_small_its_bites(database: Database) -> None:
    await whole_story(database.book)
    reader = SpanReader(database.read)
    everything, head = await reader.after(0, 1_000_000)
    assert head == database.book.head.seq
    for limit in (1, 2, 5, 40):
        found, cursor = [], 0
        while cursor < head:
            rows, upto = await reader.after(cursor, limit)
            assert upto > cursor
            assert all(cursor < row["jseq"] <= upto for row in rows)
            found += rows
            cursor = upto
        assert found == everything
    assert await reader.after(head, 5) == ([], head)


async def test_recent_traces_come_whole_and_can_be_searched_for(database: Database) -> None:
    entities = await whole_story(database.book)
    reader = SpanReader(database.read)
    assert {row["trace_id"] for row in await reader.recent(limit=2)} <= {
        row["trace_id"] for row in await reader.recent(limit=500)
    }
    assert len({row["trace_id"] for row in await reader.recent(limit=2)}) == 2
    ref = f"allocation:{entities['failed']}"
    own = await reader.recent(limit=500, tags={"amends.entity": ref})
    assert {"recovery R02 remote user setup", "ssh.user-create"} <= {row["name"] for row in own}
    probes = await reader.recent(limit=500, name="ssh.probe")
    assert len({row["trace_id"] for row in probes}) == 2
    assert await reader.recent(until_us=1) == []
    newest = max(row["start_us"] for row in await reader.recent(limit=500))
    assert await reader.recent(since_us=newest + 1) == []


async def found(database: Database, **search: Any) -> set[str]:
    """The names of the spans of the traces that are found."""
    return {row["name"] for row in await SpanReader(database.read).recent(limit=500, **search)}


# Each finds the traces of `ssh.key-install`, which failed at its first try, and not those of `ssh.probe`.
FINDS: list[dict[str, Any]] = [
    {"tags": {"error": "true"}},
    {"tags": {"otel.status_code": "ERROR", "span.kind": "client"}},
    {"tags": {"amends.attempt": "1", "amends.step": "ssh.key-install"}},
    {"tags": {"failure.code": "ssh_step_failed", "event": "failure"}},
    {"tags": {"otel.status_description": "exit status 1: ‘disk full’"}},
    {"name": "ssh.key-install", "service": "amends", "min_us": 12_345, "max_us": 12_345},
    {"name": "ssh.key-install", "tags": {"service.instance.id": "instance-1", "amends.epoch": "1"}},
]
MISSES: list[dict[str, Any]] = [
    {"tags": {"error": "maybe"}},
    {"tags": {"amends.attempt": "7"}},
    {"tags": {"span.kind": "consumer"}},
    {"tags": {"otel.status_code": "OK"}},
    {"tags": {"no.such.tag": "x"}},
    {"tags": {"amends.attempt": "1.0"}},
    {"tags": {'" || true || $."': '" || 1 == 1 || "'}},
    {"tags": {"amends.step": "\\u0073sh.key-install"}},
    {"tags": {"error": "true", "amends.step": "ssh.probe"}},
    {"tags": {"service.instance.id": "instance-2"}},
    {"service": "other"},
    {"name": "ssh.key-install", "min_us": 12_346},
    {"name": "ssh.key-install", "max_us": 12_344},
]


async def test_a_search_compares_texts_and_ignores_nothing(database: Database) -> None:
    await whole_story(database.book)
    for search in FINDS:
        names = await found(database, **search)
        assert "ssh.key-install" in names, search
        assert "ssh.probe" not in names, search
    for search in MISSES:
        assert await found(database, **search) == set(), search
    assert "ssh.probe" in await found(database, tags={"error": "false"})


async def test_named_traces_are_found_however_old_and_filtered_like_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await whole_story(database.book)
    reader = SpanReader(database.read)
    everything = {row["trace_id"] for row in await reader.recent(limit=500)}
    monkeypatch.setattr("adapters.postgres.spans.LOOK_BACK", (1,))
    assert len({row["trace_id"] for row in await reader.recent(limit=500)}) < 3
    named = sorted(everything)
    assert {row["trace_id"] for row in await reader.recent(limit=500, trace_ids=named)} == everything
    failed = {row["trace_id"] for row in await reader.recent(limit=500, trace_ids=named, tags={"error": "true"})}
    assert set() < failed < everything
    assert await reader.recent(limit=500, trace_ids=named, service="other") == []


async def test_an_old_window_is_searched_where_it_was(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await whole_story(database.book)
    reader = SpanReader(database.read)
    monkeypatch.setattr("adapters.postgres.spans.SLACK_US", 0)
    monkeypatch.setattr("adapters.postgres.spans.LOOK_BACK", (12,))
    first = min(row["start_us"] for row in (await reader.after(0, 1_000_000))[0])
    names = {row["name"] for row in await reader.recent(limit=500, since_us=first, until_us=first + 5_000_000)}
    assert "ssh.probe" in names
    assert not any(name.startswith("recovery R04") for name in names)


async def test_services_and_operations_are_those_recorded(database: Database) -> None:
    await whole_story(database.book)
    reader = SpanReader(database.read)
    assert await reader.services() == ["amends"]
    operations = await reader.operations("amends")
    assert {("ssh.probe", "client"), ("recovery.ended", "internal")} <= set(operations)
    assert ("cmd.account.CreateAccount", "server") in operations
    assert await reader.operations("other") == []
