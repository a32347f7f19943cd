"""The proof of the traces as a runtime makes it: a few traces at a time, in one snapshot, while others commit."""

import pytest

from actors.account.messages import CreateAccount
from adapters.otel.verify import verify
from adapters.postgres.spans import SpanReader, snapshot
from supervisors.boot import verifiers
from supervisors.boot.verifiers import verify_records
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import exhausted_cleanup, failed_setup, ready_node, whole_story


@pytest.mark.parametrize("at_once", [1, 3, 1000])
async def test_every_span_and_compensation_is_compared_however_few_traces_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    await whole_story(database.book)
    monkeypatch.setattr(verifiers, "TRACES_AT_ONCE", at_once)
    verdict = await verify_records(database.read)
    spans, _ = await SpanReader(database.read).after(0, 1_000_000)
    assert (verdict.valid, verdict.differences) == (True, [])
    assert verdict.spans == len(spans)
    assert verdict.compensations == len(await database.read.rows("all_compensations"))


async def test_what_commits_during_the_proof_is_no_difference(database: Database) -> None:
    book = database.book
    await book.command("account", "acct1", CreateAccount(account_id="acct1", currency="usd"))
    await ready_node(book, "n1")
    await ready_node(book, "n2")
    await failed_setup(book)
    before = len(await database.read.rows("all_compensations"))
    # when the story goes on after the first trace was compared
    compensations, differences, told = 0, [], ""
    async with snapshot(database.read) as records:
        async for part in records.by_trace(1):
            if not told:
                told = await exhausted_cleanup(book)
            compensations += len(part.compensations)
            differences += verify(part.compensations, part.spans, part.steps)
    # then it proves the instant at which it began
    assert differences == []
    assert compensations == before < len(await database.read.rows("all_compensations"))


async def test_a_damaged_record_is_named(database: Database) -> None:
    await whole_story(database.book)
    await database.force("UPDATE recovery_action SET outcome = 'partial' WHERE action_id IN "
                         "(SELECT action_id FROM compensation LIMIT 1); "
                         "DELETE FROM recovery_action WHERE action_id IN "
                         "(SELECT action_id FROM compensation ORDER BY action_id DESC LIMIT 1)")  # fmt: skip
    verdict = await verify_records(database.read)
    assert not verdict.valid
    assert any("no span" in line for line in verdict.differences)
