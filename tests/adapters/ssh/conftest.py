"""The machines as fixtures: each test that asks for `machine` runs on the simulated one and on OpenSSH."""

import fcntl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from adapters.embedded.ports import free_port
from adapters.simulated.ssh_node import SimulatedNode
from adapters.ssh import commands
from adapters.ssh.client import SshClient
from tests.adapters.ssh.machines import Customer, Machine, OpenSsh, Simulated, why_no_openssh


@pytest.fixture
def alone() -> Iterator[None]:
    """No other worker mounts anything below /tmp meanwhile, or looks at what is swept there: a sweep minds both."""
    with (Path(tempfile.gettempdir()) / "amends-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
async def simulated() -> AsyncIterator[Simulated]:
    key = asyncssh.generate_private_key("ssh-ed25519")
    node = SimulatedNode(port=free_port(), client_keys=(key.export_public_key().decode(),))
    await node.start()
    machine = Simulated(node, SshClient(key))
    yield machine
    await machine.close()


@pytest.fixture
async def openssh(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OpenSsh]:
    if why := why_no_openssh():
        pytest.skip(why)
    monkeypatch.setattr(commands, "STATE_ROOT", str(tmp_path / "state"))
    machine = OpenSsh(tmp_path, tmp_path / "state", use_pam=getattr(request, "param", False))
    try:
        await machine.ready()
        yield machine
    finally:
        await machine.close()


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Awaitable[OpenSsh]]]:
    """Start daemons with settings of their own (see OpenSsh); they all serve the same users."""
    if why := why_no_openssh():
        pytest.skip(why)
    monkeypatch.setattr(commands, "STATE_ROOT", str(tmp_path / "state"))
    started: list[OpenSsh] = []

    async def start(*, use_pam: bool = False, **options: Any) -> OpenSsh:
        folder = tmp_path / f"sshd {len(started)}"
        folder.mkdir()
        started.append(OpenSsh(folder, tmp_path / "state", use_pam=use_pam, **options))
        await started[-1].ready()
        return started[-1]

    yield start
    for machine in started:
        await machine.close()


@pytest.fixture(params=["simulated", "openssh"])
async def machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Machine]:
    if request.param == "simulated":
        key = asyncssh.generate_private_key("ssh-ed25519")
        node = SimulatedNode(
            port=free_port(), client_keys=(key.export_public_key().decode(),), file=tmp_path / "node.json"
        )
        await node.start()
        simulated = Simulated(node, SshClient(key))
        yield simulated
        await simulated.close()
        return
    if why := why_no_openssh():
        pytest.skip(why)
    monkeypatch.setattr(commands, "STATE_ROOT", str(tmp_path / "state"))
    real = OpenSsh(tmp_path, tmp_path / "state", use_pam=False)
    try:
        await real.ready()
        yield real
    finally:
        await real.close()


@pytest.fixture
def customer(machine: Machine) -> Customer:
    return Customer(machine)
