"""A backend for one machine: nodes mount the directory itself. Access is a table in memory, given again at a start."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from adapters.storage.directories import Directories
from amends.ports.storage import Access, Capabilities, Mode, Trouble, Usage


class Usages(Protocol):
    """Where usage comes from."""

    async def usage(self, namespace_id: str) -> Usage:
        """What a namespace holds."""
        ...

    async def close(self) -> None:
        """End what is under way."""
        ...


class BindBackend:
    """Implements `amends.ports.storage.Backend`. It keeps nobody out who can reach the directory in another way."""

    shared = True

    def __init__(self, directories: Directories, usages: Usages, can: Capabilities) -> None:
        self._directories, self._usages, self._can = directories, usages, can
        self._table: dict[Access, Mode] = {}

    def capabilities(self) -> Capabilities:
        """As the program was told."""
        return self._can

    async def locate(self, namespace_id: str, node_address: str) -> str:
        """The name itself."""
        return node_address

    async def apply(self, namespace_id: str, address: str, mode: Mode) -> dict[str, Any]:
        """A row of the table."""
        path = self._directories.existing(namespace_id)
        self._table[namespace_id, address] = mode
        return {"type": "bind", "path": str(path)}

    async def restore(self, wanted: Mapping[Access, Mode]) -> Mapping[Access, Trouble]:
        """Rows of the table, as far as there are directories."""
        failed: dict[Access, Trouble] = {}
        for (namespace_id, address), mode in wanted.items():
            try:
                await self.apply(namespace_id, address, mode)
            except Trouble as trouble:
                failed[namespace_id, address] = trouble
        return failed

    async def withdraw(self, namespace_id: str, address: str) -> None:
        """The row is gone."""
        self._table.pop((namespace_id, address), None)

    async def look(self, namespace_id: str, address: str) -> Mode | Literal[""]:
        """The row's mode."""
        return self._table.get((namespace_id, address), "")

    async def usage(self, namespace_id: str) -> Usage:
        """As elsewhere."""
        return await self._usages.usage(namespace_id)

    async def close(self) -> None:
        """End measurements."""
        await self._usages.close()
