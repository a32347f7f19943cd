"""A backend on the kernel's NFS server: access is an export of the namespace's directory for one address.

The export table is read back by `exportfs -v` after each change; exit status alone proves nothing. A line counts for
every address that it lets in, however it spells it. `-i`: what stands in /etc/exports is neither read nor written. An
export that is withdrawn is flushed from the kernel, and a client that has none left loses its state there.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from adapters.storage.bind import Usages
from adapters.storage.clients import address_of, addresses
from adapters.storage.directories import Directories
from adapters.storage.exports import Exports, client_of, lines, modes, parse, serves
from adapters.storage.programs import run
from amends.ports.storage import Access, Capabilities, Mode, Trouble, Usage
from amends.values.errors import BadConfiguration

EXPORT_OPTIONS: Final = "sync,no_subtree_check,root_squash"
CLIENTS: Final = Path("/proc/fs/nfsd/clients")
AT_ONCE: Final = 8  # programs that run


# What the export table shows as it is: nothing that it would quote, no blanks by which it could be taken apart wrongly.
PLAIN: Final = re.compile(r"/[A-Za-z0-9._/-]{0,1023}")


class NfsBackend:
    """Implements `amends.ports.storage.Backend`. `server`: the name or address by which nodes reach this host.

    Raises `BadConfiguration` where the root's path is not plain.
    """

    shared = False

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

    async def locate(self, namespace_id: str, node_address: str) -> str:
        """The one address that the node has; a name is looked up once: an export of a name would follow its changes."""
        address = address_of(node_address)
        if not address:
            try:
                found = await addresses(node_address)
            except OSError as error:  # a TimeoutError is one
                raise Trouble("address_unknown", f"{node_address} cannot be looked up: {error}") from None
            if not found:
                raise Trouble("address_unknown", f"{node_address} has no address")
            if len(found) > 1:
                raise _ambiguous(f"{node_address} has the addresses {', '.join(sorted(found))}: register one of them")
            address = found.pop()
        path = str(self._directories.path(namespace_id))
        if wider := [line.client for line in await lines(await self._exports(), path, address) if not line.alone]:
            raise _ambiguous(f"{path} is exported to {', '.join(wider)}, of which {address} is but one")
        return address

    async def apply(self, namespace_id: str, address: str, mode: Mode) -> dict[str, Any]:
        """Export it; a change of mode is flushed, so that the kernel goes by the new one at once."""
        for trouble in (await self.restore({(namespace_id, address): mode})).values():
            raise trouble
        path = str(self._directories.path(namespace_id))
        source = {"type": "nfs", "server": self._server, "export": path}
        return {**source, "options": self._mount_options} if self._mount_options else source

    async def restore(self, wanted: Mapping[Access, Mode]) -> Mapping[Access, Trouble]:
        """Export what is not exported so; the table is read before that and once after it."""
        before, failed = await self._exports(), dict[Access, Trouble]()
        paths, seen = dict[Access, str](), dict[Access, set[Mode]]()
        for access in wanted:
            try:
                paths[access] = str(self._directories.existing(access[0]))
                seen[access] = modes(await lines(before, paths[access], access[1]))
            except Trouble as trouble:
                failed[access] = trouble
        odd = [access for access, now in seen.items() if now != {wanted[access]}]
        if odd:
            done = await asyncio.gather(*(self._export(paths[each], each[1], wanted[each]) for each in odd))
            if any(seen[access] for access in odd):
                await self._flush()
            after = await self._exports()
            for access, said in zip(odd, done, strict=True):
                try:
                    _check(modes(await lines(after, paths[access], access[1])), wanted[access], said)
                except Trouble as trouble:
                    failed[access] = trouble
        return failed

    async def withdraw(self, namespace_id: str, address: str) -> None:
        """Take the export away. Flushed also where it is gone: an earlier try may have come that far only."""
        path = str(self._directories.path(namespace_id))
        exports, said = await self._exports(), ""
        if alone := [line.client for line in await lines(exports, path, address) if line.alone]:
            said = " ".join([(await self._run("-u", client_of(client, path)))[1] for client in alone])
            exports = await self._exports()
        await self._flush()
        if left := [line.client for line in await lines(exports, path, address)]:
            what = f"{path} is still exported to {', '.join(left)}, which lets {address} in"
            raise Trouble("still_exported", f"{what}: {said}" if said else what, partial=True)
        if not await serves(exports, address) and (kept := await asyncio.to_thread(self._expire, address)):
            raise Trouble(
                "not_expired", f"the NFS client of {address} keeps its state: {', '.join(kept)}", partial=True
            )

    async def look(self, namespace_id: str, address: str) -> Mode | Literal[""]:
        """What the export table says: the widest of all lines that let the address in."""
        path = str(self._directories.path(namespace_id))
        found = {line.mode for line in await lines(await self._exports(), path, address)}
        return "rw" if "rw" in found else "ro" if found else ""

    async def usage(self, namespace_id: str) -> Usage:
        """By quota or measured."""
        return await self._usages.usage(namespace_id)

    async def close(self) -> None:
        """End measurements."""
        await self._usages.close()

    async def _export(self, path: str, address: str, mode: Mode) -> str | Trouble:
        """What was said of it, which proves nothing."""
        try:
            return (await self._run("-i", "-o", f"{mode},{self._options}", client_of(address, path)))[1]
        except Trouble as trouble:
            return trouble

    async def _run(self, *arguments: str, changes: bool = True) -> tuple[int, str]:
        async with self._places:
            status, said = await run([*self._exportfs, *arguments], changes=changes)
        return status, said.strip()

    async def _flush(self) -> None:
        status, said = await self._run("-f")
        if status:
            raise Trouble("flush_failed", f"the kernel's exports were not flushed: {said}", partial=True)

    async def _exports(self) -> Exports:
        status, said = await self._run("-v", changes=False)
        if status:
            raise Trouble("exports_unreadable", f"the export table cannot be read: {said}")
        return parse(said)

    def _expire(self, address: str) -> list[str]:
        """NFSv4 clients of this address, which have no export any more, lose what they hold open; those that do not."""
        kept: list[str] = []
        for info in self._clients.glob("*/info"):  # none on a kernel before 5.3: what has no export cannot write anyway
            try:
                if _client_address(info.read_text(encoding="utf-8", errors="replace")) == address:
                    (info.parent / "ctl").write_text("expire\n", encoding="utf-8")
            except OSError as error:
                if info.exists():  # else it is gone meanwhile
                    kept.append(f"{info.parent.name} ({error.strerror})")
        return kept


def _check(now: set[Mode], wanted: Mode, said: str | Trouble) -> None:
    """Whether it is exported so. Raises `Trouble`: the one that there was, if any."""
    if now != {wanted}:
        raise said if isinstance(said, Trouble) else Trouble(
            "export_failed", f"exported as {sorted(now)}, not {wanted}: {said}", partial=bool(now)
        )  # fmt: skip


def _ambiguous(why: str) -> Trouble:
    return Trouble("address_ambiguous", why, retryable=False)


def _client_address(info: str) -> str:
    """The address in a client's `info`, a line such as `address: "10.0.0.5:871"`; of IPv6 in brackets."""
    for line in info.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "address":
            return address_of(value.strip().strip('"').rpartition(":")[0])
    return ""
