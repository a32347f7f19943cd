"""The embedded NATS server: JetStream on disk, loopback only, the same port again after a restart.

`sync_interval: always`, because the default flushes every two minutes and loses acknowledged messages.
"""

import asyncio
import json
import logging
import os
import re
import signal
from pathlib import Path
from typing import Any

from adapters.embedded.ownership import POLL_S, OwnerLock, end_leftovers
from adapters.embedded.ports import HOST, free_port, is_free
from adapters.embedded.process import ServerFailed, ServerProcess, death_signal_prefix
from adapters.embedded.programs import nats_server

logger = logging.getLogger("amends.embedded")

PROGRAM = "nats-server"
ANY_PORT = -1
READY_WITHIN_S = 30.0
PING_S = 5
DO = "Free some disk or memory if the log says so, or name servers of your own: [nats] servers"

_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")


class EmbeddedNats:
    """A nats-server of our own below `state_dir`/nats. Start in the main thread; start and stop may repeat.

    `config_extra` is appended to the configuration, for accounts and permissions; variables that it names are taken
    from our environment. `drain_s`: how long an owner that was told to stop may keep the directory.
    """

    def __init__(self, state_dir: Path, *, config_extra: str = "", drain_s: float = 0.0) -> None:
        self._home = state_dir.absolute() / "nats"
        self._config_extra = config_extra
        self._lock = OwnerLock(self._home / "owner.lock", drain_s)
        self._server = ServerProcess("NATS", self._home / "server.log", [(signal.SIGTERM, 1.0)])
        self._changing = asyncio.Lock()
        self._ports: dict[str, list[str]] = {}

    @property
    def url(self) -> str:
        """`nats://127.0.0.1:<port>`, without credentials. Raises ServerFailed before the start."""
        return self._address("nats")

    @property
    def monitoring_url(self) -> str:
        """Where `/varz` and `/healthz` answer. Raises ServerFailed before the start."""
        return self._address("monitoring")

    @property
    def pid(self) -> int:
        """The server's process id. Raises ServerFailed when it does not run."""
        return self._server.pid

    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._server.alive()

    async def start(self) -> None:
        """Start and wait until JetStream answers; idempotent. Raises ServerFailed with the end of the log."""
        async with self._changing:
            if self.alive():
                return
            await self._lock.acquire()
            try:
                await end_leftovers("NATS", self._home, program=PROGRAM, quit_signal=signal.SIGTERM)
                if not await self._serve_again() and not await self._serve(free_port()):
                    raise self._server.failure("did not start", DO)
            except BaseException:
                self._server.signal(signal.SIGKILL)
                await self._server.stop()
                self._lock.release()
                raise

    async def stop(self) -> None:
        """Stop within a bound (about 2 s at worst, 20 ms as a rule); idempotent."""
        async with self._changing:
            try:
                await self._server.stop()
            finally:
                self._lock.release()

    async def _serve_again(self) -> bool:
        """Try the port of the last run, where agents seek the server; whether there is one and it serves."""
        known = _remembered_port(self._home / "port")
        if known is None:
            return False
        if is_free(known) and await self._serve(known):
            return True
        logger.warning("the embedded NATS cannot have its port %d again: clients must be told another", known)
        return False

    async def _serve(self, port: int) -> bool:
        """One try on `port`; whether JetStream answers. A server that ended by itself is a False."""
        for stale in self._home.glob("*.ports"):
            stale.unlink()
        config = self._home / "server.conf"
        config.touch(mode=0o600)  # the extra part may hold passwords
        config.write_text(_configuration(self._home, port) + self._config_extra, encoding="utf-8")
        command = [*death_signal_prefix(None), str(nats_server()), "--config", str(config)]
        await self._server.spawn(command, self._home, _variables(self._config_extra))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN_S
        while self.alive() and loop.time() < deadline:
            ports = _read_ports(self._home, self._server.pid)
            if ports and await _jetstream_answers(ports["nats"][0]):
                self._ports = ports
                _remember_port(self._home / "port", port)
                return True
            await asyncio.sleep(POLL_S / 4)
        await self._server.stop()
        return False

    def _address(self, kind: str) -> str:
        if not self._ports:
            raise ServerFailed("the embedded NATS has not been started")
        return self._ports[kind][0]


def _configuration(home: Path, port: int) -> str:
    def quoted(path: Path) -> str:
        return json.dumps(str(path), ensure_ascii=False)

    return (
        f"server_name: amends-embedded\nhost: {HOST}\nport: {port}\nhttp: {HOST}:{ANY_PORT}\n"
        f"ports_file_dir: {quoted(home)}\n"
        f'ping_interval: "{PING_S}s"\nping_max: 2\n'  # a client that is paused or gone is told apart in seconds
        f"jetstream {{ store_dir: {quoted(home / 'jetstream')}, sync_interval: always }}\n"
    )


def _variables(text: str) -> dict[str, str]:
    """The environment variables that a configuration names, as far as they are set."""
    return {name: os.environ[name] for name in _VARIABLE.findall(text) if name in os.environ}


async def users_fault(file: Path) -> str:
    """What nats-server cannot read in a file of users, by its own word; "" if nothing. Nothing is started."""
    asked = await asyncio.create_subprocess_exec(
        str(nats_server()), "-t", "--config", str(file), env=_variables(file.read_text(encoding="utf-8")),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await asked.communicate()
    return said.decode("utf-8", "replace").strip().removeprefix("nats-server: ") if asked.returncode else ""


def _remembered_port(file: Path) -> int | None:
    """The port of the last run; None at the first start, or when what stands there is no port."""
    try:
        port = int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return port if 0 < port < 65_536 else None


def _remember_port(file: Path, port: int) -> None:
    """Write it whole or not at all: a kill must not cost the port."""
    fresh = file.with_suffix(".new")
    fresh.write_text(str(port), encoding="utf-8")
    fresh.replace(file)


def _read_ports(home: Path, pid: int) -> dict[str, list[str]]:
    """What the server wrote about its ports; empty while the file is missing or half-written."""
    try:
        found: Any = json.loads((home / f"nats-server_{pid}.ports").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("nats") and found.get("monitoring") else {}


async def _jetstream_answers(url: str) -> bool:
    """Whether the first line that a client gets (INFO) offers JetStream."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(HOST, int(url.rpartition(":")[2]))
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
        return bool(json.loads(greeting.removeprefix(b"INFO ")).get("jetstream"))
    except (OSError, ValueError, TimeoutError):
        return False
