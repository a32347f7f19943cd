"""One contract for the bus port, on a real NATS server and on the simulated bus."""

from collections.abc import Awaitable, Callable

import pytest
from msgspec import Struct
from nats.aio.client import Client
from nats.js.api import DiscardPolicy

from adapters.nats.publishing import JetStreamPublisher
from adapters.simulated.bus import BusConnection, SimulatedBus
from amends.ports.bus import Published, Publisher

EVENT, NOTICE = "amends.v1.evt.node.n1.ready", "amends.v1.ntf.account.acme.allocation.active"


class Bench(Struct):
    """A publisher, what its stream of events holds, and hands that do things to it."""

    publisher: Publisher
    held: Callable[[], Awaitable[list[bytes]]]
    delete: Callable[[], Awaitable[object]]
    create: Callable[[], Awaitable[list[str]]]
    purge: Callable[[], Awaitable[object]]
    fill: Callable[[], Awaitable[object]]  # it takes nothing new any more
    free: Callable[[], Awaitable[object]]

    async def publish(self, message_id: str, subject: str = EVENT) -> Published:
        return await self.publisher.publish(subject, message_id.encode(), message_id, ("t" * 32, "s" * 16))


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

    return Bench(connection, held, delete, connection.create_streams, purge, fill, free)


@pytest.fixture
async def real(client: Client) -> Bench:
    publisher, stream = JetStreamPublisher(client), client.jetstream()
    await publisher.create_streams()

    async def held() -> list[bytes]:
        state = (await stream.stream_info("AMENDS_EVT")).state
        numbers = range(max(state.first_seq, 1), state.last_seq + 1)
        return [(await stream.get_msg("AMENDS_EVT", number)).data or b"" for number in numbers]

    async def at_most(count: int) -> None:
        config = (await stream.stream_info("AMENDS_EVT")).config
        await stream.update_stream(config, discard=DiscardPolicy.NEW, max_msgs=count)

    async def fill() -> None:
        await at_most((await stream.stream_info("AMENDS_EVT")).state.messages)

    return Bench(
        publisher, held, lambda: stream.delete_stream("AMENDS_EVT"), publisher.create_streams,
        lambda: stream.purge_stream("AMENDS_EVT"), fill, lambda: at_most(-1),
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
