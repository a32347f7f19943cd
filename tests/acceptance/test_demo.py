"""The demo as a newcomer runs it: what it prints, what it leaves, and that its exit status can be another than 0."""

import asyncio
import json
import logging
import os
import random
import re
import secrets
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest

from adapters.embedded.nats import EmbeddedNats
from adapters.otel.otlp_file import spans_of_file
from adapters.otel.verify import rebuilt, verify
from supervisors.demo.site import DemoFailed, Site
from supervisors.matrix import ROWS
from tests.directories import with_database
from tests.forked import PIPE, STDOUT, Process, python
from tests.patience import PATIENCE_S

log = logging.getLogger(__name__)
WITHIN_S = 120
TRACES = "amends-demo-traces.json"


@asynccontextmanager
async def started(
    folder: Path, *arguments: str, before: Sequence[str] = (), **environment: str
) -> AsyncIterator[asyncio.subprocess.Process | Process]:
    """`amends demo …` in `folder`; killed if the test leaves it running.

    A program of its own where a test says what stands before it or around it, else forked; what the demo itself starts,
    the runtime, the fleet and the command line, is always a program of its own.
    """
    command = ("-m", "supervisors.boot", "demo", *arguments)
    process: asyncio.subprocess.Process | Process
    if before or environment:
        process = await asyncio.create_subprocess_exec(
            *(*before, sys.executable, *command), cwd=folder, env={**os.environ, **environment}, stdout=PIPE,
            stderr=STDOUT,
        )  # fmt: skip
    else:
        process = await python(*command, cwd=folder, stdout=PIPE, stderr=STDOUT)
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


async def told(process: asyncio.subprocess.Process | Process, text: str) -> None:
    """Read what it says until `text` is in a line."""
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(WITHIN_S):
        while text not in (line := (await process.stdout.readline()).decode()):
            said += line
            assert line, f"it ended without a word of {text!r}: {said}"


def logged(state_dir: Path) -> str:
    """The end of the runtime's log, to be read where a demo failed."""
    lines = (state_dir / "runtime.log").read_text(errors="replace").splitlines()
    return "\n".join(["", "the runtime's log ends:", *lines[-60:]])


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


async def typed(words: list[str]) -> tuple[int | None, str]:
    """Run a command that the demo has shown; its exit status and what it complains of."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "supervisors.boot"), *words, stderr=asyncio.subprocess.PIPE
    )
    _, complaint = await process.communicate()
    return process.returncode, complaint.decode()


async def all_gone(state_dir: Path) -> None:
    """Nothing runs on: what was told to end has ended, or does so soon."""
    deadline = time.monotonic() + PATIENCE_S
    while running := left_running(state_dir):
        assert time.monotonic() < deadline, running
        await asyncio.sleep(0.05)


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
    assert re.search(r"the second serves, in epoch 3 after 2: the gap", said)
    assert re.search(r"^  kill -9 \+ standby .* taken over ", board, re.MULTILINE)
    assert "0 violations" in said
    traces = json.loads((folder / TRACES).read_text())["data"]
    names = {span["operationName"] for trace in traces for span in trace["spans"]}
    # the picture holds: children within their parents, and whatever a span points at is in the file
    spans = spans_of_file((folder / TRACES).read_bytes())
    undone = [record for span in spans if (record := rebuilt(span))]
    assert verify(undone, spans, elsewhere=()) == []
    assert [one["compensation_id"] for one in undone if one["duration_ms"] is None] == []
    begun = {span["start_us"] for span in spans if "amends.attempt" in span["attributes"]}
    retries = [span for span in spans if span["name"].startswith("retry ")]
    assert [span["name"] for span in retries if span["start_us"] not in begun] == []
    assert [span["name"] for span in retries if span["status"] == "ERROR" and span["start_us"] == span["end_us"]] == []
    assert [row for row in built if not any(name.startswith(f"recovery {row} ") for name in names)] == []
    log = (state_dir / "nats" / "server.log").read_text()
    assert "Permissions Violation" not in log
    assert "Authorization Violation" not in log
    await all_gone(state_dir)


@pytest.mark.parametrize("scene", ["R01", "R03", "kill -9 while a second", "What retries cannot settle"])
async def test_killed_in_the_middle_it_starts_again_on_what_is_there(state_dir: Path, scene: str) -> None:
    seed = int(os.environ.get("AMENDS_TEST_SEED", "0")) or secrets.randbits(32)
    log.warning("seed %d (AMENDS_TEST_SEED=%d repeats the choice)", seed, seed)
    anywhere_s = random.Random(seed).uniform(0, 0.2)
    arguments = ("--state-dir", str(state_dir), "--nodes", "5")
    await with_database(state_dir)
    async with started(state_dir.parent, *arguments) as process:
        await told(process, f"── {scene}")
        await asyncio.sleep(anywhere_s)
        os.kill(process.pid, signal.SIGKILL)
        await process.communicate()
    status, said = await demo(state_dir.parent, *arguments)
    assert status == 0, said + logged(state_dir)
    await all_gone(state_dir)


async def test_a_machine_may_have_been_lost_in_an_earlier_demo_on_the_same_state(state_dir: Path) -> None:
    await with_database(state_dir)
    for _ in range(2):
        status, said = await demo(state_dir.parent, "--state-dir", str(state_dir), "--nodes", "1", "--row", "R08")
        assert status == 0, said + logged(state_dir)


async def test_a_terminal_that_knows_few_letters_is_no_reason_to_fail(state_dir: Path) -> None:
    arguments = ("--state-dir", str(state_dir), "--nodes", "2", "--row", "R02")
    await with_database(state_dir)
    status, said = await demo(state_dir.parent, *arguments, PYTHONIOENCODING="ascii")
    assert status == 0, said
    assert "R02" in said
    assert "R03" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_what_it_types_can_be_typed_again_and_it_ends_though_signals_were_ignored_before_it(
    state_dir: Path, number: int
) -> None:
    # given a directory of one's own that others may not enter, and a demo that is kept
    state_dir.mkdir(mode=0o700)
    arguments = ("--state-dir", str(state_dir), "--nodes", "3", "--keep")
    # as `nohup` and `&` in a script start it
    async with started(
        state_dir.parent, *arguments, before=("sh", "-c", "trap '' INT TERM; exec \"$@\"", "sh")
    ) as process:
        assert process.stdout is not None
        said = ""
        async with asyncio.timeout(WITHIN_S):
            while "Ctrl-C ends it" not in said:
                line = (await process.stdout.readline()).decode()
                assert line, said
                said += line
        assert "demo --keep" not in said, "it is kept already"
        # when the commands that it showed are typed again
        shown = re.findall(r"\$ amends (.+)", said.replace("\\\n", " "))  # broken lines are one command
        said_again = [await typed(shlex.split(command)) for command in shown]
        process.send_signal(number)
        async with asyncio.timeout(WITHIN_S):
            await process.communicate()
    assert process.returncode == 0
    # then each reaches that runtime, which says that nothing is left to do
    for (status, refused), reason in zip(said_again, ("is detached and owes nothing", "owes no cleanup"), strict=True):
        assert (status, reason in refused) == (1, True), refused
    # and the directory was opened no further than the servers need
    assert state_dir.stat().st_mode & 0o066 == 0
    await all_gone(state_dir)


async def test_a_working_directory_that_cannot_be_written_spoils_nothing(state_dir: Path) -> None:
    # given a place where the file of the traces cannot be made
    (state_dir.parent / TRACES).mkdir()
    status, said = await demo(state_dir.parent, "--state-dir", str(state_dir), "--nodes", "2", "--row", "R02")
    assert (status, "could not be kept" in said, "Traceback" in said) == (0, True, False), said


async def test_a_runtime_that_does_not_answer_is_said(state_dir: Path) -> None:
    # given a bus on which nobody serves
    state_dir.mkdir()
    broker = EmbeddedNats(state_dir)
    await broker.start()
    site = Site(state_dir, 1)
    site.front = await nats.connect(broker.url)
    try:
        with pytest.raises(DemoFailed, match=r"cmd\.account\.create had no answer: nats: no responders"):
            await site.ask("cmd.account.create", {"account_id": "acme", "currency": "usd"})
    finally:
        await site.front.close()
        await broker.stop()


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
    await all_gone(state_dir)


@pytest.mark.parametrize(
    ("arguments", "word"), [(["--row", "R99"], "R99"), (["--nodes", "none"], "none"), (["--row", "R00"], "R00")]
)
async def test_wrong_arguments_are_a_question_of_usage(state_dir: Path, arguments: list[str], word: str) -> None:
    status, said = await demo(state_dir.parent, *arguments)
    assert (status, word in said, "Traceback" in said) == (2, True, False), said
    assert list(state_dir.parent.iterdir()) == []
