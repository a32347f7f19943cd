"""What foreign sessions lock: the part of the journal's contract that is about them, on both journals."""

import pytest

from amends.ports.journal import StateWrite
from amends.values.errors import Locked, Unavailable
from tests.adapters.journals import STREAM, Bench, event, node, state


async def test_a_row_that_somebody_holds_keeps_its_own_batch_alone(bench: Bench) -> None:
    await bench.journal.commit(await bench.sealed(node("n1"), node("n2")))
    await bench.foreign.row("n1")
    before = await bench.journal.head()
    with pytest.raises(Locked):
        await bench.journal.commit(await bench.sealed(node("n1", 2, "draining"), node("n2", 2, "draining")))
    assert await bench.journal.head() == before
    writes = [StateWrite("node", name, "", 2, None, "") for name in ("n1", "n2")]
    assert await bench.journal.locked(writes) == {("node", "n1")}
    assert await bench.journal.closed() == {}
    await bench.journal.commit(await bench.sealed(node("n2", 2, "draining"), node("n3")))
    await bench.foreign.free()
    await bench.journal.commit(await bench.sealed(node("n1", 2, "draining")))
    assert await bench.journal.locked(writes) == set()


async def test_a_table_that_nobody_may_write_is_named_and_can_be_read(bench: Bench) -> None:
    await bench.journal.commit(await bench.sealed(node("n1")))
    await bench.foreign.table("nodes")
    with pytest.raises(Locked):
        await bench.journal.commit(await bench.sealed(node("n2")))
    assert await bench.journal.closed() == {"node": "nodes"}
    assert await bench.journal.locked([StateWrite("node", "n1", "", 2, None, "")]) == set()
    assert await bench.journal.read_actor("node", "n1") is not None
    assert [each.id async for part in bench.journal.live_actors("node") for each in part] == ["n1"]
    await bench.journal.commit(await bench.sealed(state("account", "a")))
    await bench.foreign.table("audit_log")
    assert await bench.journal.closed() == {"node": "nodes", "audit_log": "audit_log"}
    with pytest.raises(Locked):
        await bench.journal.commit(await bench.sealed(state("account", "b")))
    await bench.rows([event("evt_1")])
    await bench.foreign.free()
    assert await bench.journal.closed() == {}
    await bench.journal.commit(await bench.sealed(state("account", "b"), node("n2")))


async def test_a_table_that_nobody_may_read_is_nobody_s_turn_to_blame(bench: Bench) -> None:
    await bench.journal.commit(await bench.sealed(node("n1")))
    await bench.rows([event("evt_1")])
    for table in ("nodes", "outbox"):
        await bench.foreign.table(table, reads=True)
    with pytest.raises(Locked):
        await bench.journal.locked([StateWrite("node", "n1", "", 2, None, "")])
    with pytest.raises(Unavailable):
        await bench.journal.read_actor("node", "n1")
    with pytest.raises(Unavailable):
        assert [each async for part in bench.journal.live_actors("node") for each in part]
    with pytest.raises(Unavailable):
        await bench.journal.count_events(STREAM)
    assert await bench.journal.closed() == {"node": "nodes", "outbox": "outbox"}
    assert await bench.journal.read_actor("account", "a") is None
    await bench.foreign.free()
    assert await bench.journal.count_events(STREAM) == 1


async def test_who_holds_the_head_is_no_turn_s_fault(bench: Bench) -> None:
    commit = await bench.sealed(node("n1"))
    await bench.foreign.head()
    with pytest.raises(Unavailable):
        await bench.journal.commit(commit)
    await bench.foreign.free()
    assert not await bench.journal.settled(commit)
    await bench.journal.commit(commit)
    assert await bench.journal.head() == commit.after
