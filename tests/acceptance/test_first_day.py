"""docs/first-day.md as it stands: its files written, its lines typed, on two machines with stock sshds."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.postgres import EmbeddedPostgres
from adapters.nats.permissions import configuration
from tests.acceptance.box import Box
from tests.adapters.ssh.machines import why_no_openssh

PAGE = Path(__file__).parents[2] / "docs" / "first-day.md"
BLOCK = re.compile(r"<!-- (.+?) -->\n```\w*\n(.*?)```", re.DOTALL)
WITHIN_S = 60.0


class Day:
    """The page's working directory, its servers and machines, and what runs in the background."""

    def __init__(self, base: Path) -> None:
        self.base, self.work = base, base / "work"
        self.work.mkdir()
        self.postgres, self.broker = EmbeddedPostgres(base / "servers"), EmbeddedNats(base / "servers")
        self.boxes: dict[str, Box] = {}
        self.running: dict[str, asyncio.subprocess.Process] = {}
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("AMENDS_")}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    async def servers(self, users: str) -> None:
        """The page's Postgres, and its NATS with the page's own users."""
        self.broker = EmbeddedNats(self.base / "servers", config_extra=users)
        await self.postgres.start()
        await self.broker.start()

    def here(self, text: str) -> str:
        """The page's text with the addresses of this machine."""
        text = text.replace("postgresql://amends:secret@db.example/amends", self.postgres.dsn)
        text = text.replace("nats://nats.example:4222", self.broker.url)
        for name, box in self.boxes.items():
            text = text.replace(f"--host {name}.example --port 22", f"--host 127.0.0.1 --port {box.port}")
        return text

    async def machines(self) -> None:
        """Two machines whose root takes the page's key."""
        key = (self.work / "client_key.pub").read_text().strip()
        for name in ("paris-1", "oslo-1"):
            box = self.boxes[name] = Box(self.base / name, key)
            await box.ready()
            (self.work / f"{name}.pub").write_text(box.host_key + "\n")

    async def type_in(self, block: str) -> None:
        """Type the lines behind `$`; what is said must be what stands below them."""
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            if command.startswith("export "):
                pairs = (pair.partition("=") for pair in self.here(command).split()[1:])
                self.environment |= {name: value for name, _, value in pairs}
                continue
            process = await asyncio.create_subprocess_exec(
                "bash", "-c", self.here(command), cwd=self.work, env=self.environment, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            async with asyncio.timeout(WITHIN_S):
                said = (await process.communicate())[0].decode()
            check_said(command, expected, said)

    async def start(self, name: str, block: str) -> None:
        """Start a program that stays, and wait for the line that stands below it."""
        command, _, expected = block.removeprefix("$ ").partition("\n")
        with (self.work / f"{name}.log").open("wb") as log:
            self.running[name] = await asyncio.create_subprocess_exec(
                *command.split(), cwd=self.work, env=self.environment, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        await self.goes_on(name, expected)

    async def goes_on(self, name: str, expected: str) -> None:
        """Wait for the next line of a program that stays."""
        stdout = self.running[name].stdout
        assert stdout is not None
        async with asyncio.timeout(WITHIN_S):
            line = (await stdout.readline()).decode()
        assert line == expected, (self.work / f"{name}.log").read_text()[-3000:]

    async def stop(self) -> None:
        for process in self.running.values():
            if process.returncode is None:
                process.kill()
                await process.wait()
        for box in self.boxes.values():
            box.stop()
        await self.broker.stop()
        await self.postgres.stop()


def check_said(command: str, expected: str, said: str) -> None:
    """Each line of the page stands in what was said, in order; `…` is anything, a line of it any lines."""
    place = 0
    lines = [" ".join(line.split()) for line in said.splitlines()]  # columns are as wide as what stands in them
    if "…" not in expected.splitlines():
        assert len(lines) == len(expected.splitlines()), f"$ {command}\n{said}"
    for line in expected.splitlines():
        if line == "…":
            continue
        pattern = re.compile(re.escape(" ".join(line.split())).replace("…", ".*"))
        found = next((n for n in range(place, len(lines)) if pattern.fullmatch(lines[n])), None)
        assert found is not None, f"$ {command}\nmissing: {line}\n{said}"
        place = found + 1


@pytest.fixture
async def day(state_dir: Path) -> AsyncIterator[Day]:
    if why := why_no_openssh():
        pytest.skip(why)
    state_dir.mkdir(exist_ok=True)
    made = Day(state_dir)
    yield made
    await made.stop()


async def test_the_first_day_is_as_the_page_tells_it(day: Day) -> None:
    for what, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        kind, _, name = what.partition(": ")
        if what == "file: users.conf":
            await day.servers(text)
        if kind == "file":
            (day.work / name).write_text(day.here(text))
        elif kind == "type":
            await day.type_in(text)
            if not day.boxes and (day.work / "client_key").exists():
                await day.machines()
        elif kind == "start":
            await day.start(name, text)
        elif kind == "goes on":
            await day.goes_on(name, text)
        else:
            assert kind == "on"
            day.boxes[name].run(
                "env", *day.here(text.removeprefix("$ ")).replace("amends agent", f"{PROGRAM} agent").split()
            )


PROGRAM = Path(sys.executable).parent / "amends"


def test_the_pages_users_are_those_of_the_permissions() -> None:
    passwords = {"runtime": "runtime-secret", "front": "front-secret", "operator": "operator-secret",
                 "node-paris-1": "paris-secret", "node-oslo-1": "oslo-secret"}  # fmt: skip
    block = configuration({name: f'"{password}"' for name, password in passwords.items()})
    assert f"```\n{block}```" in PAGE.read_text(encoding="utf-8")
