"""A stage: the engine on copies of committed states, to see what a message would come to. Nothing is kept of it.

The same kinds decide there and the same writer seals their turns, but what they commit stays on paper: no journal, no
relay, no dispatcher. Time stands still. Steps are ended by whoever directs the play, at once and one after the other.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from amends.domain.domain import Domain, rows_of
from amends.domain.kinds import ActorState
from amends.ports.clock import Sources
from amends.ports.journal import Commit, Head, StateWrite
from amends.ports.steps import Outcome
from amends.runtime.engine import Engine
from amends.runtime.writer import JournalWriter
from amends.turn.context import Context
from amends.turn.decision import Decision
from amends.turn.messages import Envelope, StepDone
from amends.values import ids
from amends.values.canonical import ZERO_HASH
from amends.values.errors import Rejected
from amends.values.records import StepRow

MOST_TURNS = 5_000
RowT = TypeVar("RowT", bound=Struct)
ReadBack = Callable[[str, str], Awaitable[bytes | None]]  # kind and id → the stored body
Direct = Callable[[StepRow, dict[str, Any]], Outcome | None]  # a step, its arguments → how it ends; None: not now


class Paper:
    """Implements `amends.ports.journal.Commits`: what was committed is kept to be looked at, in its order."""

    def __init__(self) -> None:
        self.rows: list[Struct] = []
        self.states: list[StateWrite] = []
        self.newest: dict[tuple[str, str], bytes] = {}  # kind and id → body

    async def commit(self, commit: Commit) -> None:
        """See the port."""
        self.rows += [row for rows in commit.rows.values() for row, _ in rows]
        self.states += commit.states
        self.newest |= {(write.kind, write.id): write.body.encode() for write in commit.states}

    async def settled(self, commit: Commit) -> bool:
        """See the port: it never was in doubt."""
        return True

    async def closed(self) -> dict[str, str]:
        """See the port."""
        return {}

    async def locked(self, writes: Sequence[StateWrite]) -> set[tuple[str, str]]:
        """See the port."""
        return set()


class Stage:
    """See above. `now_us`: the moment of which all is; `read_back` reads the state of who was not lent, if need be.

    `entropy` makes ids that look like real ones, and name nothing.
    """

    def __init__(
        self, domains: Sequence[Domain], context: Context, now_us: int, entropy: Callable[[int], bytes],
        read_back: ReadBack,
    ) -> None:  # fmt: skip
        kinds = {kind.name: kind for domain in domains for kind in domain.kinds}
        sources = Sources(wall_us=lambda: now_us, monotonic_us=lambda: now_us, entropy=entropy)
        self.now_us, self._context, self._read_back = now_us, context, read_back
        self.engine = Engine(kinds, context, lambda: now_us, self._read, sources)
        self.paper = Paper()
        head = Head(context.epoch, 0, 0, ZERO_HASH)
        self._writer = JournalWriter(self.paper, head, rows_of(domains), self.engine.holds, lambda: now_us)
        self.engine.attach(self._writer)
        self.engine.listeners.append(self._follow)
        self._steps: deque[StepRow] = deque()
        self._reads: set[asyncio.Task[None]] = set()
        self.done: list[StepRow] = []  # the steps that have ended
        self.left: list[StepRow] = []  # those that could not be done now

    def lend(self, kind: str, identifier: str, state: ActorState) -> None:
        """A copy of a committed state takes part."""
        self.engine.store.put(kind, identifier, state)
        self.engine.timers.arm(kind, identifier, min(state.timers.values(), default=None))

    def under_way(self, steps: Sequence[StepRow]) -> None:
        """These were intended before the play begins."""
        self._steps.extend(steps)

    def rows(self, row: type[RowT]) -> list[RowT]:
        """What was committed of a type, in its order."""
        return [each for each in self.paper.rows if type(each) is row]

    async def play(self, direct: Direct) -> None:
        """Until nothing happens any more. Raises `Rejected` where that cannot be told, `Unavailable`."""
        writing = asyncio.create_task(self._writer.run(), name="stage")
        try:
            while await self._more(direct):
                if self._writer.turns > MOST_TURNS:
                    raise Rejected("invalid_request", f"more than {MOST_TURNS} turns would follow: that is not played")
        finally:
            begun = (writing, *self._reads)
            for task in begun:
                task.cancel()
            await asyncio.gather(*begun, return_exceptions=True)
        if self.engine.policy.crashes or self._writer.refused:
            raise Rejected("internal", "what would happen cannot be told: a turn failed; see the log")

    async def _more(self, direct: Direct) -> bool:
        """One thing more that is to be done; False at rest."""
        await self._writer.drained()
        if self._reads:
            ended, _ = await asyncio.wait(self._reads, return_when=asyncio.FIRST_COMPLETED)
            self._reads -= ended
            for task in ended:
                task.result()
        elif self.engine.waiting():
            await asyncio.sleep(0)
        elif not self.engine.timers.fire_now():
            if not self._steps:
                return False
            self._end(self._steps.popleft(), direct)
        return True

    def _end(self, row: StepRow, direct: Direct) -> None:
        args = self._context.steps[row.name].read(row.args)
        outcome = direct(row, args)
        if outcome is None:
            self.left.append(row)
            return
        self.done.append(row)
        done = StepDone(
            row.step_id, row.name, row.attempt, row.target, args, outcome, self.now_us, self.now_us, row.trace_id,
            ids.span_id("step", row.step_id),
        )  # fmt: skip
        env = Envelope(done, trace_id=row.trace_id, span_id=row.parent_span_id, priority=True)
        self.engine.tell(*ids.split_ref(row.entity), env)

    def _follow(self, decision: Decision) -> None:
        self._steps.extend(decision.steps)

    def _read(self, kind: str, identifier: str, then: Callable[[bytes | None], None]) -> None:
        async def read() -> None:
            written = self.paper.newest.get((kind, identifier))  # who has ended here is not what it was before
            then(written if written is not None else await self._read_back(kind, identifier))

        self._reads.add(asyncio.create_task(read(), name="stage.read"))
