"""The `amends` program's own verbs: run, and what else needs more than a NATS client."""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from amends.values.errors import BadConfiguration, BadDomain, Fenced, Unavailable
from supervisors.boot.runtime import Runtime
from supervisors.settings import load


async def run(config: Path | None) -> int:
    """`amends run`: start, print `ready`, serve until a signal; exit status."""
    settings = load(config, os.environ)
    runtime = Runtime(settings, say=lambda line: print(line, flush=True))
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)  # the second signal: at once; nothing is lost
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await runtime.start()
    print("ready", flush=True)
    serving = asyncio.create_task(runtime.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await runtime.close()
        serving.result()
        return 1
    serving.cancel()
    await runtime.stop()
    return 0


def main() -> int:
    """The entry point."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("asyncssh").setLevel(logging.ERROR)  # its warnings are our outcomes
    args = sys.argv[1:]
    config = Path(args[args.index("--config") + 1]) if "--config" in args else None
    try:
        return uvloop.run(run(config))
    except (BadConfiguration, BadDomain) as error:
        print(f"amends: {error}", file=sys.stderr)
        return 2
    except Fenced as error:
        print(f"amends: {error}; this runtime has stopped", file=sys.stderr)
        return 1
    except Unavailable as error:
        print(f"amends: {error}", file=sys.stderr)
        return 3
