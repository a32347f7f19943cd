"""A connection that the server has ended for good is reported; the driver does not seek it again."""

import asyncio

from adapters.nats import connection


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
    async with asyncio.timeout(10):
        assert "user authentication expired" in (await said).lower()
    assert client.is_closed
    server.close()
