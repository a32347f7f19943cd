"""Heartbeats are taken out of the wire however it is cut; all else is the driver's, and nobody speaks for another."""

import asyncio
from typing import Any

import pytest

from adapters.embedded.nats import EmbeddedNats
from adapters.nats import connection
from adapters.nats.agents import Heartbeats
from adapters.nats.beats import Beat, BeatParser
from tests.adapters.nats.driver import Driver
from tests.patience import PATIENCE_S


def message(node: str, data: bytes, subject: str = "amends.v1.hb", reply: str = "") -> bytes:
    return f"MSG {subject}.{node} 1 {reply}{len(data)}\r\n".encode() + data + b"\r\n"


SPOKEN_FOR = message("n9", b"not its own")
HEADERS = b"NATS/1.0\r\nA: b\r\n\r\n"
WIRE = b"".join((
    message("n1", b"one"), message("n2", b"\r\nPING\r\n"), b"PING\r\n", message("n3", b"", reply="_INBOX.a "),
    message("n4", SPOKEN_FOR), message("x", SPOKEN_FOR, subject="other"), message("n5", b"five"),
    b"HMSG amends.v1.hb.n6 1 %d %d\r\n%b%b\r\n" % (len(HEADERS), len(HEADERS + SPOKEN_FOR), HEADERS, SPOKEN_FOR),
    b"PING\r\n", message("n7", b"seven"),
))  # fmt: skip
BEATS = [
    (b"n1", b"one"), (b"n2", b"\r\nPING\r\n"), (b"n3", b""), (b"n4", SPOKEN_FOR), (b"n5", b"five"), (b"n7", b"seven"),
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 64, 1000])
async def test_heartbeats_are_taken_out_whole_however_the_wire_is_cut(size: int) -> None:
    found: list[Beat] = []
    driver = Driver()
    parser = BeatParser(driver, found.extend)
    for start in range(0, len(WIRE), size):
        await parser.parse(WIRE[start : start + size])
    assert found == BEATS
    assert (driver.messages, driver.pings) == ([(b"other.x", SPOKEN_FOR), (b"amends.v1.hb.n6", SPOKEN_FOR)], 2)


async def test_what_one_connection_left_unfinished_is_not_joined_to_the_next_one() -> None:
    found: list[Beat] = []
    parser = BeatParser(Driver(), found.extend)
    await parser.parse(message("n1", b"one")[:-4])
    parser.reset()
    await parser.parse(message("n2", b"two"))
    assert found == [(b"n2", b"two")]


async def test_a_connection_made_for_heartbeats_hands_them_on_many_at_once(server: EmbeddedNats) -> None:
    calls: list[Any] = []
    heartbeats = Heartbeats(calls.append)
    client = await connection.connect([server.url], name="test", dropped=heartbeats.drop, beats=heartbeats.take)
    await heartbeats.start(client)
    await client.flush()
    for number in range(100):
        await client.publish(f"amends.v1.hb.n{number}", b'{"boot_id":"b","seq":1,"sent_us":1,"proto":2}')
    await client.publish("amends.v1.hb.n100", b'{"boot_id":"b","seq":1,"sent_us":1}', headers={"A": "b"})
    async with asyncio.timeout(PATIENCE_S):
        while heartbeats.received < 101:
            await client.flush()
    assert sorted(beat for call in calls for beat in call) == sorted((f"n{number}", "b") for number in range(101))
    assert len(calls) < 50
    assert heartbeats.malformed == 0
    await connection.close(client)
