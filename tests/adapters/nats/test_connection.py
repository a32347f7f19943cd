"""A connection that the server has ended for good is reported; the driver does not seek it again."""

import asyncio
import os
import shutil
import signal
from typing import Any

import nkeys  # type: ignore[import-untyped]
import pytest

from adapters.embedded.nats import EmbeddedNats
from adapters.nats import connection
from adapters.nats.permissions import configuration
from amends.values.errors import BadConfiguration, Unavailable
from supervisors.nats_options import nats_options
from supervisors.settings import load
from tests.directories import scratch
from tests.patience import PATIENCE_S


async def test_a_server_s_final_word_is_passed_on() -> None:
    speak = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1024,"headers":true}\r\n')
        while b"PING" not in await reader.readline():
            continue
        writer.write(b"PONG\r\n")
        await speak.wait()
        writer.write(b"-ERR 'User Authentication Expired'\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    said: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = await connection.connect([url], name="test", closed=said.set_result)
    speak.set()
    async with asyncio.timeout(PATIENCE_S):
        assert "user authentication expired" in (await said).lower()
    assert client.is_closed
    server.close()


async def test_an_outage_is_one_line_when_it_comes_and_one_when_it_ends(
    server: EmbeddedNats, caplog: pytest.LogCaptureFixture
) -> None:
    # given a connection whose server is killed and stays away for a while
    client = await connection.connect([server.url], name="test")
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        while client.is_connected:
            await asyncio.sleep(0.01)
    await asyncio.sleep(2)
    await server.start()
    async with asyncio.timeout(PATIENCE_S):
        while not client.is_connected:
            await asyncio.sleep(0.01)
    await client.flush()
    # then
    lines = [record.getMessage() for record in caplog.records if record.name == "amends.nats"]
    assert sum("is lost" in line for line in lines) == 1
    assert sum("is back after" in line for line in lines) == 1
    assert len(lines) == len(set(lines)) <= 5, lines
    await client.close()


async def test_a_server_that_refuses_us_is_not_said_to_be_away() -> None:
    base = scratch("amends-nats-")
    server = EmbeddedNats(base, config_extra=configuration({"runtime": "secret"}))
    await server.start()
    try:
        wrong: list[tuple[dict[str, Any], str]] = [
            ({}, "without a user"),
            ({"user": "runtime", "password": "wrong"}, "'runtime'"),
        ]
        for options, who in wrong:
            with pytest.raises(BadConfiguration, match=r"(?i)authorization violation") as refused:
                await connection.connect([server.url], name="test", **options)
            assert who in str(refused.value)
            assert "cannot be reached" not in str(refused.value)
            assert "wrong" not in str(refused.value)
    finally:
        await server.stop()
        shutil.rmtree(base)


async def test_what_comes_faster_than_it_is_read_is_dropped_and_counted(server: EmbeddedNats) -> None:
    dropped: list[str] = []
    client = await connection.connect([server.url], name="test", dropped=dropped.append)
    held = asyncio.Event()

    async def slow(message: Any) -> None:
        await held.wait()

    await client.subscribe("beats", cb=slow, pending_msgs_limit=2)
    for _ in range(20):
        await client.publish("beats", b"")
    async with asyncio.timeout(PATIENCE_S):
        while len(dropped) < 10:
            await client.flush()
    assert set(dropped) == {"beats"}
    held.set()
    await connection.close(client)


async def test_a_server_that_wants_a_signature_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    base = scratch("amends-nkey-")
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    pair = nkeys.from_seed(bytearray(seed))
    file = base / "seed"
    file.write_bytes(bytes(seed))
    users = f'authorization {{ users = [ {{ nkey: "{bytes(pair.public_key).decode()}" }} ] }}'
    server = EmbeddedNats(base / "state", config_extra=users)
    await server.start()
    try:
        options = nats_options(load(None, {"AMENDS_NATS_NKEY_SEED_FILE": str(file)}))
        client = await connection.connect([server.url], name="test", **options)
        await client.flush()
        await client.close()
        with pytest.raises((BadConfiguration, Unavailable)):
            await connection.connect([server.url], name="test")
    finally:
        await server.stop()
        shutil.rmtree(base)
