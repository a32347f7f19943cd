"""The services of this process under one supervisor: known from the beginning, started once, ended once."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from amends.runtime.trunk import ChildSpec, Supervisor, SupervisorSpec


class Services:
    """`supervisors.api.services.Services`. Nothing runs before `start`."""

    def __init__(self) -> None:
        self._tree: Supervisor | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, children: Sequence[ChildSpec]) -> None:
        """Start them in order, and return when all have; raises what the tree ended with."""
        self._tree = tree = Supervisor(SupervisorSpec(name="amends", children=children))
        self._task = asyncio.create_task(tree.run(), name="trunk")
        started = asyncio.create_task(tree.started.wait())
        await asyncio.wait({started, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            started.cancel()
            await self._task

    async def run(self) -> None:
        """Until the tree ends: cancelled, fenced, or out of budget."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def end(self) -> None:
        """Stop them all; idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    @property
    def ended(self) -> bool:
        """Whether they ran, and none does any more."""
        return self._task is not None and self._task.done()

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often each service was started again."""
        return self._tree.restarts if self._tree is not None else {}

    def tree(self) -> dict[str, Any]:
        """Each service with its state; empty before the start."""
        return self._tree.tree() if self._tree is not None else {}
