"""Nodes that have seen a higher epoch than ours: the lease's goes above it, and the next start works under that one.

A database that was put back without a mark, or a replica that was promoted late, gives epochs that nodes refuse. The
epoch of a living runtime does not change: it raises the lease's, and ends. A refusal is a node's word about itself and
ends all of us, so it is believed once an hour; the raise is far above it, so that no honest node needs a second one.
"""

import asyncio
import logging
import re
from collections.abc import Callable

import msgspec
from msgspec import Struct

from actors.between import RESTORED_BY
from amends.ports.journal import Journal, Turn
from amends.ports.lease import HeldLease
from amends.runtime.engine import Engine
from amends.runtime.writer import Pending
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.values import ids
from amends.values.errors import TurnFailed, Unavailable
from amends.values.records import AuditDraft

log = logging.getLogger("amends.lease")
STALE = re.compile(r"stale (?:runtime )?epoch (\d{1,18}), highest seen (\d{1,18})(?!\d)")
Entropy = Callable[[int], bytes]
CODES = ("ssh_stale_epoch", "stale_epoch")
LEAP = 4 * RESTORED_BY  # one further above is not believed: agents refuse a runtime that leaps by 2**40
DOCUMENT = "epoch_raised"
BELIEVED_EVERY_US = 3600 * 1_000_000


class Raised(Struct, frozen=True):
    """The lease's epoch was raised, since a step's target had seen one above that of the runtime."""

    target: str
    seen: int
    epoch: int
    is_now: int
    at_us: int


class HigherEpochs:
    """Follows the outcomes of steps."""

    def __init__(self, engine: Engine, journal: Journal, lease: HeldLease, entropy: Entropy) -> None:
        self._engine, self._journal, self._lease, self._entropy = engine, journal, lease, entropy
        self._found = asyncio.Event()
        self._target, self._seen = "", 0
        self._said = False

    def follow(self, decision: Decision) -> None:
        """A turn has committed: a step may have been refused."""
        message = decision.env.message
        if isinstance(message, StepDone) and message.outcome.code in CODES:
            said, own = STALE.search(message.outcome.message), self._lease.epoch
            if said is not None and int(said[1]) == own < int(said[2]) < own + LEAP:
                self._target, self._seen = message.target, int(said[2])
                self._found.set()

    async def run(self) -> None:
        """Until the lease is lost by our own hand, and the tree ends with it."""
        while True:
            await self._found.wait()
            self._found.clear()
            try:
                await self._raise(self._target, self._seen)
            except (Unavailable, TurnFailed) as error:
                log.warning("%s has seen a higher epoch, and the lease's is not raised: %s", self._target, error)

    async def _raise(self, target: str, seen: int) -> None:
        now_us, epoch = self._engine.now_us(), self._lease.epoch
        raised = Raised(target, seen, epoch, seen + RESTORED_BY, now_us)
        if await self._was_raised_after(now_us - BELIEVED_EVERY_US):
            if not self._said:
                log.warning("%s says that it has seen epoch %d; one was believed within the hour", target, seen)
            self._said = True
            return
        await self._audit(raised)
        why = (
            f"{target} has seen epoch {seen} and this runtime has {epoch}, as after a restore: "
            f"the lease's epoch is now {raised.is_now}, start again"
        )
        await self._lease.raise_to(raised.is_now, why, DOCUMENT, msgspec.json.encode(raised), now_us)

    async def _was_raised_after(self, us: int) -> bool:
        bodies = (await self._journal.documents(DOCUMENT)).values()
        return any(msgspec.json.decode(body, type=Raised).at_us > us for body in bodies)

    async def _audit(self, raised: Raised) -> None:
        """It stands in the audit before it is done: afterwards nothing of ours commits."""
        committed: asyncio.Future[TurnFailed | None] = asyncio.get_running_loop().create_future()
        turn = Turn()
        turn.audits = [
            AuditDraft(
                ids.type_id("aud", raised.at_us, self._entropy(10)), raised.at_us, "runtime", "lease.epoch_raised",
                "control_plane:runtime", None, None, "a node has seen a higher epoch", "", "", "", raised.epoch,
                {"target_ref": raised.target, "seen": raised.seen, "is": raised.is_now},
            )
        ]  # fmt: skip
        self._engine.writer.submit(Pending(turn, committed.set_result))
        failed = await committed
        if failed is not None:
            raise failed
