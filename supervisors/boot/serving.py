"""`amends run` once its configuration is good: start, print `ready`, serve until a signal."""

import asyncio
import os
import signal

from supervisors.boot.runtime import Runtime
from supervisors.closing import CLOSE_S, HARD, end_hard, watch
from supervisors.logs import last_word
from supervisors.settings import Settings

DONE, REFUSED = 0, 1


async def serve(settings: Settings, *, accept_new_ssh_key: bool) -> int:
    """Until a signal; exit status."""
    runtime = Runtime(settings, say=lambda line: print(line, flush=True), accept_new_ssh_key=accept_new_ssh_key)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(HARD)  # the second signal: at once; nothing is lost
        watch(runtime.stop_s, lambda: runtime.parts.names)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    starting = asyncio.create_task(runtime.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting}, timeout=CLOSE_S)
        return _closed(await runtime.close(), DONE)
    try:
        starting.result()
    except BaseException as error:
        watch(CLOSE_S * 2, lambda: runtime.parts.names)
        stuck = await runtime.close()
        if stuck:
            last_word(error)
        _closed(stuck, REFUSED)
        raise
    print("ready", flush=True)
    serving = asyncio.create_task(runtime.run())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        watch(CLOSE_S * 2, lambda: runtime.parts.names)
        stuck = await runtime.close()
        if stuck and (failed := serving.exception()) is not None:
            last_word(failed)
        _closed(stuck, REFUSED)
        serving.result()
        return REFUSED
    serving.cancel()
    return _closed(await runtime.stop(), DONE)


def _closed(stuck: list[str], status: int) -> int:
    """The exit status; where something refused to close the process ends here, as its event loop would wait for it."""
    if stuck:
        end_hard(stuck)
    return status
