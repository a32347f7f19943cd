"""One contract for the journal port, on the real database and on the simulated one."""

from typing import Any

import msgspec
import pytest
from msgspec import Struct

from actors.tables import AssignmentRow, DebtRow, MeterRow, NodeSeenRow
from adapters.simulated.uniques import UNIQUES
from amends.ports.journal import Requirement, Turn
from amends.turn.seal import seal
from amends.values.errors import CONSUMED, REQUIREMENT, Fenced, Refused
from amends.values.records import (
    CaseRow,
    MessageRow,
    OutboxMarkRow,
    RunEndRow,
    RunRow,
    StepEndRow,
    StepRow,
)
from tests.adapters.journals import STREAM, TYPES, Bench, event, message, node, reply, state, step
from tests.adapters.postgres.database import Database

# --- the head --------------------------------------------------------------------------------------------


async def test_a_commit_moves_the_head_and_one_that_does_not_fit_is_fenced(bench: Bench) -> None:
    before = await bench.journal.head()
    commit = await bench.sealed(state("account", "a"), state("account", "b"))
    await bench.journal.commit(commit)
    after = await bench.journal.head()
    assert after == commit.after
    assert (after.seq, after.audit_seq) == (before.seq + 2, before.audit_seq + 2)
    assert await bench.journal.newest_us() == 7
    stale = seal([state("account", "c")], before, TYPES)
    with pytest.raises(Fenced):
        await bench.journal.commit(stale)
    assert await bench.journal.read_actor("account", "c") is None


async def test_an_older_epoch_writes_and_reads_the_head_no_more(bench: Bench) -> None:
    commit = await bench.sealed(state("account", "a"))
    await bench.begin(2)
    with pytest.raises(Fenced):
        await bench.journal.commit(commit)
    with pytest.raises(Fenced):
        await bench.journal.head()
    head = await bench.at_epoch(2).head()
    assert (head.epoch, head.seq) == (2, commit.before.seq)


async def test_whether_a_batch_is_in_can_be_told(bench: Bench) -> None:
    commit = await bench.sealed(state("account", "a"))
    assert not await bench.journal.settled(commit)
    await bench.journal.commit(commit)
    assert (await bench.journal.head()) == commit.after


# --- states ----------------------------------------------------------------------------------------------


async def test_a_state_of_another_version_is_refused_and_nothing_of_the_batch_is_written(bench: Bench) -> None:
    await bench.journal.commit(await bench.sealed(node("n1")))
    with pytest.raises(Refused) as refused:
        await bench.journal.commit(await bench.sealed(state("account", "x"), node("n1", 3)))
    assert refused.value.code == "version"
    assert await bench.journal.read_actor("account", "x") is None
    await bench.journal.commit(await bench.sealed(node("n1", 2, "draining")))
    found = await bench.journal.read_actor("node", "n1")
    assert found is not None
    assert msgspec.json.decode(found.body)["state"] == "draining"


async def test_who_lives_or_owes_is_read_at_a_start(bench: Bench) -> None:
    gone = state("allocation", "alloc_1", name="released")
    owes = state("allocation", "alloc_2", name="failed", owing=True, debt_id="d")
    lives = state("allocation", "alloc_3", name="active", timers={"leave": 5})
    lives.due_us = 5
    await bench.journal.commit(await bench.sealed(gone, owes, lives, node("n1"), node("n2", name="retired")))
    found = [(each.id, each.due_us) async for part in bench.journal.live_actors("allocation") for each in part]
    assert sorted(found) == [("alloc_2", None), ("alloc_3", 5)]
    assert [each.id async for part in bench.journal.live_actors("node") for each in part] == ["n1"]


async def test_a_host_key_is_one_living_node_s(bench: Bench) -> None:
    await bench.journal.commit(await bench.sealed(node("n1", key="k")))
    with pytest.raises(Refused) as refused:
        await bench.journal.commit(await bench.sealed(node("n2", key="k")))
    assert (refused.value.code, refused.value.constraint) == ("23505", "node_host_key")
    await bench.journal.commit(await bench.sealed(node("n1", 2, "retired", key="k")))
    await bench.journal.commit(await bench.sealed(node("n2", key="k")))


async def test_what_a_turn_requires_of_another_entity_holds_at_its_commit_or_nothing_is_written(bench: Bench) -> None:
    await bench.journal.commit(await bench.sealed(node("n1"), node("n2", epoch=4)))

    async def wanting(*requires: Requirement) -> None:
        turn = Turn()
        turn.rows, turn.requires = [event(f"evt_{len(requires)}{requires[0][3]}")], list(requires)
        await bench.journal.commit(await bench.sealed(turn))

    await wanting(
        ("node", "n1", ("ready", "draining"), 1), ("node", "n2", ("ready",), 4), ("node", "n1", ("ready",), None)
    )
    wrong: list[Requirement] = [
        ("node", "n1", ("draining",), 1), ("node", "n2", ("ready",), 3), ("node", "n3", ("ready",), None)
    ]  # fmt: skip
    for requirement in wrong:
        with pytest.raises(Refused) as refused:
            await wanting(("node", "n1", ("ready",), 1), requirement)
        assert refused.value.code == REQUIREMENT
    # what the same commit writes comes after what its turns require
    late = node("n1", 2, "draining")
    late.requires = [("node", "n1", ("ready",), None)]
    await bench.journal.commit(await bench.sealed(late))
    assert await bench.journal.count_events(STREAM) == 1


# --- rows ------------------------------------------------------------------------------------------------


async def test_what_is_unique_is_refused_by_name(bench: Bench) -> None:
    await bench.rows([AssignmentRow("alloc_1", "n1", "reserved", 1, None), reply("k")])
    twice: list[tuple[Struct, str]] = [
        (AssignmentRow("alloc_2", "n1", "reserved", 2, None), "assignments_live"),
        (msgspec.structs.replace(reply("k"), trace_id="o" * 32), "command_key"),
    ]
    for row, name in twice:
        with pytest.raises(Refused) as refused:
            await bench.rows([event(f"evt_{name}"), row])
        assert (refused.value.code, refused.value.constraint) == ("23505", name)
    assert await bench.journal.count_events(STREAM) == 0
    await bench.rows([AssignmentRow("alloc_1", "n1", "ended", 9, 9)])
    await bench.rows([AssignmentRow("alloc_2", "n1", "reserved", 2, None)])
    assert await bench.live(AssignmentRow) == [AssignmentRow("alloc_2", "n1", "reserved", 2, None)]


async def test_a_second_row_of_a_key_is_merged_as_its_type_declares(bench: Bench) -> None:
    await bench.rows([DebtRow("debt_1", "n1", "user", "t", "alloc_1", None, 0, 5, None)])
    await bench.rows([DebtRow("debt_1", "other", "mount", "y", None, None, 2, 9, None)])
    assert await bench.live(DebtRow) == [DebtRow("debt_1", "n1", "user", "t", "alloc_1", None, 2, 5, None)]
    await bench.rows([DebtRow("debt_1", "n1", "user", "t", "alloc_1", None, 2, 5, 10)])
    assert await bench.live(DebtRow) == []
    # last-seen times go forward only
    await bench.rows([NodeSeenRow("n1", "b1", 50)])
    await bench.rows([NodeSeenRow("n1", "b2", 40)])
    assert await bench.live(NodeSeenRow) == [NodeSeenRow("n1", "b1", 50)]
    await bench.rows([NodeSeenRow("n1", "b2", 60)])
    assert await bench.live(NodeSeenRow) == [NodeSeenRow("n1", "b2", 60)]
    # what a later row of a case leaves empty keeps what it was
    await bench.rows([CaseRow("case_1", "stuck", "t", "node:n1", "open", 1, None, "tr", "[]", '{"a":1}')])
    await bench.rows([CaseRow("case_1", "stuck", "t", "node:n1", "retrying", 1, None, "", "[]", "{}")])
    found = await bench.journal.case("case_1")
    assert found == CaseRow("case_1", "stuck", "t", "node:n1", "retrying", 1, None, "tr", "[]", '{"a":1}')


async def test_a_stop_is_lowered_and_never_raised(bench: Bench) -> None:
    def meter(stopped_us: int | None) -> MeterRow:
        state, cause = ("accruing", None) if stopped_us is None else ("stopped", "release")
        return MeterRow("meter_1", "alloc_1", "a", state, 5, "v", "h", 1, stopped_us, cause, 1, 1, 1)

    for stop, stands in ((None, None), (90, 90), (50, 50), (70, 50)):
        await bench.rows([meter(stop)])
        assert [row["stopped_us"] for row in await bench.look("meters")] == [stands]
    with pytest.raises(Refused):  # one meter an allocation
        await bench.rows([msgspec.structs.replace(meter(None), meter_id="meter_2")])


async def test_what_has_ended_ends_once_and_of_several_ends_in_one_commit_the_last_counts(bench: Bench) -> None:
    await bench.rows([step("step_1"), step("step_2")])
    assert [each.step_id for each in await bench.live(StepRow)] == ["step_1", "step_2"]
    assert (await bench.live(StepRow))[0] == step("step_1")
    await bench.rows([StepEndRow("step_1", "done", 1, 2, "", "", 1)])
    assert [each.step_id for each in await bench.live(StepRow)] == ["step_2"]
    run = RunRow("recov_1", "r" * 32, "R02", "v", "h", "p", 1, "failure", "f", "t", "s", "e", "n", 1)
    await bench.rows([run, RunEndRow("recov_1", "degraded", None, "{}"), RunEndRow("recov_1", "recovered", 9, "{}")])
    await bench.rows([event("evt_1"), event("evt_2")])
    await bench.rows([OutboxMarkRow("evt_1", "pending", 1, None)], [OutboxMarkRow("evt_1", "published", 2, 5)])
    await bench.rows([OutboxMarkRow("evt_1", "pending", 9, None)])
    (found,) = await bench.journal.events("", ["evt_1"])
    assert (found.state, found.attempts) == ("published", 2)


async def test_a_message_is_taken_in_once(bench: Bench) -> None:
    await bench.rows([message("evt_m")])
    assert await bench.live(MessageRow) == [message("evt_m")]
    await bench.rows([], consumed="evt_m")
    assert await bench.live(MessageRow) == []
    with pytest.raises(Refused) as refused:
        await bench.rows([event("evt_1")], consumed="evt_m")
    assert refused.value.code == CONSUMED
    assert await bench.journal.count_events(STREAM) == 0


# --- reads -----------------------------------------------------------------------------------------------


async def test_events_wait_in_the_order_of_their_commits_and_behind_what_is_parked(bench: Bench) -> None:
    first = await bench.rows([event("evt_9"), event("evt_1", "node:n2")])
    await bench.rows([event("evt_3"), event("evt_2", "node:n2")])
    upto = (await bench.journal.head()).seq

    async def waiting(*args: Any) -> list[str]:
        return [each.row.outbox_id for each in await bench.journal.waiting_events(STREAM, *args)]

    assert await waiting(upto, 10) == ["evt_1", "evt_9", "evt_2", "evt_3"]
    assert await waiting(first.after.seq, 10) == ["evt_1", "evt_9"]
    assert await waiting(upto, 3, ["node:n2"]) == ["evt_9", "evt_3"]
    await bench.rows([OutboxMarkRow("evt_9", "parked", 1, None)])
    assert await waiting(upto, 10) == ["evt_1", "evt_2"]
    assert await bench.journal.parked_events(STREAM) == [("evt_9", "node:n1")]
    assert (await bench.journal.count_events(STREAM), await bench.journal.count_events(STREAM, "node:n1")) == (3, 1)
    await bench.rows([OutboxMarkRow("evt_1", "published", 1, 5), OutboxMarkRow("evt_2", "published", 1, 5)])
    published = await bench.journal.published_events(STREAM, (0, ""), 9, 10)
    assert [row.outbox_id for row in published] == ["evt_1", "evt_2"]
    assert await bench.journal.published_events(STREAM, (1, "evt_1"), 9, 1) == [published[1]]


async def test_replies_are_found_by_caller_and_key_until_they_are_forgotten(bench: Bench) -> None:
    await bench.rows([reply("k", 5), reply("l", 50)])
    (found,) = await bench.journal.kept(["shop", "shop"], ["k", "unknown"])
    assert (found.key, found.body_hash, found.http, found.reply) == ("k", "h", 200, '{"data":{}}')
    assert await bench.journal.forget(10) == 1
    assert await bench.journal.forget(10) == 0
    assert [each.key for each in await bench.journal.kept(["shop", "shop"], ["k", "l"])] == ["l"]


async def test_documents_are_kept_under_their_hash(bench: Bench) -> None:
    for _ in range(2):
        await bench.journal.store_document("matrix", "a" * 64, "{}", 1)
    assert [(row["sha256"], row["kind"]) for row in await bench.look("document")] == [("a" * 64, "matrix")]


async def test_the_simulated_uniques_are_those_of_the_schema(database: Database) -> None:
    rows = await database.all(
        "SELECT index.relname AS name, class.relname AS \"table\" FROM pg_index "
        "JOIN pg_class AS index ON index.oid = indexrelid JOIN pg_class AS class ON class.oid = indrelid "
        "WHERE indisunique AND index.relname NOT LIKE '%pkey' AND NOT index.relispartition "
        "AND class.relnamespace = 'public'::regnamespace"
    )  # fmt: skip
    of = {"compensation_key": "compensation", "recovery_run_closed": "recovery_run"}  # narrow tables, parts of tables
    later = {"ledger_key", "recovery_run_open", "archived"}
    assert {(row["name"], of.get(row["table"], row["table"])) for row in rows if row["table"] not in later} == {
        (unique.name, unique.table) for unique in UNIQUES
    }
