"""Storage providers of all kinds behind the runner that asks them, each with faults, a restart and what is so."""

import asyncio
import hashlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import nats
import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from adapters.embedded.nats import EmbeddedNats
from adapters.nats.agent_link import AgentLink
from adapters.nats.provider_service import ProviderService
from adapters.nats.providers import ProviderSteps
from adapters.simulated.providers import SimulatedProviders, SimulatedProviderSteps
from adapters.storage.exports import parse
from amends.ports.steps import Outcome, StepCall, StepRunner
from amends.ports.storage import Access, Capabilities, Mode, Trouble, Usage
from tests.directories import scratch
from tests.patience import PATIENCE_S

LATE_S = 0.6  # longer than the 300 ms for which a caller of the contract waits: done, and said too late

Accesses = Mapping[Access, str]
FILES = {"a.txt": b"first", "b.bin": bytes(range(256)) * 64}
STAND_IN = Path(__file__).with_name("exportfs.py")


W_co = TypeVar("W_co", bound="World", covariant=True)


class World(Protocol):
    """A provider `p1` that holds the namespace `data`."""

    def break_next(self, op: str, kind: str) -> None: ...
    def access(self) -> Accesses: ...
    async def start(self) -> None: ...
    async def kill(self) -> None: ...


class Holding(World, Protocol):
    """One whose namespace has contents."""

    def checksum(self) -> str: ...


class Bench(Generic[W_co]):
    def __init__(self, runner: StepRunner, world: W_co, *, kind: str) -> None:
        self.runner, self.world, self.kind = runner, world, kind

    async def ask(
        self, op: str, grant: str = "grant_1", *, timeout_ms: int = 20_000, epoch: int = 1, **changes: Any
    ) -> Outcome:
        return await self.runner.run(call(op, grant, timeout_ms=timeout_ms, epoch=epoch, **changes))


ARGS: dict[str, tuple[str, ...]] = {
    "capabilities": (), "usage": ("namespace_id",), "grants": ("namespace_id",),
    "verify": ("namespace_id", "grant_id", "node_id"),
    "revoke": ("namespace_id", "grant_id", "node_id"),
    "grant": ("namespace_id", "grant_id", "node_id", "node_address", "mode"),
}  # fmt: skip


def call(op: str, grant: str, *, timeout_ms: int, epoch: int, **changes: Any) -> StepCall:
    values = {
        "grant_id": grant,
        "namespace_id": "data",
        "node_id": "n1",
        "node_address": "10.0.0.5",
        "mode": "rw",
        **changes,
    }
    args = {"provider_id": changes.get("provider_id", "p1"), **{name: values[name] for name in ARGS[op]}}
    target = f"provider:{args['provider_id']}"
    return StepCall(
        "step_1", f"provider.{op}", "grant:data.n1", target, args, 1, "key", epoch, timeout_ms, "a" * 32, "b" * 16
    )


# --- in memory -------------------------------------------------------------------------------------------


class InMemory:
    def __init__(self, world: SimulatedProviders) -> None:
        self.provider = world.add("p1")
        self.provider.hold("data", **FILES)

    def break_next(self, op: str, kind: str) -> None:
        self.provider.break_next(op, kind)

    def access(self) -> Accesses:
        return dict(self.provider.access)

    def checksum(self) -> str:
        return self.provider.namespaces["data"].checksum()

    async def start(self) -> None:
        self.provider.up = True

    async def kill(self) -> None:
        self.provider.up = False


@asynccontextmanager
async def in_memory(base: Path) -> AsyncIterator[Bench[World]]:
    world = SimulatedProviders()
    made = InMemory(world)
    yield Bench(SimulatedProviderSteps(world, now_us=lambda: 1_700_000_000_000_000), made, kind="memory")


# --- the service on NATS, over a scripted backend --------------------------------------------------------


class Scripted:
    """A backend that does as it is told; its access outlives the service. `looks`: how often its table was read."""

    shared = True

    def __init__(self) -> None:
        self.table: dict[tuple[str, str], Mode] = {}
        self.faults: list[tuple[str, str]] = []
        self.looks = 0

    def capabilities(self) -> Capabilities:
        return Capabilities(enforcement="quota")

    async def locate(self, namespace_id: str, node_address: str) -> str:
        return node_address

    async def _meet(self, op: str) -> str:
        kind = next((kind for broken, kind in self.faults if broken == op), "")
        if kind:
            self.faults.remove((op, kind))
        if kind == "fail":
            raise Trouble("scripted", "fault injected")
        if kind == "hang":
            await asyncio.get_running_loop().create_future()
        if kind == "slow":
            await asyncio.sleep(LATE_S)
        return kind

    async def apply(self, namespace_id: str, address: str, mode: Mode) -> dict[str, Any]:
        kind = await self._meet("grant")
        if namespace_id != "data":
            raise Trouble("no_such_namespace", "there is none", retryable=False)
        await asyncio.sleep(0.01)
        if kind != "lie":
            self.table[namespace_id, address] = "ro" if kind == "partial" else mode
        return {"type": "bind", "path": f"/srv/{namespace_id}"}

    async def restore(self, wanted: Mapping[Access, Mode]) -> Mapping[Access, Trouble]:
        self.looks += 1
        self.table.update(wanted)
        return {}

    async def withdraw(self, namespace_id: str, address: str) -> None:
        kind = await self._meet("revoke")
        await asyncio.sleep(0.01)
        if kind != "keep":
            self.table.pop((namespace_id, address), None)

    async def look(self, namespace_id: str, address: str) -> Any:
        self.looks += 1
        return self.table.get((namespace_id, address), "")

    async def usage(self, namespace_id: str) -> Usage:
        if namespace_id != "data":
            raise Trouble("no_such_namespace", "there is none", retryable=False)
        return Usage(sum(map(len, FILES.values())), 1_700_000_000_000_000, enforced=True)

    async def close(self) -> None:
        self.faults.clear()


class OnNats:
    def __init__(self, url: str, base: Path) -> None:
        self._url, self._state = url, base / "provider"
        self.backend = Scripted()

    def break_next(self, op: str, kind: str) -> None:
        self.backend.faults.append((op, "slow" if kind == "lose" else kind))

    def access(self) -> Accesses:
        return {**self.backend.table}

    async def start(self) -> None:
        self.service = ProviderService("p1", self.backend, self._state)
        await self.service.restore()
        self._link = AgentLink([self._url], name="provider")
        self._serving = asyncio.create_task(self._link.run(self.service))

    async def kill(self) -> None:
        self._serving.cancel()
        await asyncio.wait({self._serving})
        await self._link.close()
        await self.service.close()
        await forgotten(self._url)


@asynccontextmanager
async def on_nats(base: Path) -> AsyncIterator[Bench[World]]:
    async with server(base) as url, steps(url) as runner:
        world = OnNats(url, base)
        await world.start()
        bench = Bench(runner, world, kind="service")
        await answers(bench)
        yield bench
        await world.kill()


# --- the program, over directories and a stand-in exportfs -----------------------------------------------


class Program:
    """`amends provider nfs` in a process of its own; with `bind` nothing is exported."""

    def __init__(self, url: str, base: Path, *, bind: bool = False, more: tuple[str, ...] = ()) -> None:
        self.base, self.root, self._url = base, base / "srv", url
        (self.root / "data").mkdir(parents=True)
        for name, content in FILES.items():
            (self.root / "data" / name).write_bytes(content)
        mode = (
            ("--bind",) if bind else ("--server", "storage-1", "--exportfs", f"{sys.executable} -SE {STAND_IN} {base}")
        )
        self.command = (
            *(sys.executable, "-m", "supervisors.boot", "provider", "nfs", "--root", str(self.root), "--nats", url),
            *("--provider", "p1", "--state", str(base / "provider"), *mode, *more),
        )
        self.process: asyncio.subprocess.Process | None = None

    def break_next(self, op: str, kind: str) -> None:
        option = {"grant": "-o", "revoke": "-u"}[op]
        kind = {"lose": "slow", "keep": "lie", "partial": "narrow"}.get(kind, kind)
        with (self.base / "fault").open("a") as file:
            file.write(f"{option} {kind}\n")

    def access(self) -> Accesses:
        table = self.base / "etab"
        lines = table.read_text().splitlines() if table.exists() else []
        said = "".join("{}\t{}({})\n".format(*line.replace("\t", "|").split("|")) for line in lines)
        return {
            (Path(path).name, client): mode for path, found in parse(said).items() for client, mode in found.items()
        }

    def checksum(self) -> str:
        whole = hashlib.sha256()
        for path in sorted(self.root.rglob("*")):
            about = path.lstat()
            whole.update(f"{path} {about.st_mode} {about.st_uid} {about.st_gid} {about.st_mtime_ns}".encode())
            if path.is_file():
                whole.update(path.read_bytes())
        return whole.hexdigest()

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(*self.command, env=dict(os.environ))

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
            await forgotten(self._url)


@asynccontextmanager
async def a_program(base: Path, *, bind: bool = False, more: tuple[str, ...] = ()) -> AsyncIterator[Bench[Program]]:
    async with server(base) as url, steps(url) as runner:
        world = Program(url, base, bind=bind, more=more)
        await world.start()
        bench = Bench(runner, world, kind="bind" if bind else "nfs")
        try:
            await answers(bench)
            yield bench
        finally:
            await world.kill()


# --- what they share -------------------------------------------------------------------------------------


@asynccontextmanager
async def server(base: Path) -> AsyncIterator[str]:
    nats_server = EmbeddedNats(base)
    await nats_server.start()
    try:
        yield nats_server.url
    finally:
        await nats_server.stop()


@asynccontextmanager
async def steps(url: str) -> AsyncIterator[ProviderSteps]:
    client = await nats.connect(url)
    try:
        yield ProviderSteps(client)
    finally:
        await client.close()


async def answers(bench: Bench[Any]) -> None:
    """Wait until the provider serves; an epoch of 0 leaves no trace."""
    async with asyncio.timeout(PATIENCE_S):
        while (await bench.ask("capabilities", timeout_ms=1000, epoch=0)).code in (
            "provider_absent",
            "provider_timeout",
        ):
            await asyncio.sleep(0.02)


async def forgotten(url: str) -> None:
    """Wait until the bus has noticed that the provider is gone: what is asked before that is lost without a word."""
    client = await nats.connect(url)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while await heard(client):
                await asyncio.sleep(0.01)
    finally:
        await client.close()


async def heard(client: Client) -> bool:
    """Whether the bus still has somebody who should hear questions for it."""
    try:
        await client.request("amends.v1.provider.p1.capabilities", b"{}", timeout=0.1)
    except NoRespondersError:
        return False
    except NatsTimeoutError:
        return True
    return True


async def again(bench: Bench[Any]) -> None:
    """The provider is killed and started anew."""
    await bench.world.kill()
    await bench.world.start()
    await answers(bench)


KINDS: dict[str, Callable[[Path], AbstractAsyncContextManager[Bench[Any]]]] = {
    "in memory": in_memory, "service on NATS": on_nats, "nfs program on NATS": a_program,
}  # fmt: skip


@pytest.fixture(params=["in memory", "nfs program on NATS"])
async def holding(request: pytest.FixtureRequest) -> AsyncIterator[Bench[Holding]]:
    """Those that hold contents; the service alone has none."""
    base = scratch("amends-provider-")
    try:
        async with KINDS[request.param](base) as made:
            yield made
    finally:
        shutil.rmtree(base)


@pytest.fixture(params=list(KINDS))
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench[World]]:
    base = scratch("amends-provider-")
    try:
        async with KINDS[request.param](base) as made:
            yield made
    finally:
        shutil.rmtree(base)
