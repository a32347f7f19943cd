"""The machine as its agent sees it: this boot, the customers' accounts, who keeps a mount busy. Knows no NATS."""

import asyncio
import os
import pwd
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from adapters.nats.agent_messages import MAX_HOLDERS

CUSTOMER: Final = re.compile(r"am-[0-9a-z]{26}")
MAX_MAPS_BYTES: Final = 1 << 20
T = TypeVar("T")


def customer_users() -> list[str]:
    """Customers' accounts of this machine."""
    return sorted(entry.pw_name for entry in pwd.getpwall() if CUSTOMER.fullmatch(entry.pw_name))


def machine_boot_id() -> str:
    """The kernel's name for this boot. Raises OSError where there is no such kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


async def bounded(work: Callable[[], T], within_s: float) -> T:
    """Do something that a dead server may hold for ever, in a thread that is then left to itself.

    Raises what it raises, and TimeoutError.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    ended: list[T | BaseException] = []

    def tell() -> None:
        if not done.done():
            done.set_result(None)

    def run() -> None:
        try:
            ended.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            ended.append(error)
        with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=run, daemon=True, name="amends-bounded").start()
    async with asyncio.timeout(within_s):
        await done
    found = ended[0]
    if isinstance(found, BaseException):
        raise found
    return found


def holders(path: str, found: list[str], proc: Path = Path("/proc")) -> None:
    """Add to `found` which processes have something open at or below a path, as far as this user may see."""
    for process in proc.iterdir():
        if len(found) >= MAX_HOLDERS:
            return
        if process.name.isdigit():
            how = next((how for how, where in _opened(process) if where == path or where.startswith(path + "/")), "")
            if how:
                found.append(f"process {process.name} ({_name(process)}): {how}")


def _opened(process: Path) -> Iterator[tuple[str, str]]:
    for how in ("cwd", "root", "exe"):
        yield from _link(process / how, how)
    with suppress(OSError):  # it has ended, or is somebody else's
        for descriptor in (process / "fd").iterdir():
            yield from _link(descriptor, "an open file")
    with suppress(OSError), (process / "maps").open("rb") as maps:
        for line in maps.read(MAX_MAPS_BYTES).splitlines():
            _, slash, rest = line.partition(b"/")
            yield "a mapped file", (slash + rest).decode(errors="replace")


def _link(link: Path, how: str) -> Iterator[tuple[str, str]]:
    with suppress(OSError):  # as above
        yield how, os.readlink(link)  # noqa: PTH115 - text only: nothing is looked at that could hang


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
