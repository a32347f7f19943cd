"""A backend on the kernel's NFS server: access is an export of the namespace's directory for one address.

The export table is read back by `exportfs -v` after each change; exit status alone proves nothing. `-i`: what stands in
/etc/exports is neither read nor written. An export that is withdrawn is flushed from the kernel, and a client that has
none left loses its state there.
"""

import asyncio
import ipaddress
import logging
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

from adapters.storage.bind import Usages
from adapters.storage.directories import Directories
from adapters.storage.programs import run
from amends.ports.storage import Capabilities, Mode, Trouble, Usage
from amends.values.errors import BadConfiguration

log = logging.getLogger("amends.provider")
EXPORT_OPTIONS: Final = "sync,no_subtree_check,root_squash"
CLIENTS: Final = Path("/proc/fs/nfsd/clients")
AT_ONCE: Final = 8  # programs that run
Exports = dict[tuple[str, str], Mode]  # by path and address


# What the export table shows as it is: nothing that it would quote, no blanks by which it could be taken apart wrongly.
PLAIN: Final = re.compile(r"/[A-Za-z0-9._/-]{0,1023}")


class NfsBackend:
    """Implements `amends.ports.storage.Backend`. `server`: the name or address by which nodes reach this host.

    Raises `BadConfiguration` where the root's path is not plain.
    """

    def __init__(
        self, directories: Directories, usages: Usages, can: Capabilities, server: str, *,
        exportfs: Sequence[str] = ("exportfs",), export_options: str = EXPORT_OPTIONS, mount_options: str = "",
        clients: Path = CLIENTS,
    ) -> None:  # fmt: skip
        if PLAIN.fullmatch(str(directories.root)) is None:
            raise BadConfiguration(f"--root {directories.root} must be of letters, digits and . _ - alone")
        self._directories, self._usages, self._can, self._server = directories, usages, can, server
        self._exportfs, self._options, self._mount_options = tuple(exportfs), export_options, mount_options
        self._clients, self._places = clients, asyncio.Semaphore(AT_ONCE)

    def capabilities(self) -> Capabilities:
        """As the program was told."""
        return self._can

    async def locate(self, node_address: str) -> str:
        """The address itself; a name is looked up once, since an export of a name would follow its changes."""
        with suppress(ValueError):
            return str(ipaddress.ip_address(node_address))
        try:
            found = await asyncio.get_running_loop().getaddrinfo(node_address, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Trouble("address_unknown", f"{node_address} has no address: {error}") from None
        return str(found[0][4][0])

    async def apply(self, namespace_id: str, address: str, mode: Mode) -> dict[str, Any]:
        """Export it; a change of mode is flushed, so that the kernel goes by the new one at once."""
        path = str(self._directories.existing(namespace_id))
        before = (await self._exports()).get((path, address))
        if before != mode:
            _, said = await self._run("-i", "-o", f"{mode},{self._options}", _client(address, path))
            if before is not None:
                await self._flush()
            now = (await self._exports()).get((path, address))
            if now != mode:
                raise Trouble("export_failed", f"exported as {now}, not {mode}: {said}", partial=now is not None)
        source = {"type": "nfs", "server": self._server, "export": path}
        return {**source, "options": self._mount_options} if self._mount_options else source

    async def withdraw(self, namespace_id: str, address: str) -> None:
        """Take the export away. Flushed also where it is gone: an earlier try may have come that far only."""
        path = str(self._directories.path(namespace_id))
        exports, said = await self._exports(), ""
        if (path, address) in exports:
            _, said = await self._run("-u", _client(address, path))
            exports = await self._exports()
        await self._flush()
        if (path, address) in exports:
            raise Trouble("still_exported", f"{path} is still exported to {address}: {said}", partial=True)
        if not any(client == address for _, client in exports):
            await asyncio.to_thread(self._expire, address)

    async def look(self, namespace_id: str, address: str) -> Mode | Literal[""]:
        """What the export table says."""
        return (await self._exports()).get((str(self._directories.path(namespace_id)), address), "")

    async def usage(self, namespace_id: str) -> Usage:
        """By quota or measured."""
        return await self._usages.usage(namespace_id)

    async def close(self) -> None:
        """End measurements."""
        await self._usages.close()

    async def _run(self, *arguments: str) -> tuple[int, str]:
        async with self._places:
            status, said = await run([*self._exportfs, *arguments])
        return status, said.strip()

    async def _flush(self) -> None:
        status, said = await self._run("-f")
        if status:
            raise Trouble("flush_failed", f"the kernel's exports were not flushed: {said}", partial=True)

    async def _exports(self) -> Exports:
        status, said = await self._run("-v")
        if status:
            raise Trouble("exports_unreadable", f"the export table cannot be read: {said}")
        return parse(said)

    def _expire(self, address: str) -> None:
        """NFSv4 clients of this address, which have no export any more, lose what they hold open."""
        for info in self._clients.glob("*/info"):
            try:
                if _address(info.read_text(encoding="utf-8", errors="replace")) == address:
                    (info.parent / "ctl").write_text("expire\n", encoding="utf-8")
            except OSError as error:  # gone meanwhile; or a kernel before 5.3: what has no export cannot write anyway
                log.info("the NFS client of %s was not expired: %s", address, error)


def _client(address: str, path: str) -> str:
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
            found[path, client] = "rw" if "rw" in options.split(",") else "ro"
    return found


def _address(info: str) -> str:
    """The address in a client's `info`, a line such as `address: "10.0.0.5:871"`; of IPv6 in brackets."""
    for line in info.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "address":
            return value.strip().strip('"').rpartition(":")[0].strip("[]")
    return ""
