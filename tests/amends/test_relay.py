"""The outbox relay: order kept, memory bounded, the lease looked at, a publisher that raises waited out."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from amends.delivery import relay as module
from amends.delivery.relay import MOST_PARKED, Relay
from amends.delivery.requests import RedispatchOutbox
from amends.delivery.streams import Lag, PublishFailed, PublishPoisoned, PublishRecovered, PublishSetApart, Stream
from amends.ports.bus import Published
from amends.values.backoff import Backoff
from amends.values.records import OutboxMarkRow
from tests.amends.relay_world import LIMITS, STREAM, World, in_order, running, until


async def test_a_backlog_beyond_the_window_goes_out_once_in_order_and_memory_stays_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a stream that is away while far more is committed than the relay keeps in memory
    monkeypatch.setattr(module, "READ_AHEAD", 20)
    world = World()
    world.answer = lambda outbox_id: Published("down", "no_stream")
    async with running(world):
        for number in range(50):
            for entity in ("a", "b", "c", "d"):
                world.commit(f"{entity}.{number}")
            await asyncio.sleep(0.0005)
        await until(lambda: any(isinstance(message, PublishFailed) for message in world.told))
        assert len(world.relay._rows) <= 20
        assert world.relay.pending == 200
        # when the stream is back and more is committed all the while
        world.answer = lambda outbox_id: Published("ok")
        for number in range(50, 70):
            for entity in ("a", "b", "c", "d"):
                world.commit(f"{entity}.{number}")
            await asyncio.sleep(0.002)
        await until(lambda: len(set(world.acknowledged)) == 280 and world.relay.pending == 0)
        # then each row went out once, in its entity's order, and the relay follows without reading again
        assert in_order(world.acknowledged)
        assert len(world.acknowledged) == 280
        before = world.fetches
        world.commit("a.70", "b.70")
        await until(lambda: len(world.acknowledged) == 282)
        assert world.fetches == before


async def test_what_was_committed_before_the_start_goes_out_before_what_follows() -> None:
    # given a table with rows of an earlier life, read while turns of the same entity commit
    world = World()
    world.commit("a.0", "a.1", "b.0")
    world.commit("a.2")
    world.meanwhile = [f"a.{number}" for number in range(3, 9)]
    async with running(world):
        await until(lambda: len(world.sent) >= 10 and world.relay.pending == 0)
        world.commit("a.9", "b.1")
        await until(lambda: len(world.sent) >= 12)
        # then none is lost, sent twice or out of its order
        assert in_order(world.sent)
        await until(lambda: world.states() == {"published"})


async def test_a_row_whose_run_is_open_is_tried_alone_after_a_start_with_the_waits_it_had_come_to() -> None:
    world = World()
    world.commit("a.0")
    world.commit("b.0")
    world.table["a.0"]["attempts"] = 6
    world.stream = Stream(state="blocked", outbox_id="a.0", attempts=6)
    world.answer = lambda outbox_id: Published("down", "no_stream")
    async with running(world):
        await until(lambda: len([m for m in world.told if isinstance(m, PublishFailed)]) >= 2)
        assert world.sent[0] == "a.0"
        assert world.sent.count("b.0") <= world.sent.count("a.0"), "one other entity's, beside it"
        assert world.relay.breaker.failures >= 7
        assert [m.attempts for m in world.told if isinstance(m, PublishFailed)][:2] == [7, 8]
        world.answer = lambda outbox_id: Published("ok")
        await until(lambda: world.relay.pending == 0)
        (recovered,) = [m for m in world.told if isinstance(m, PublishRecovered)]
        assert recovered.outbox_id == "a.0"


async def test_the_row_whose_run_is_open_is_found_behind_one_whose_mark_was_lost() -> None:
    world = World()
    world.commit("a.0", "a.1", "a.2")
    world.stream = Stream(state="blocked", outbox_id="a.1", attempts=1)
    async with running(world):
        await until(lambda: world.relay.pending == 0)
        (recovered,) = [m for m in world.told if isinstance(m, PublishRecovered)]
        assert recovered.outbox_id == "a.1"
        assert world.sent == ["a.1", "a.0", "a.2"], "each once"


@pytest.mark.parametrize(("skip", "expected"), [(False, ["a.1", "a.2", "a.3", "a.4"]), (True, ["a.2", "a.3", "a.4"])])
async def test_behind_a_poisoned_row_its_entity_waits_until_an_operator_settles_it(
    skip: bool, expected: list[str]
) -> None:
    world = World()
    world.answer = lambda outbox_id: Published("poison" if outbox_id == "a.1" else "ok", "too_large")
    async with running(world):
        world.commit("a.0", "a.1", "a.2", "b.0")
        await until(lambda: any(isinstance(message, PublishPoisoned) for message in world.told))
        world.mark([OutboxMarkRow("a.1", "parked", 1, None)])
        world.commit("a.3", "b.1")
        await until(lambda: "b.1" in world.sent)
        assert not {"a.2", "a.3"} & set(world.sent)
        # when
        world.sent.clear()
        world.answer = lambda outbox_id: Published("ok")
        world.settle("a.1", skip)
        world.commit("a.4")
        # then
        await until(lambda: len(world.sent) == len(expected))
        assert world.sent == expected


async def test_a_stream_that_parks_event_after_event_is_blocked_before_its_state_grows_without_bound() -> None:
    world = World()
    world.answer = lambda _: Published("poison", "", "too large")
    world.commit(*(f"e{number}.0" for number in range(MOST_PARKED + 20)))
    async with running(world):
        await until(lambda: len(world.told) > MOST_PARKED)
        assert world.told[-1].message == "too large; 100 events are parked already"


async def test_what_follows_a_poisoned_row_is_not_read_on_before_its_parking_has_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a window that ends behind the poisoned row
    monkeypatch.setattr(module, "READ_AHEAD", 2)
    world = World()
    world.answer = lambda outbox_id: Published("poison" if outbox_id == "a.0" else "ok", "too_large")
    world.commit("a.0", "b.0", "a.1", "a.2", "b.1")
    async with running(world):
        # when the memory has drained and more is read while the row still stands as pending
        await until(lambda: world.fetches >= 6)
        assert not {"a.1", "a.2"} & set(world.sent)
        # then others go on as soon as it is parked
        world.mark([OutboxMarkRow("a.0", "parked", 1, None)])
        await until(lambda: "b.1" in world.sent)
        assert world.sent == ["a.0", "b.0", "b.1"]


async def test_after_a_start_an_entity_waits_behind_its_parked_row() -> None:
    world = World()
    world.commit("a.0", "a.1", "b.0")
    world.table["a.0"]["state"] = "parked"
    async with running(world):
        await until(lambda: world.sent == ["b.0"] and world.relay.pending == 0)
        world.commit("a.2", "b.1")
        await until(lambda: world.sent == ["b.0", "b.1"])


async def test_nothing_is_published_while_the_lease_is_old() -> None:
    world = World()
    world.fresh = False
    async with running(world):
        world.commit("a.0")
        await until(lambda: world.fetches >= 3)
        await asyncio.sleep(0.02)
        assert world.sent == []
        # when it is renewed and the stream refuses, then the stuck row waits for the lease too
        world.answer = lambda outbox_id: Published("down", "no_stream")
        world.fresh = True
        await until(lambda: len(world.sent) >= 2)
        world.fresh = False
        await asyncio.sleep(0.01)
        count = len(world.sent)
        await asyncio.sleep(0.02)
        assert len(world.sent) == count


async def test_a_publisher_that_raises_is_waited_out_like_an_outage() -> None:
    world = World()

    def broken(outbox_id: str) -> Published:
        raise ValueError("not JSON")

    world.answer = broken
    async with running(world):
        world.commit("a.0")
        world.commit("b.0")
        await until(lambda: len([m for m in world.told if isinstance(m, PublishFailed)]) >= 3)
        failed = [m for m in world.told if isinstance(m, PublishFailed)]
        assert {(m.outbox_id, m.code, m.message) for m in failed} == {("a.0", "internal", "ValueError: not JSON")}
        assert world.sent.count("b.0") <= 2, "only the oldest row is tried until the third time"
        world.answer = lambda outbox_id: Published("ok")
        await until(lambda: world.relay.pending == 0)


async def test_each_real_publish_counts_also_of_rows_refused_beside_the_oldest() -> None:
    world = World()
    world.answer = lambda outbox_id: Published("down", "no_stream")
    async with running(world):
        world.commit("a.0", "b.0", "c.0")
        await until(lambda: any(isinstance(message, PublishFailed) for message in world.told))
        await until(lambda: world.table["b.0"]["attempts"] >= world.table["c.0"]["attempts"] == 1)
        assert world.table["b.0"]["state"] == "pending"


async def test_a_database_that_is_away_delays_the_backlog_and_loses_nothing() -> None:
    world = World()
    world.database_away = True
    world.commit("a.0")
    async with running(world):
        await until(lambda: world.fetches >= 3)
        world.commit("a.1")
        world.database_away = False
        await until(lambda: len(world.sent) == 2)
        assert in_order(world.sent)


async def test_lag_is_looked_at_by_the_clock_and_not_at_each_event(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    look = Relay._check_lag

    def counted(relay: Relay) -> None:
        before = relay._look_at_us
        look(relay)
        looks.append(relay._look_at_us != before)

    monkeypatch.setattr(Relay, "_check_lag", counted)
    monkeypatch.setitem(LIMITS._values, "outbox_poll_ms", 60_000)
    world = World()
    async with running(world):
        for number in range(200):
            world.commit(f"a.{number}")
        await until(lambda: len(world.sent) == 200)
        assert sum(looks) == 1
        assert len(looks) > 20
    assert not [message for message in world.told if isinstance(message, Lag)]


async def test_an_operators_redispatch_is_the_next_try_now(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a stream that refuses, and a wait before the next try that no test lives to see
    world = World()
    monkeypatch.setattr(world.relay.breaker, "_waits", Backoff(3_600_000, 3_600_000))
    world.answer = lambda outbox_id: Published("down", "no_stream")
    async with running(world):
        world.commit("a.0")
        await until(lambda: any(isinstance(message, PublishFailed) for message in world.told))
        # when it is back and an operator says so, then it goes out at once
        world.answer = lambda outbox_id: Published("ok")
        world.relay._try_at_us = world._now() + 3_600_000_000  # whatever the jitter has made of it
        world.follow([], RedispatchOutbox(outbox_id="a.0", reason="the stream is back"))
        await until(lambda: world.acknowledged == ["a.0"])


def only(entity: str) -> Callable[[str], Published]:
    """A stream that takes everything but this entity's events."""
    return lambda name: Published("down" if name.partition(".")[0] == entity else "ok", "10077")


@pytest.mark.parametrize("oldest", [True, False])
async def test_a_row_that_alone_cannot_be_published_is_set_apart_and_the_stream_goes_on(
    oldest: bool,
) -> None:
    world = World()
    world.answer = only("bad")
    names = ["bad.0", "good.0"] if oldest else ["good.0", "bad.0"]
    world.commit(*names, "bad.1", "good.1")
    async with running(world):
        await until(lambda: any(isinstance(message, PublishSetApart) for message in world.told))
        for number in range(2, 50):
            world.commit(f"good.{number}")
        await until(lambda: "good.49" in world.acknowledged)
        assert "bad.1" not in world.sent, "what stands behind it waits"
        (apart,) = [message for message in world.told if isinstance(message, PublishSetApart)]
        assert apart.failed.outbox_id == "bad.0"
        assert apart.failed.attempts >= 3
        # when its trouble is over, it goes out by itself, and what waited behind it
        world.answer = lambda name: Published("ok")
        await until(lambda: "bad.1" in world.acknowledged)
    (recovered,) = [
        message for message in world.told if isinstance(message, PublishRecovered) and message.released == 1
    ]
    assert recovered.outbox_id == "bad.0"
    assert in_order(world.acknowledged)


async def test_a_stream_that_refuses_everybody_sets_nobody_apart() -> None:
    world = World()
    world.answer = lambda name: Published("down", "10077")
    world.commit("n1.0", "n2.0", "n3.0")
    async with running(world):
        await until(lambda: world.sent.count("n1.0") > 20)
        assert not any(isinstance(message, PublishSetApart) for message in world.told)
        assert world.sent.count("n2.0") > 3, "one other entity's oldest row is tried beside it"
        assert "n3.0" not in world.sent[10:]
        world.answer = lambda name: Published("ok")
        await until(lambda: len(world.acknowledged) == 3)


async def test_a_row_set_apart_is_known_after_a_restart() -> None:
    world = World()
    world.answer = only("bad")
    world.commit("bad.0", "bad.1", "good.0")
    world.stream = Stream(state="flowing", apart={"bad.0": "t:s"})
    relay = world.relay
    world.relay = Relay(relay._engine, world, STREAM, world._now, journal=relay._journal, may_act=lambda: True)
    async with running(world):
        await until(lambda: "good.0" in world.acknowledged and world.sent.count("bad.0") > 2)
        assert "bad.1" not in world.sent
        assert not any(isinstance(message, PublishSetApart) for message in world.told)
        # and an operator may give it up
        world.stream = Stream(state="flowing")
        world.settle("bad.0", skip=True)
        world.answer = lambda name: Published("ok")
        await until(lambda: "bad.1" in world.acknowledged)
        assert "bad.0" not in world.acknowledged


async def test_a_row_set_apart_is_tried_again_when_the_lease_is_fresh_again() -> None:
    # given nothing else that would have the relay look again, and a lease that was old when the try was due
    world = World()
    world.answer = only("bad")
    world.commit("bad.0", "good.0", "good.1")
    async with running(world):
        await until(lambda: any(isinstance(message, PublishSetApart) for message in world.told))
        world.fresh = False
        await until(lambda: not world.relay._rows)
        await asyncio.sleep(0.05)  # the relay has come to rest
        tried = world.sent.count("bad.0")
        world.answer = lambda name: Published("ok")
        world.fresh = True
        await until(lambda: world.sent.count("bad.0") > tried)


async def test_a_slow_try_of_a_row_set_apart_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a row set apart whose try never ends
    world, hung = World(), asyncio.Event()
    world.answer = only("bad")
    world.commit("bad.0", "good.0", "good.1")
    async with running(world):
        await until(lambda: any(isinstance(message, PublishSetApart) for message in world.told))
        publish = world.publish

        async def hanging(subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
            if message_id == "bad.0":
                hung.set()
                await asyncio.Event().wait()
            return await publish(subject, payload, message_id, trace)

        monkeypatch.setattr(world, "publish", hanging)
        await hung.wait()
        # when the stream refuses everybody for a while, then it is tried as ever
        world.answer = lambda name: Published("down", "no_stream")
        world.commit("good.2")
        await until(lambda: world.sent.count("good.2") >= 3)
        world.answer = lambda name: Published("ok")
        await until(lambda: "good.2" in world.acknowledged)


async def test_a_row_that_is_read_before_its_commit_is_carried_out_goes_out_once() -> None:
    # given a read at the start that sees a commit of which the relay hears only meanwhile: it is in the head already
    world, late = World(), list[tuple[Any, Any]]()
    follow = world.follow
    world.follow = lambda rows, message: late.append((rows, message))  # type: ignore[method-assign]
    world.commit("a.0", "b.0")
    world.follow = follow  # type: ignore[method-assign]
    look = world._look

    async def looked(found: Callable[[], Any]) -> Any:
        answer = await look(found)
        for rows, message in late:
            world.follow(rows, message)
        late.clear()
        return answer

    world._look = looked  # type: ignore[method-assign]
    async with running(world):
        await until(lambda: world.relay.pending == 0 and len(world.acknowledged) >= 2)
        world.commit("a.1")
        await until(lambda: len(world.acknowledged) >= 3)
    # then
    assert in_order(world.acknowledged)
    assert world.relay.published == 3
