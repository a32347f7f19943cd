"""The demo as a newcomer runs it: what it prints, what it leaves, and that its exit status can be another than 0."""

import asyncio
import json
import os
import random
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from supervisors.matrix import ROWS

WITHIN_S = 120
TRACES = "amends-demo-traces.json"


@asynccontextmanager
async def started(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`amends demo …` in `folder`; killed if the test leaves it running."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "supervisors.boot", "demo", *arguments),
        cwd=folder,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def demo(folder: Path, *arguments: str, **environment: str) -> tuple[int | None, str]:
    """Its exit status and all it said."""
    async with started(folder, *arguments, **environment) as process, asyncio.timeout(WITHIN_S):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def told(process: asyncio.subprocess.Process, text: str) -> None:
    """Read what it says until `text` is in a line."""
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN_S):
        while text not in (line := (await process.stdout.readline()).decode()):
            assert line, f"it ended without a word of {text!r}"


def left_running(state_dir: Path) -> list[str]:
    """Command lines of processes that work below `state_dir`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if str(state_dir) in line:
            found.append(line)
    return found


async def test_the_whole_story_ends_as_the_matrix_says(state_dir: Path) -> None:
    folder = state_dir.parent
    status, said = await demo(folder, "--state-dir", str(state_dir))
    assert status == 0, said
    assert "\x1b" not in said, "plain text without a terminal"
    assert "✗" not in said
    built = [row.id for row in ROWS if row.status == "built"]
    board = said.partition("── The board")[2]
    assert [row for row in built if not re.search(rf"^  {row} .* recovered ", board, re.MULTILINE)] == []
    assert "lost: nothing; doubled: nothing" in said
    assert "0 violations" in said
    traces = json.loads((folder / TRACES).read_text())["data"]
    names = {span["operationName"] for trace in traces for span in trace["spans"]}
    assert [row for row in built if not any(name.startswith(f"recovery {row} ") for name in names)] == []
    log = (state_dir / "nats" / "server.log").read_text()
    assert "Permissions Violation" not in log
    assert "Authorization Violation" not in log
    assert left_running(state_dir) == []


@pytest.mark.parametrize("scene", ["R01", "R03", "kill -9", "What retries cannot settle"])
async def test_killed_in_the_middle_it_starts_again_on_what_is_there(state_dir: Path, scene: str) -> None:
    arguments = ("--state-dir", str(state_dir), "--nodes", "5")
    async with started(state_dir.parent, *arguments) as process:
        await told(process, f"── {scene}")
        await asyncio.sleep(random.uniform(0, 0.2))  # anywhere in the scene
        os.kill(process.pid, signal.SIGKILL)
        await process.communicate()
    status, said = await demo(state_dir.parent, *arguments)
    assert status == 0, said
    assert left_running(state_dir) == []


async def test_a_terminal_that_knows_few_letters_is_no_reason_to_fail(state_dir: Path) -> None:
    arguments = ("--state-dir", str(state_dir), "--nodes", "2", "--row", "R02")
    status, said = await demo(state_dir.parent, *arguments, PYTHONIOENCODING="ascii")
    assert status == 0, said
    assert "R02" in said
    assert "R03" not in said


async def test_what_does_not_end_as_the_matrix_says_is_said_and_ends_with_one(state_dir: Path) -> None:
    arguments = ("--state-dir", str(state_dir), "--nodes", "2")
    async with started(state_dir.parent, *arguments) as process:
        await told(process, "── One rental")
        (fleet,) = [
            int(child)
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if b"supervisors.fleet" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        os.kill(fleet, signal.SIGKILL)
        assert process.stdout is not None
        async with asyncio.timeout(WITHIN_S):
            said = (await process.stdout.read()).decode()
        assert await process.wait() == 1, said
    assert "✗" in said
    assert "Traceback" not in said
    assert left_running(state_dir) == []


@pytest.mark.parametrize(
    ("arguments", "word"), [(["--row", "R99"], "R99"), (["--nodes", "none"], "none"), (["--row", "R05"], "R05")]
)
async def test_wrong_arguments_are_a_question_of_usage(state_dir: Path, arguments: list[str], word: str) -> None:
    status, said = await demo(state_dir.parent, *arguments)
    assert (status, word in said, "Traceback" in said) == (2, True, False), said
    assert list(state_dir.parent.iterdir()) == []
