"""Embedded servers that die: started again for ever, and the end of the runtime only where they come back elsewhere.

And where the command line of the machine is told to find NATS.
"""

import asyncio
from pathlib import Path

import msgspec
import pytest

from adapters.embedded.process import ServerFailed
from amends.values.backoff import Backoff
from amends.values.errors import BadConfiguration, Unavailable
from supervisors.boot import servers
from supervisors.boot.servers import Servers, check_users, watched
from supervisors.settings import NatsSettings, Settings
from tests.patience import PATIENCE_S


class Dead:
    """A server that has died, and comes back with the try of that number."""

    def __init__(self, comes_back_with: int, at: str) -> None:
        self.address, self._at, self._needed = "here", at, comes_back_with
        self.tries = 0
        self.back = asyncio.Event()

    async def start(self) -> None:
        self.tries += 1
        if self.tries < self._needed:
            raise ServerFailed("the disk is full")
        self.address = self._at
        self.back.set()

    async def stop(self) -> None:
        self.back.clear()

    def alive(self) -> bool:
        return self.back.is_set()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "WATCH_S", 0.001)
    monkeypatch.setattr(servers, "AGAIN", Backoff(1, 2))


async def test_a_server_that_does_not_come_back_is_tried_until_it_does(caplog: pytest.LogCaptureFixture) -> None:
    server = Dead(comes_back_with=20, at="here")
    watching = asyncio.create_task(watched("NATS", server, lambda: server.address)())
    async with asyncio.timeout(PATIENCE_S):
        await server.back.wait()
    assert not watching.done()
    assert "attempt 19: the disk is full" in caplog.text
    watching.cancel()


async def test_a_server_that_comes_back_elsewhere_ends_its_watcher() -> None:
    server = Dead(comes_back_with=2, at="there")
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(Unavailable, match="at there instead of here"):
            await watched("NATS", server, lambda: server.address)()


async def test_users_that_nats_cannot_read_are_said_by_its_own_word(tmp_path: Path) -> None:
    file = tmp_path / "users.conf"
    settings = Settings(nats=NatsSettings(users_file=str(file)))
    file.write_text("authorization { users = [ { user: a, password: b } ] }\n")
    await check_users(settings)
    file.write_text("authorization {\n users = [ { user: a, password: b, nonsense: 5 } ] }\n")
    with pytest.raises(BadConfiguration, match=r"users_file cannot be meant: .*users\.conf:2:.* unknown field"):
        await check_users(settings)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "nats://here:1"),
        ({"user": "runtime", "password": "secret"}, "nats://here:1"),
        ({"operator_user": "opera tor", "operator_password": "p@ss"}, "nats://opera%20tor:p%40ss@here:1"),
        (
            {"operator_user": "operator", "operator_password": "p", "servers": ["nats://a:b@here:1"]},
            "nats://a:b@here:1",
        ),
    ],
)
def test_of_servers_that_are_named_the_command_line_is_told_the_operators_way_in_only_where_it_is_named(
    more: dict[str, object], expected: str, tmp_path: Path
) -> None:
    settings = Settings(nats=msgspec.convert({"servers": ["nats://here:1"], **more}, NatsSettings))
    assert Servers(settings, tmp_path).local_nats_url == expected
