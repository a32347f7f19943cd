"""The embedded NATS, started for real: JetStream on disk, the same port again, nothing lost by kills."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import nats
import pytest

from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.ownership import processes_in
from adapters.embedded.ports import EPHEMERAL, free_port, is_free, stable_range
from adapters.embedded.process import ServerFailed
from tests.patience import PATIENCE_S

OWNER = Path(__file__).with_name("owner.py")


async def publish(url: str, *, first: bool = False) -> int:
    """Publish one message and say how many the stream holds then."""
    client = await nats.connect(url)
    stream = client.jetstream()
    if first:
        await stream.add_stream(name="KEPT", subjects=["kept"])
    acknowledged = await stream.publish("kept", b"x")
    await client.close()
    return acknowledged.seq


async def test_it_serves_jetstream_on_loopback_and_syncs_always(state_dir: Path) -> None:
    server = EmbeddedNats(state_dir)
    await server.start()
    assert await publish(server.url, first=True) == 1
    async with aiohttp.ClientSession() as session, session.get(f"{server.monitoring_url}/varz") as reply:
        varz = await reply.json()
    await server.stop()
    assert varz["host"] == "127.0.0.1"
    assert varz["jetstream"]["config"]["sync_always"] is True
    assert varz["max_payload"] == 1024 * 1024


async def test_after_kill_nine_of_the_server_the_port_and_the_messages_are_the_same(state_dir: Path) -> None:
    server = EmbeddedNats(state_dir)
    await server.start()
    url = server.url
    await publish(url, first=True)
    for number in (2, 3):
        os.kill(server.pid, signal.SIGKILL)
        while server.alive():
            await asyncio.sleep(0.01)
        await server.start()
        assert server.url == url
        assert await publish(url) == number
    await server.stop()
    await server.stop()
    assert not server.alive()


async def test_kill_nine_of_the_parent_ends_the_server_and_the_next_start_keeps_the_port(
    state_dir: Path,
) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, str(OWNER), "nats", str(state_dir), "stay"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    url = (await parent.stdout.readline()).decode().split()[1]
    await publish(url, first=True)
    parent.kill()
    await parent.wait()
    server = EmbeddedNats(state_dir)
    await server.start()
    assert processes_in(state_dir / "nats", "nats-server").keys() == {server.pid}
    assert server.url == url
    assert await publish(url) == 2
    await server.stop()


async def test_a_port_taken_by_somebody_else_costs_the_port_and_not_the_start(state_dir: Path) -> None:
    server = EmbeddedNats(state_dir)
    await server.start()
    port = int(server.url.rpartition(":")[2])
    await server.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        await server.start()
        assert int(server.url.rpartition(":")[2]) != port
    await server.stop()


async def test_the_port_is_none_that_the_kernel_hands_out_while_the_server_is_down(state_dir: Path) -> None:
    server = EmbeddedNats(state_dir)
    await server.start()
    port = int(server.url.rpartition(":")[2])
    await server.stop()
    lowest, highest = map(int, EPHEMERAL.read_text().split())
    assert not lowest <= port <= highest
    assert port in stable_range()


async def test_without_room_below_the_ephemeral_range_a_port_is_found_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = tmp_path / "range"
    wide.write_text("1024\t65535\n")
    for file in (wide, tmp_path / "missing"):
        monkeypatch.setattr("adapters.embedded.ports.EPHEMERAL", file)
        assert is_free(free_port())


async def test_two_run_beside_each_other_and_share_nothing(state_dir: Path) -> None:
    one, two = EmbeddedNats(state_dir / "one"), EmbeddedNats(state_dir / 'a "quoted" ü')
    await asyncio.gather(one.start(), two.start())
    assert one.url != two.url
    assert await publish(one.url, first=True) == 1
    assert await publish(two.url, first=True) == 1
    await asyncio.gather(one.stop(), two.stop())


async def test_a_second_owner_of_the_same_directory_is_refused_and_ends_nothing(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.embedded.ownership.PATIENCE_S", 0.1)
    first = EmbeddedNats(state_dir)
    await first.start()
    with pytest.raises(ServerFailed, match="in use by the process"):
        await EmbeddedNats(state_dir).start()
    assert first.alive()
    await first.stop()


async def test_extra_configuration_is_used(state_dir: Path) -> None:
    server = EmbeddedNats(state_dir, config_extra='authorization { user: "u", password: "p" }\n')
    await server.start()
    client = await nats.connect(server.url, user="u", password="p")
    await client.close()
    assert (state_dir / "nats" / "server.conf").stat().st_mode & 0o077 == 0
    await server.stop()


async def test_variables_that_the_extra_configuration_names_come_from_our_environment(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_PASSWORD", "secret-1")
    monkeypatch.setenv("OF_NO_CONCERN", "secret-2")
    extra = "authorization { users: [ { user: runtime, password: $RUNTIME_PASSWORD } ] }\n"
    server = EmbeddedNats(state_dir, config_extra=extra)
    await server.start()
    client = await nats.connect(server.url, user="runtime", password="secret-1")
    await client.close()
    assert b"secret-2" not in Path(f"/proc/{server.pid}/environ").read_bytes()
    await server.stop()
    monkeypatch.delenv("RUNTIME_PASSWORD")
    with pytest.raises(ServerFailed, match="RUNTIME_PASSWORD"):
        await EmbeddedNats(state_dir, config_extra=extra).start()


async def test_somebody_s_shell_in_the_directory_neither_stops_a_start_nor_is_ended(state_dir: Path) -> None:
    home = state_dir / "nats"
    home.mkdir(parents=True)
    (home / "server.log").touch()
    reading = await asyncio.create_subprocess_exec("tail", "-f", str(home / "server.log"), cwd=home, stdout=-3)
    server = EmbeddedNats(state_dir)
    async with asyncio.timeout(PATIENCE_S):
        await server.start()
    assert reading.returncode is None
    reading.kill()
    await reading.wait()
    await server.stop()


async def test_an_owner_that_drains_is_waited_for(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.embedded.ownership.PATIENCE_S", 0.0)
    first, second = EmbeddedNats(state_dir), EmbeddedNats(state_dir, drain_s=30)
    await first.start()
    taking_over = asyncio.create_task(second.start())
    await asyncio.sleep(0)
    assert not taking_over.done()
    await first.stop()
    await taking_over
    await second.stop()


async def test_a_wrong_configuration_fails_with_the_log_and_frees_the_directory(state_dir: Path) -> None:
    with pytest.raises(ServerFailed, match=r"did not start(.|\n)*server\.log(.|\n)*no_such_option"):
        await EmbeddedNats(state_dir, config_extra="no_such_option: 1\n").start()
    server = EmbeddedNats(state_dir)
    with pytest.raises(ServerFailed, match="has not been started"):
        _ = server.url
    await server.start()
    await server.stop()
