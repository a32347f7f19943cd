"""`ops.whatif.…`: what a loss, a forced release or a retirement would come to now. Nothing is written, and nobody told.

It is played with copies of the real states by the same actors; the answer is what their records would say.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from actors.allocation.messages import ForceRelease
from actors.fields import AllocationId, NodeId
from actors.node.messages import RetireNode
from amends.domain.api import Request, ShortText
from amends.kernel import Kernel
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint
from amends.values.errors import Rejected
from supervisors.forecast import acts, telling
from supervisors.forecast.acts import Act
from supervisors.forecast.rehearsal import Rehearsal
from supervisors.pool import Pool

LONGEST_S: Final = 5.0
WHY: Final = "what if"  # the reason of a command that nobody sends

# Question → the command whose preview it is.
COMMANDS: Final[Mapping[str, type[Request]]] = {
    "ops.whatif.force_release": ForceRelease, "ops.whatif.node_retire": RetireNode,
}  # fmt: skip

Play = Callable[[Rehearsal], Awaitable[Act]]


class WhatIfNodeLoss(Request, frozen=True):
    """ops.whatif.node_loss"""

    node_id: NodeId


class WhatIfForceRelease(Request, frozen=True):
    """ops.whatif.force_release; the fields of ops.allocation.force_release but for `reason`."""

    allocation_id: AllocationId
    reason_code: ShortText = "operator_request"


class WhatIfNodeRetire(Request, frozen=True):
    """ops.whatif.node_retire; the fields of ops.node.retire but for `reason`."""

    node_id: NodeId
    acknowledge_lost: bool = False


class WhatIf:
    """Answers them, one at a time."""

    def __init__(self, kernel: Kernel, pool: Pool) -> None:
        self._kernel, self._pool, self._free = kernel, pool, asyncio.Lock()

    def endpoints(self) -> list[Endpoint]:
        """Its subjects."""
        return [
            Endpoint(subject=f"ops.whatif.{name}", request=request, role="viewer", answer=answer)
            for name, request, answer in (
                ("node_loss", WhatIfNodeLoss, self._node_loss),
                ("force_release", WhatIfForceRelease, self._force_release),
                ("node_retire", WhatIfNodeRetire, self._node_retire),
            )
        ]

    async def _node_loss(self, request: WhatIfNodeLoss, identity: Identity) -> dict[str, Any]:
        return await self._played(lambda on: acts.node_loss(on, request.node_id))

    async def _force_release(self, request: WhatIfForceRelease, identity: Identity) -> dict[str, Any]:
        command = ForceRelease(allocation_id=request.allocation_id, reason_code=request.reason_code, reason=WHY)
        return await self._played(lambda on: acts.force_release(on, command, identity.actor))

    async def _node_retire(self, request: WhatIfNodeRetire, identity: Identity) -> dict[str, Any]:
        command = RetireNode(node_id=request.node_id, reason=WHY, acknowledge_lost=request.acknowledge_lost)
        return await self._played(lambda on: acts.node_retire(on, command, identity.actor))

    async def _played(self, play: Play) -> dict[str, Any]:
        try:
            async with asyncio.timeout(LONGEST_S), self._free:
                began = time.perf_counter()
                on = Rehearsal(self._kernel, self._pool)
                act = await play(on)
                found = telling.told(on) if act.refused is None else telling.nothing()
                took_us = int((time.perf_counter() - began) * 1_000_000)
        except TimeoutError:
            raise Rejected("deadline_exceeded", "it took too long to find out; ask again") from None
        return {
            "as_of_us": on.stage.now_us, "assumptions": act.assumptions, "refused": act.refused, "reply": act.reply,
            **found, "took_us": took_us,
        }  # fmt: skip
