"""One contract for the bus port, on a real NATS server and on the simulated bus."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import Struct
from nats.aio.client import Client

from adapters.nats.publishing import JetStreamPublisher
from adapters.simulated.bus import BusConnection, SimulatedBus
from amends.ports.bus import NOT_TOGETHER, TOGETHER_AT_MOST, BatchPublisher, Outgoing, Published

EVENT, NOTICE = "amends.v1.evt.node.n1.ready", "amends.v1.ntf.account.acme.allocation.active"


class Bench(Struct):
    """A publisher, what its stream of events holds, and hands that do things to it."""

    publisher: BatchPublisher
    held: Callable[[], Awaitable[list[bytes]]]
    delete: Callable[[], Awaitable[object]]
    create: Callable[[], Awaitable[list[str]]]
    purge: Callable[[], Awaitable[object]]
    fill: Callable[[], Awaitable[object]]  # it takes nothing new any more
    free: Callable[[], Awaitable[object]]
    one_by_one: Callable[[], Awaitable[object]]  # its stream takes no batches

    async def publish(self, message_id: str, subject: str = EVENT) -> Published:
        return await self.publisher.publish(subject, message_id.encode(), message_id, ("t" * 32, "s" * 16))

    async def together(self, *message_ids: str) -> Published:
        return await self.publisher.publish_together(
            [Outgoing(EVENT, message_id.encode(), message_id, ("t" * 32, "s" * 16)) for message_id in message_ids]
        )


@pytest.fixture
async def simulated() -> Bench:
    bus = SimulatedBus()
    connection = BusConnection(bus)

    async def held() -> list[bytes]:
        return [stored.payload for stored in bus.streams["AMENDS_EVT"]]

    async def delete() -> None:
        bus.delete("AMENDS_EVT")

    async def purge() -> None:
        bus.purge("AMENDS_EVT")

    async def fill() -> None:
        bus.full.add("AMENDS_EVT")

    async def free() -> None:
        bus.full.clear()

    async def one_by_one() -> None:
        bus.together = False

    return Bench(connection, held, delete, connection.create_streams, purge, fill, free, one_by_one)


@pytest.fixture
async def real(client: Client) -> Bench:
    publisher, stream = JetStreamPublisher(client), client.jetstream()
    await publisher.create_streams()

    async def held() -> list[bytes]:
        state = (await stream.stream_info("AMENDS_EVT")).state
        numbers = range(max(state.first_seq, 1), state.last_seq + 1)
        return [(await stream.get_msg("AMENDS_EVT", number)).data or b"" for number in numbers]

    async def update(**changes: Any) -> None:
        """Straight to the server: the driver would drop what it does not know of a stream."""
        config = json.loads((await client.request("$JS.API.STREAM.INFO.AMENDS_EVT")).data)["config"]
        await client.request("$JS.API.STREAM.UPDATE.AMENDS_EVT", json.dumps({**config, **changes}).encode())

    async def at_most(count: int) -> None:
        await update(discard="new", max_msgs=count)

    async def fill() -> None:
        await at_most((await stream.stream_info("AMENDS_EVT")).state.messages)

    return Bench(
        publisher, held, lambda: stream.delete_stream("AMENDS_EVT"), publisher.create_streams,
        lambda: stream.purge_stream("AMENDS_EVT"), fill, lambda: at_most(-1), lambda: update(allow_atomic=False),
    )  # fmt: skip


@pytest.fixture(params=["real", "simulated"])
def bench(request: pytest.FixtureRequest) -> Bench:
    found: Bench = request.getfixturevalue(request.param)
    return found


async def test_what_is_acknowledged_is_held_in_its_order_and_a_repeat_is_known(bench: Bench) -> None:
    assert [(await bench.publish(name)).kind for name in ("evt_2", "evt_1")] == ["ok", "ok"]
    assert (await bench.publish("evt_2")).kind == "duplicate"
    assert (await bench.publish("ntf_1", NOTICE)).kind == "ok"
    assert await bench.held() == [b"evt_2", b"evt_1"]


async def test_a_stream_that_is_gone_takes_nothing_and_made_again_is_empty(bench: Bench) -> None:
    await bench.publish("evt_1")
    await bench.delete()
    refused = await bench.publish("evt_2")
    assert (refused.kind, refused.code) == ("down", "no_stream")
    assert (await bench.publish("ntf_1", NOTICE)).kind == "ok"
    assert await bench.create() == ["AMENDS_EVT"]
    assert await bench.create() == []
    assert (await bench.publish("evt_2")).kind == "ok"
    assert await bench.held() == [b"evt_2"]


async def test_a_stream_that_is_emptied_still_knows_what_it_has_seen(bench: Bench) -> None:
    await bench.publish("evt_1")
    await bench.purge()
    assert (await bench.publish("evt_1")).kind == "duplicate"
    assert (await bench.publish("evt_2")).kind == "ok"
    assert await bench.held() == [b"evt_2"]


async def test_a_full_stream_is_the_bus_s_trouble_and_no_message_s(bench: Bench) -> None:
    await bench.publish("evt_1")
    await bench.fill()
    refused = await bench.publish("evt_2")
    assert (refused.kind, refused.code) == ("down", "jetstream_10077")
    assert (await bench.publish("evt_1")).kind == "duplicate"
    await bench.free()
    assert (await bench.publish("evt_2")).kind == "ok"
    assert await bench.held() == [b"evt_1", b"evt_2"]


async def test_what_is_published_together_is_held_in_its_order(bench: Bench) -> None:
    assert (await bench.publish("evt_0")).kind == "ok"
    assert await bench.together("evt_2", "evt_1") == Published("ok")
    assert await bench.together("evt_3") == Published("ok")
    assert await bench.held() == [b"evt_0", b"evt_2", b"evt_1", b"evt_3"]
    assert (await bench.publish("evt_1")).kind == "duplicate"


async def test_as_many_as_may_be_go_together(bench: Bench) -> None:
    names = [f"evt_{number}" for number in range(TOGETHER_AT_MOST)]
    assert await bench.together(*names) == Published("ok")
    assert len(await bench.held()) == TOGETHER_AT_MOST


@pytest.mark.parametrize("again", [0, 1, 2])
async def test_with_a_repeat_among_them_none_is_taken(bench: Bench, again: int) -> None:
    await bench.publish("evt_0")
    names = ["evt_1", "evt_2", "evt_3"]
    names[again] = "evt_0"
    refused = await bench.together(*names)
    assert (refused.kind, refused.code) == ("down", "jetstream_10201")
    assert await bench.held() == [b"evt_0"]
    fresh = [name for name in names if name != "evt_0"]
    assert [(await bench.publish(name)).kind for name in fresh] == ["ok", "ok"]


async def test_a_stream_that_is_gone_or_full_takes_nothing_together(bench: Bench) -> None:
    await bench.publish("evt_1")
    await bench.fill()
    assert (await bench.together("evt_2", "evt_3")).kind == "down"
    assert await bench.held() == [b"evt_1"]
    await bench.delete()
    refused = await bench.together("evt_2", "evt_3")
    assert (refused.kind, refused.code) == ("down", "no_stream")
    await bench.create()
    assert await bench.together("evt_2", "evt_3") == Published("ok")


async def test_a_stream_that_takes_them_one_by_one_says_so(bench: Bench) -> None:
    await bench.one_by_one()
    refused = await bench.together("evt_1", "evt_2")
    assert (refused.kind, refused.code) == ("down", NOT_TOGETHER)
    assert await bench.held() == []
    assert (await bench.publish("evt_1")).kind == "ok"
