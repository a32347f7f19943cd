"""`ops.whatif.…`: what a loss, a forced release or a retirement would come to now. Nothing is written, and nobody told.

It is played with copies of the real states by the same actors; the answer is what their records would say.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec

from actors.fields import AllocationId, NodeId
from amends.domain.api import Asked, Request, ShortText
from amends.kernel import Kernel
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint, decode
from amends.values.errors import Rejected
from supervisors.forecast import acts, telling
from supervisors.forecast.acts import Act
from supervisors.forecast.rehearsal import Rehearsal
from supervisors.pool import Pool

LONGEST_S: Final = 5.0
WHY: Final = "what if"  # the reason of a command that nobody sends

# Whose decisions hang on more than a stage has, such as all nodes that the guards hold: they have no preview.
UNPLAYED: Final = ("detector", "stream")

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


class WhatIfCommand(Request, frozen=True):
    """ops.whatif.command; `data` is what the command would be sent with, `reason` may be left out."""

    subject: Annotated[ShortText, Asked("the command, such as ops.cleanup.retry")]
    data: Annotated[dict[str, Any], Asked("what it would be sent with, as JSON")]


class WhatIf:
    """Answers them, one at a time. `commands`: those that may be tried."""

    def __init__(self, kernel: Kernel, pool: Pool, commands: Iterable[Endpoint]) -> None:
        self._kernel, self._pool, self._free = kernel, pool, asyncio.Lock()
        self._commands = {each.subject: each for each in commands if not each.mints}

    def endpoints(self) -> list[Endpoint]:
        """Its subjects."""
        return [
            Endpoint(subject=f"ops.whatif.{name}", request=request, role="viewer", answer=answer)
            for name, request, answer in (
                ("node_loss", WhatIfNodeLoss, self._node_loss),
                ("force_release", WhatIfForceRelease, self._force_release),
                ("node_retire", WhatIfNodeRetire, self._node_retire),
                ("command", WhatIfCommand, self._command),
            )
        ]

    async def _node_loss(self, request: WhatIfNodeLoss, identity: Identity) -> dict[str, Any]:
        return await self._played(lambda on: acts.node_loss(on, request.node_id))

    async def _force_release(self, request: WhatIfForceRelease, identity: Identity) -> dict[str, Any]:
        return await self._sent("ops.allocation.force_release", request, identity)

    async def _node_retire(self, request: WhatIfNodeRetire, identity: Identity) -> dict[str, Any]:
        return await self._sent("ops.node.retire", request, identity)

    async def _sent(self, subject: str, request: Request, identity: Identity) -> dict[str, Any]:
        """The question about one command, which has its fields but for the reason."""
        data = msgspec.structs.asdict(request)
        return await self._command(WhatIfCommand(subject=subject, data=data), identity)

    async def _command(self, asked: WhatIfCommand, identity: Identity) -> dict[str, Any]:
        endpoint = self._commands.get(asked.subject)
        if endpoint is None:
            said = "only commands to an entity that exists have one, and none to the detector or the outbox"
            raise Rejected("invalid_request", f"{asked.subject} has no preview: {said}", field="subject")
        request = decode(endpoint, msgspec.json.encode(_reasoned(endpoint, asked.data)))
        if endpoint.prepare is not None:
            request = endpoint.prepare(request, identity)
        if endpoint.locate is not None:
            kind, identifier, message = await endpoint.locate(request)
        else:
            assert endpoint.target is not None
            (kind, identifier), message = endpoint.target(request), request
        if kind in UNPLAYED:
            raise Rejected("invalid_request", f"{asked.subject} has no preview for a {kind}", field="subject")
        return await self._played(lambda on: acts.command(on, kind, identifier, asked.subject, message, identity.actor))

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


def _reasoned(endpoint: Endpoint, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """With a reason, which a command must have and a question need not."""
    return {"reason": WHY, **data} if "reason" in endpoint.request.__struct_fields__ else data
