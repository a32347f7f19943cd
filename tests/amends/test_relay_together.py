"""Rows of the outbox that go out together: one acknowledgement for all, and what happens where there is none."""

import asyncio

import pytest

from amends.delivery import relay as module
from amends.delivery.streams import PublishFailed, PublishPoisoned, PublishRecovered
from amends.ports.bus import Published
from tests.amends.relay_world import World, in_order, running, until


def taking(names: list[str]) -> Published:
    return Published("ok")


async def test_what_waits_goes_out_together_in_the_order_of_its_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a stream that takes batches, and more than one may hold
    monkeypatch.setattr(module, "TOGETHER", 30)
    world = World()
    world.answer_together = taking
    names = [f"{entity}.{number}" for number in range(25) for entity in ("a", "b", "c", "d")]
    for name in names:
        world.commit(name)
    # when the relay comes to it
    async with running(world):
        await until(lambda: world.states() == {"published"})
    # then a few batches hold all of it, each row once, as they were committed
    assert [name for batch in world.batches for name in batch] == names
    assert [len(batch) for batch in world.batches] == [30, 30, 30, 10]
    assert world.sent == names
    assert {each["attempts"] for each in world.table.values()} == {1}


async def test_one_row_alone_is_no_batch() -> None:
    world = World()
    world.answer_together = taking
    async with running(world):
        world.commit("a.0")
        await until(lambda: world.states() == {"published"})
    assert (world.batches, world.sent) == ([], ["a.0"])


async def test_where_a_batch_is_refused_each_of_its_rows_goes_out_by_itself_and_the_next_ones_together_again() -> None:
    # given a batch with a row that the stream has already
    world = World()
    known = {"b.0"}
    world.answer = lambda name: Published("duplicate" if name in known else "ok")
    world.answer_together = lambda names: Published("down", "x") if known & set(names) else Published("ok")
    for name in ("a.0", "b.0", "a.1", "c.0"):
        world.commit(name)
    async with running(world):
        await until(lambda: world.states() == {"published"})
        # then each went out by itself, the one that was known counts as published, and each counts one try
        assert world.batches == [["a.0", "b.0", "a.1", "c.0"]]
        assert in_order([name for name in world.sent if name in ("a.0", "a.1")])
        assert {each["attempts"] for each in world.table.values()} == {1}
        # and what follows goes together
        world.commit("a.2", "b.1")
        await until(lambda: world.states() == {"published"})
    assert world.batches[1:] == [["a.2", "b.1"]]
    assert sorted(world.sent) == sorted(world.table)


async def test_a_batch_that_nobody_acknowledged_may_have_gone_out_and_counts_as_a_try() -> None:
    world = World()
    world.answer = lambda name: Published("duplicate")
    world.answer_together = lambda names: Published("down", "ack_timeout")
    world.commit("a.0", "b.0")
    async with running(world):
        await until(lambda: world.states() == {"published"})
    assert {each["attempts"] for each in world.table.values()} == {2}


async def test_a_stream_that_takes_no_batches_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ONE_BY_ONE_US", 300_000)
    world = World()
    async with running(world):
        for number in range(3):
            world.commit(f"a.{number}", f"b.{number}")
            await until(lambda: world.states() == {"published"})
        assert world.batches == [["a.0", "b.0"]]
        world.answer_together = taking
        await asyncio.sleep(0.3)
        world.commit("a.3", "b.3")
        await until(lambda: world.states() == {"published"})
    assert world.batches == [["a.0", "b.0"], ["a.3", "b.3"]]


async def test_a_row_that_spoils_its_batch_is_found_and_the_others_go_on() -> None:
    # given one row that the broker takes in no way
    world = World()
    bad = "b.0"
    world.answer = lambda name: Published("poison", "too_large") if name == bad else Published("ok")
    world.answer_together = lambda names: Published("down", "too_large") if bad in names else Published("ok")
    world.commit("a.0", "b.0", "b.1", "c.0")
    async with running(world):
        await until(lambda: any(isinstance(message, PublishPoisoned) for message in world.told))
        await until(lambda: {"a.0", "c.0"} <= set(world.acknowledged))
        world.commit("a.1", "c.1")
        await until(lambda: {"a.1", "c.1"} <= set(world.acknowledged))
    assert "b.1" not in world.sent
    assert in_order([name for name in world.acknowledged if not name.startswith("b")])


async def test_a_stream_that_is_away_for_a_batch_is_away_for_its_oldest_row() -> None:
    # given a stream that refuses everything
    world = World()
    world.answer = lambda name: Published("down", "no_stream")
    world.answer_together = lambda names: Published("down", "no_stream")
    names = [f"{entity}.{number}" for number in range(3) for entity in ("a", "b")]
    for name in names:
        world.commit(name)
    async with running(world):
        await until(lambda: sum(isinstance(each, PublishFailed) for each in world.told) > 2)
        assert {each.outbox_id for each in world.told if isinstance(each, PublishFailed)} == {"a.0"}
        assert len(world.batches) == 1, "while it refuses only its oldest row is tried"
        # when it is back
        world.answer, world.answer_together = (lambda name: Published("ok")), taking
        await until(lambda: set(world.acknowledged) == set(names))
    assert in_order(world.acknowledged)
    (recovered,) = [each for each in world.told if isinstance(each, PublishRecovered)]
    assert (recovered.outbox_id, recovered.released) == ("a.0", 5)


async def test_publishing_together_that_raises_is_no_end_of_the_relay() -> None:
    world = World()

    def broken(names: list[str]) -> Published:
        raise RuntimeError("a fault of the adapter")

    world.answer_together = broken
    world.commit("a.0", "b.0")
    async with running(world):
        await until(lambda: world.states() == {"published"})
    assert world.sent == ["a.0", "b.0"]
