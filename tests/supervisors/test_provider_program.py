"""`amends provider nfs` as a program: it logs in as a provider, ends in time, and says what it cannot work with."""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from adapters.embedded.nats import EmbeddedNats
from adapters.nats.permissions import configuration
from tests.adapters.providers.benches import a_program, again
from tests.directories import scratch
from tests.patience import PATIENCE_S

STOPS_WITHIN_S = 2.0
PROGRAM = (sys.executable, "-m", "supervisors.boot", "provider", "nfs")


@pytest.fixture
def base() -> Iterator[Path]:
    made = scratch("amends-provider-")
    (made / "srv" / "data").mkdir(parents=True)
    yield made
    shutil.rmtree(made)


@asynccontextmanager
async def provider(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *arguments, env={**os.environ, **environment}, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def replied(client: Client, subject: str, request: bytes) -> Msg:
    """The reply, once somebody serves."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await client.request(subject, request, timeout=PATIENCE_S)
            except NoRespondersError:
                await asyncio.sleep(0.02)


async def test_it_serves_as_the_user_that_the_environment_names_and_with_its_permissions_alone(base: Path) -> None:
    users = {name: f"{name}-password" for name in ("runtime", "provider-p1")}
    nats_server = EmbeddedNats(base, config_extra=configuration(users))
    await nats_server.start()
    runtime = await nats.connect(
        nats_server.url, user="runtime", password="runtime-password", inbox_prefix="_INBOX_runtime"
    )
    options = ("--root", str(base / "srv"), "--provider", "p1", "--nats", nats_server.url, "--state", str(base / "p"))
    credentials = {"AMENDS_NATS_USER": "provider-p1", "AMENDS_NATS_PASSWORD": "provider-p1-password"}
    async with provider(*options, "--bind", **credentials) as process:
        request = json.dumps({
            "runtime_epoch": 1, "grant_id": "grant_1", "namespace_id": "data", "node_id": "n1", "mode": "rw",
            "node_address": "10.0.0.5",
        }).encode()  # fmt: skip
        reply = await replied(runtime, "amends.v1.provider.p1.grant", request)
        assert json.loads(reply.data) == {
            "status": "ok", "retryable": False, "code": "", "message": "",
            "source": {"type": "bind", "path": f"{base}/srv/data"}, "observed": {"granted": True, "mode": "rw"},
        }  # fmt: skip
        process.terminate()
        _, said = await process.communicate()
        assert (process.returncode, said) == (0, b"")
    await runtime.close()
    await nats_server.stop()


@pytest.mark.parametrize("how", ["terminate", "kill"])
async def test_a_program_that_hangs_ends_with_the_provider_however_that_ends(base: Path, how: str) -> None:
    shutil.rmtree(base / "srv")
    async with a_program(base) as bench:
        bench.world.break_next("grant", "hang")
        asked = asyncio.create_task(bench.ask("grant", timeout_ms=60_000))
        async with asyncio.timeout(PATIENCE_S):
            while not (base / "pid").exists() or not (base / "pid").read_text().endswith("\n"):
                await asyncio.sleep(0.02)
        process, hung = bench.world.process, Path("/proc") / (base / "pid").read_text().strip()
        assert process is not None
        assert hung.exists()
        assert not asked.done()
        began = time.monotonic()
        getattr(process, how)()
        assert await process.wait() == (0 if how == "terminate" else -9)
        assert time.monotonic() - began < STOPS_WITHIN_S
        asked.cancel()
        await asyncio.wait({asked})
        async with asyncio.timeout(PATIENCE_S):
            while hung.exists():
                await asyncio.sleep(0.02)
        await again(bench)
        assert (await bench.ask("grant")).kind == "done"


async def test_it_ends_in_time_while_nats_is_not_there(base: Path) -> None:
    options = (
        "--root",
        str(base / "srv"),
        "--provider",
        "p1",
        "--nats",
        "nats://127.0.0.1:9",
        "--state",
        str(base / "p"),
    )
    async with provider(*options, "--bind") as process:
        assert process.stderr is not None
        assert b"trying until it is back" in await process.stderr.readline()
        began = time.monotonic()
        process.terminate()
        await process.communicate()
        assert time.monotonic() - began < STOPS_WITHIN_S
        assert process.returncode == 0


async def test_with_bind_grants_and_contents_outlive_a_kill(base: Path) -> None:
    shutil.rmtree(base / "srv")
    async with a_program(base, bind=True, more=("--multi-attach", "--mount-prefixes", "/mnt,/data")) as bench:
        before = bench.world.checksum()
        granted = await bench.ask("grant")
        assert granted.data["source"] == {"type": "bind", "path": f"{base}/srv/data"}
        await again(bench)
        assert (await bench.ask("verify")).data == {"granted": True, "mode": "rw"}
        assert (await bench.ask("revoke")).kind == "done"
        await again(bench)
        assert (await bench.ask("verify")).data == {"granted": False, "mode": ""}
        assert (await bench.ask("capabilities")).data == {
            "modes": ["ro", "rw"], "multi_attach": True, "enforcement": "none",
            "mount_path_prefixes": ["/mnt", "/data"],
        }  # fmt: skip
        assert bench.world.checksum() == before


async def test_exports_that_the_host_forgot_are_made_again_at_a_start(base: Path) -> None:
    shutil.rmtree(base / "srv")
    async with a_program(base) as bench:
        assert (await bench.ask("grant")).kind == "done"
        (base / "etab").unlink()
        assert (await bench.ask("verify")).data == {"granted": False, "mode": ""}
        await again(bench)
        assert (await bench.ask("verify")).data == {"granted": True, "mode": "rw"}


WRONG = {
    "a name": ("--provider", "Not_A_Name"),
    "no server": ("--provider", "p1"),
    "a server": ("--provider", "p1", "--server=-oproxy"),
    "options": ("--provider", "p1", "--server", "s", "--export-options", "rw *(rw)"),
    "mount options": ("--provider", "p1", "--bind", "--mount-options", "a b"),
    "prefixes": ("--provider", "p1", "--bind", "--mount-prefixes", "mnt"),
    "a root": ("--provider", "p1", "--bind", "--root", "/nonexistent"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
async def test_what_it_cannot_work_with_is_a_question_of_usage(base: Path, wrong: tuple[str, ...]) -> None:
    async with provider("--root", str(base / "srv"), "--state", str(base / "p"), *wrong) as process:
        _, said = await process.communicate()
        assert process.returncode == 2, said
        line = json.loads(said)  # its log is all that it says here
        assert (line["level"], line["message"][:2]) == ("error", "--"), said


async def test_a_second_one_on_its_directory_says_so(base: Path) -> None:
    shutil.rmtree(base / "srv")
    async with (
        a_program(base, bind=True),
        provider(
            "--root", str(base / "srv"), "--provider", "p1", "--bind", "--state", str(base / "provider")
        ) as second,
    ):
        _, said = await second.communicate()
        assert second.returncode == 2
        assert b"in use by another provider" in said
