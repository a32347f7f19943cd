"""`python -m benchmarks.peers [--scale S] [--only dbos|restate] [--env DIR]`: the figures of DBOS and Restate.

One JSON object a line for each figure; progress on standard error, and there also why a peer is left out.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import uvloop

from adapters.embedded.process import ServerFailed
from benchmarks.peers.dbos_peer import dbos
from benchmarks.peers.environment import Missing, python_environment, restate_server
from benchmarks.peers.measuring import Peer, measure
from benchmarks.peers.programs import Broken
from benchmarks.peers.restate_peer import restate

PEERS = ("dbos", "restate")
WITHIN_S = 900.0  # of one peer at full size; it takes one to three minutes
TERMINATED = 128 + signal.SIGTERM
Start = Callable[[Path], AbstractAsyncContextManager[Peer]]


def report(name: str, values: Sequence[float], unit: str) -> None:
    """Print the values of one figure, a value for each run."""
    print(json.dumps({"name": name, "values": [round(value, 3) for value in values], "unit": unit}), flush=True)


def say(line: str) -> None:
    """Progress, for who waits."""
    print(f"peers: {line}", file=sys.stderr, flush=True)


def prepared(name: str, env: Path, server: Path | None) -> Start:
    """How the peer is started in an empty folder, once all that it needs is there. Raises Missing."""
    say(f"{name}: its environment, in {env}")
    python = python_environment(env, name)
    return partial(dbos, python) if name == "dbos" else partial(restate, python, restate_server(env, server))


async def measured(start: Start, folder: Path, scale: float) -> None:
    """Start the peer, print its figures, end it. Raises Broken, ServerFailed."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    within_s = WITHIN_S * max(1.0, scale)
    try:
        async with asyncio.timeout(within_s), start(folder) as peer:
            await measure(peer, report, say, scale)
    except TimeoutError as error:
        raise Broken(f"it was not done within {within_s:.0f} s") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure one peer after the other. One that is missing or breaks is said, and left out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual size")
    parser.add_argument("--only", choices=PEERS, help="this peer alone")
    parser.add_argument("--env", type=Path, help="where the peers' environments are kept and used again")
    parser.add_argument("--restate-server", type=Path, help="this server instead of the pinned one")
    options = parser.parse_args(arguments)
    for name in PEERS if options.only is None else (options.only,):
        with tempfile.TemporaryDirectory(prefix="amends-peers-") as base:
            os.chmod(base, 0o755)  # noqa: PTH101, S103 - the server of a root user runs under another account
            folder = Path(base) / "run"
            folder.mkdir()
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # a package manager ends with us
            try:
                start = prepared(name, (options.env or Path(base) / "env").absolute(), options.restate_server)
                uvloop.run(measured(start, folder, options.scale))
            except (Missing, Broken, ServerFailed) as error:
                say(f"{name} is left out: {error}")
            except asyncio.CancelledError:
                sys.exit(TERMINATED)


if __name__ == "__main__":
    main()
