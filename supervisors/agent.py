"""The node agent as a program, `amends agent` and `amends-agent`: all that a machine needs beside its OpenSSH server.

It imports nats-py and msgspec and nothing else from outside: no Postgres, no SSH, no web stack (agent.txt pins them).
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from adapters.nats.agent import NodeAgent
from adapters.nats.agent_machine import machine_boot_id
from adapters.nats.agent_mounts import RealMounts
from adapters.nats.agent_plain import PlainMounts
from amends.ports.mounts import Mounts
from amends.values.errors import BadConfiguration
from supervisors import logs
from supervisors.closing import CLOSE_S, watch
from supervisors.nats_options import nats_options
from supervisors.paths import made_directory
from supervisors.settings import load

DONE, USAGE = 0, 2
MOUNTS = ("real", "plain")


async def serve(node: str, nats: str | None, state: Path | None, interval_ms: int, mounts: str) -> int:
    """Serve until a signal; raises `BadConfiguration`."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal() -> None:
        watch(CLOSE_S, lambda: ("the agent",))
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    servers = (nats or os.environ.get("AMENDS_NATS_SERVERS", "nats://127.0.0.1:4222")).split(",")
    credentials = nats_options(load(None, os.environ))  # the agent's own: it is a process of another machine
    directory = made_directory(state or Path("./.amends-agent"), "--state", mode=0o700)
    try:
        agent = NodeAgent(
            node, servers, directory, interval_ms=interval_ms, mounts=_mounts(mounts, directory), **credentials
        )
    except ValueError as error:
        raise BadConfiguration(str(error)) from None
    await agent.start()
    ended = asyncio.create_task(agent.wait())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if ended.done():
        ended.result()
    await agent.stop()
    return DONE


def _mounts(kind: str, directory: Path) -> Mounts:
    if kind not in MOUNTS:
        raise BadConfiguration(f"--mounts must be one of {', '.join(MOUNTS)}")
    if kind == "plain":
        return PlainMounts(directory / "root", directory, machine_boot_id())
    return RealMounts(directory)


def main(argv: Sequence[str] | None = None) -> int:
    """Run as the program `amends-agent`."""
    parser = argparse.ArgumentParser(prog="amends-agent", description="The node agent: heartbeats and tasks.")
    parser.add_argument("--node", required=True, help="the node's name")
    parser.add_argument("--nats", help="where NATS is; more than one with commas; default: AMENDS_NATS_SERVERS")
    parser.add_argument("--state", type=Path, help="where it keeps what it must not forget")
    parser.add_argument("--interval-ms", type=int, default=5000, help="between two heartbeats")
    parser.add_argument("--mounts", choices=MOUNTS, default="real", help="plain: links below the state, without root")
    options = parser.parse_args(argv)
    logs.configure(os.environ)
    try:
        return asyncio.run(serve(options.node, options.nats, options.state, options.interval_ms, options.mounts))
    except BadConfiguration as error:
        logs.last_word(error, "amends-agent")
        return USAGE


if __name__ == "__main__":
    sys.exit(main())
