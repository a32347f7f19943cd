"""The program `python -m supervisors.fleet`: simulated machines with real agents, told what to break.

The one place beside boot that picks adapters: it joins the simulated machines to the real agents, which may
not know each other. It ends with SIGTERM, when its parent is gone, or with its standard input where that is one that
somebody speaks through: under nohup, systemd and CI it is /dev/null or a file, and says nothing.
"""
# ruff: noqa: E402

from supervisors.late import load_late

load_late("aiohttp")

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncssh

from adapters.embedded.ports import free_port
from adapters.nats.agent import NodeAgent
from adapters.nats.agent_link import AgentLink
from adapters.nats.agent_plain import PlainMounts
from adapters.simulated.fleet import Fleet
from adapters.simulated.machine import Place
from adapters.simulated.mount_faults import BrokenMounts
from amends.values.errors import BadConfiguration
from supervisors.paths import made_directory

MAX_LINE_BYTES = 1024 * 1024
PARENT_POLL_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `amends fleet`."""
    parser.add_argument("--nodes", type=int, default=20, help="how many machines")
    parser.add_argument("--nats", help="where NATS is, such as nats://127.0.0.1:4222")
    parser.add_argument(
        "--nats-from-stdin",
        action="store_true",
        help='read it as the first line: {"nats": …, "users": {node: [user, password]}}',
    )
    parser.add_argument("--client-key-line", required=True, help="the runtime's public key, which may log in")
    parser.add_argument("--state", type=Path, required=True, help="what the machines keep")
    parser.add_argument("--interval-ms", type=int, default=5000, help="between two heartbeats")
    parser.add_argument("--sites", type=int, default=2, help="values of the label `site`")


async def run(options: argparse.Namespace) -> int:
    """Serve until told to end; returns the exit status."""
    try:
        asyncssh.import_public_key(options.client_key_line)
    except ValueError:
        raise BadConfiguration("--client-key-line is no line of an OpenSSH public key") from None
    made_directory(options.state, "--state")
    loop = asyncio.get_running_loop()
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, this.cancel)
    stdin = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    transport: asyncio.BaseTransport | None = None
    if _is_spoken_through():
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    elif getattr(options, "nats_from_stdin", False):
        stdin.feed_data(await asyncio.to_thread(sys.stdin.buffer.readline))
    watch = asyncio.create_task(_parent_gone(this, os.getppid()))
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await _serve(options, stdin)
    finally:
        watch.cancel()
        if transport is not None:
            transport.close()
    return 0


def _is_spoken_through() -> bool:
    """Whether standard input is a pipe, a socket or a terminal; nothing else can be waited for."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # it was closed before we began
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or sys.stdin.isatty()


async def _serve(options: argparse.Namespace, stdin: asyncio.StreamReader) -> None:
    told = json.loads(await stdin.readline()) if getattr(options, "nats_from_stdin", False) else {}
    url, known = told.get("nats", options.nats), told.get("users", {})
    shared = AgentLink([url], name="amends-fleet")

    def link_of(node_id: str) -> AgentLink:
        if node_id not in known:
            return shared
        user, password = known[node_id]
        return AgentLink([url], name=f"amends-agent-{node_id}", user=user, password=password)

    async def agent(place: Place) -> None:
        link = link_of(place.node_id)
        plain = PlainMounts(place.root, place.directory, place.boot_id)
        one = NodeAgent(
            place.node_id,
            link,
            place.directory,
            interval_ms=options.interval_ms,
            boot_id=place.boot_id,
            users=place.users,
            mounts=BrokenMounts(plain, place.mount_faults),
        )
        await one.start()
        try:
            await one.wait()
        finally:
            await one.stop()
            if link is not shared:
                await link.close()

    fleet = Fleet(
        options.nodes,
        options.state,
        client_key_line=options.client_key_line,
        agent=agent,
        free_port=free_port,
        sites=options.sites,
    )
    try:
        _say(await fleet.start())
        while line := await stdin.readline():
            _say(await fleet.answer(line))
    finally:
        await fleet.stop()
        await shared.close()


async def _parent_gone(task: asyncio.Task[object], parent: int) -> None:
    """A parent that was killed may have left its end of the pipe open elsewhere."""
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells of it, so it is looked for
        await asyncio.sleep(PARENT_POLL_S)
    task.cancel()


def _say(answer: dict[str, object]) -> None:
    if sys.stdout is not None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="amends fleet", description="Simulated machines with real agents.")
    add_arguments(parser)
    options = parser.parse_args(argv)
    if not options.nats and not options.nats_from_stdin:
        parser.error("--nats is needed")
    logging.basicConfig(level=logging.WARNING, format="fleet: %(message)s")
    logging.getLogger("asyncssh").setLevel(logging.ERROR)
    try:
        return asyncio.run(run(options))
    except BadConfiguration as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
