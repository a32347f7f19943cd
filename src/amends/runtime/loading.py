"""Recovery at start: what the journal says becomes actors, timers, steps and messages in memory."""

from collections.abc import Sequence

from msgspec import Struct

from amends.domain.domain import Domain
from amends.ports.journal import Journal
from amends.runtime.dispatcher import Dispatcher
from amends.runtime.engine import Engine
from amends.runtime.slices import Slices
from amends.turn.messages import Envelope, Pause
from amends.values.canonical import UNREADABLE
from amends.values.ids import split_ref
from amends.values.records import MessageRow, StepRow


async def load_actors(engine: Engine, domains: Sequence[Domain], journal: Journal) -> int:
    """All actors that live or owe, kept as bytes until they are touched; returns how many."""
    count, slices = 0, Slices(engine.monotonic_us)
    for domain in domains:
        for kind in domain.kinds:
            async for part in journal.live_actors(kind.name):
                for actor in part:
                    engine.store.load(kind.name, actor.id, actor.body)
                    engine.timers.arm(kind.name, actor.id, actor.due_us)
                count += len(part)
                await slices.shared()  # the lease must be renewed meanwhile
    return count


class Left(Struct, frozen=True):
    """What a crash or a drain left to be done, each in the order it was committed."""

    steps: Sequence[StepRow]
    messages: Sequence[MessageRow]


UNKNOWN = (LookupError, *UNREADABLE)  # also of a kind that there is no more
NOTHING_LEFT = Left([], [])


async def read_left(journal: Journal) -> Left:
    """To be read while nothing commits: whatever a turn of ours adds is delivered by that turn, and only once."""
    steps = [row async for part in journal.live_rows(StepRow) for row in part]
    return Left(steps, [row async for part in journal.live_rows(MessageRow) for row in part])


async def resume(engine: Engine, dispatcher: Dispatcher, left: Left) -> dict[str, int]:
    """Hand it to those who do it, before anything newer reaches them; returns how many of each.

    The relay finds its events by itself.
    """
    unknown: dict[tuple[str, str], dict[str, list[dict[str, str]]]] = {}
    slices = Slices(engine.monotonic_us)
    for step in left.steps:
        await slices.shared()
        entity = split_ref(step.entity)
        if (why := _accept(engine, dispatcher, entity[0], step)) is not None:
            found = unknown.setdefault(entity, {"steps": [], "messages": []})
            found["steps"].append({"step": step.name, "step_id": step.step_id, "why": why})
            engine.context.unread.add(step.step_id)
    for row in left.messages:
        await slices.shared()
        if (why := _deliver(engine, row)) is not None:
            found = unknown.setdefault((row.to_kind, row.to_id), {"steps": [], "messages": []})
            found["messages"].append({"message": row.type, "message_id": row.message_id, "why": why})
            engine.context.unread.add(row.message_id)
    for (kind, identifier), evidence in unknown.items():
        if kind not in engine.kinds:
            engine.policy.open_case(f"{kind}:{identifier}", dict(evidence), f"no release here knows a {kind}")
            continue
        engine.tell(kind, identifier, Envelope(Pause("unknown_step", dict(evidence)), priority=True))
    return {"steps": len(left.steps), "messages": len(left.messages)}


def _accept(engine: Engine, dispatcher: Dispatcher, kind: str, row: StepRow) -> str | None:
    """An intended step; why not for one that this release does not know or cannot make out: it is not guessed at."""
    try:
        dispatcher.args_of(row)
        engine.kinds[kind]
    except UNKNOWN as error:
        return _why(error)
    dispatcher.accept(row)
    return None


def _why(error: Exception) -> str:
    return f"this release knows no {error}" if isinstance(error, LookupError) else str(error)[:300]


def _deliver(engine: Engine, row: MessageRow) -> str | None:
    """A durable message; why not for one that its kind does not know or that cannot be made out."""
    try:
        message = engine.decode(row.to_kind, row.type, row.body.encode())
    except UNKNOWN as error:
        return _why(error)
    env = Envelope(
        message, trace_id=row.trace_id, span_id=row.span_id, actor=row.actor, request_id=row.request_id,
        message_id=row.message_id, priority=True,
    )  # fmt: skip
    engine.tell(row.to_kind, row.to_id, env)
    return None
