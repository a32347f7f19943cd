"""The export table as `exportfs -v` prints it, and which of its lines let an address in."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from adapters.storage.clients import reach
from amends.ports.storage import Mode, Trouble

Exports = dict[str, dict[str, Mode]]  # path → client as the table spells it → mode


class Line(NamedTuple):
    """A line of the table that lets an address in; `alone`: that address and no other."""

    client: str
    mode: Mode
    alone: bool


def client_of(address: str, path: str) -> str:
    """A client and a path as `exportfs` takes them."""
    return f"[{address}]:{path}" if ":" in address else f"{address}:{path}"


def parse(said: str) -> Exports:
    """What `exportfs -v` prints: a path, then on its line or the next `client(options)`; paths here have no blanks."""
    found: Exports = {}
    path = ""
    for word in said.split():
        client, bracket, options = word.rstrip(")").rpartition("(")
        if word.startswith("/"):
            path = word
        elif bracket and path:
            found.setdefault(path, {})[client] = "rw" if "rw" in options.split(",") else "ro"
    return found


async def lines(exports: Exports, path: str, address: str) -> list[Line]:
    """The lines of a path that let an address in. Raises `Trouble` where that cannot be told."""
    found: list[Line] = []
    for client, mode in exports.get(path, {}).items():
        try:
            how = await reach(client, address)
        except OSError as error:  # a TimeoutError is one
            raise Trouble("exports_unreadable", f"whether {client} is {address} cannot be told: {error}") from None
        if how:
            found.append(Line(client, mode, how == "same"))
    return found


async def serves(exports: Exports, address: str) -> bool:
    """Whether any line lets that address in; a name that cannot be looked up lets nobody in."""
    for client in {client for clients in exports.values() for client in clients}:
        with suppress(OSError):
            if await reach(client, address):
                return True
    return False


def modes(found: Sequence[Line]) -> set[Mode]:
    """The modes in which an address alone is let in."""
    return {line.mode for line in found if line.alone}
