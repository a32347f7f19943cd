"""`amends agent` as a program: it logs in with what the environment gives it, and says why when it may not."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest

from adapters.embedded.nats import EmbeddedNats
from adapters.nats.permissions import configuration
from tests.directories import scratch
from tests.patience import PATIENCE_S

USERS = ("runtime", "node-n1")


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedNats]:
    base = scratch("amends-agent-")
    server = EmbeddedNats(base, config_extra=configuration({name: f"{name}-password" for name in USERS}))
    await server.start()
    yield server
    await server.stop()
    shutil.rmtree(base)


@asynccontextmanager
async def agent(
    server: EmbeddedNats, state: Path, password: str, *more: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "supervisors.boot", "agent", "--node", "n1", "--nats", server.url),
        *("--state", str(state), "--interval-ms", "20", *more),
        env={**os.environ, "AMENDS_NATS_USER": "node-n1", "AMENDS_NATS_PASSWORD": password},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_it_beats_as_the_user_that_the_environment_names(server: EmbeddedNats, tmp_path: Path) -> None:
    runtime = await nats.connect(server.url, user="runtime", password="runtime-password")
    beats = await runtime.subscribe("amends.v1.hb.n1")
    async with agent(server, tmp_path, "node-n1-password") as process:
        assert json.loads((await beats.next_msg(timeout=PATIENCE_S)).data)["seq"] >= 1
        process.terminate()
        _, said = await process.communicate()
        assert (process.returncode, said) == (0, b"")
    await runtime.close()


async def test_a_wrong_password_is_said_and_never_shown(server: EmbeddedNats, tmp_path: Path) -> None:
    async with agent(server, tmp_path, "a-wrong-one") as process, asyncio.timeout(PATIENCE_S):
        assert process.stderr is not None
        said = (await process.stderr.readline()).decode()
        assert "Authorization Violation" in said
        assert "a-wrong-one" not in said
        process.terminate()
        assert await process.wait() == 0


@pytest.mark.parametrize(
    "wrong", [["--node", "Not_A_Node"], ["--node", "n1", "--interval-ms", "5"], ["--node", "n1", "--mounts", "x"]]
)
async def test_what_is_no_node_or_no_interval_is_a_question_of_usage(wrong: list[str], tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "supervisors.boot", "agent", "--state", str(tmp_path), *wrong),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2, said
    assert b"Traceback" not in said


async def test_it_mounts_plainly_when_told_so(server: EmbeddedNats, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    state = tmp_path / "state"
    runtime = await nats.connect(server.url, user="runtime", password="runtime-password")
    results = await runtime.subscribe("amends.v1.result.n1")
    task = {
        "task_id": "task_1", "op": "mount", "node_epoch": 1, "runtime_epoch": 1, "attachment_id": "attach_a",
        "attempt_id": "task_a", "mode": "rw", "mount_path": "/mnt/data",
        "source": {"type": "bind", "path": str(tmp_path / "export")},
    }  # fmt: skip
    async with agent(server, state, "node-n1-password", "--mounts", "plain") as process:
        beats = await runtime.subscribe("amends.v1.hb.n1")
        await beats.next_msg(timeout=PATIENCE_S)
        await runtime.publish("amends.v1.task.n1", json.dumps(task).encode())
        assert json.loads((await results.next_msg(timeout=PATIENCE_S)).data)["status"] == "ok"
        assert (state / "root" / "mnt" / "data").readlink() == tmp_path / "export"
        process.terminate()
        await process.communicate()
    await runtime.close()
