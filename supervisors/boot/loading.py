"""Recovery at start: what the database says becomes actors, timers, steps, messages and outbox rows in memory."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import fields

from amends.runtime.dispatcher import Dispatcher
from amends.runtime.domain import Domain
from amends.runtime.engine import Engine
from amends.runtime.messages import Envelope, Pause
from amends.runtime.relay import Relay
from amends.values.records import OutboxRow, StepRow
from supervisors.pool import Pool

LOAD_SLICE = 10_000  # actors loaded before others get the loop: some 20 ms

Fetch = Callable[..., Awaitable[Sequence[Any]]]
LiveActors = Callable[[str], Awaitable[Sequence[Any]]]


async def load_actors(engine: Engine, domains: Sequence[Domain], live: LiveActors) -> int:
    """All actors that live or owe, kept as bytes until they are touched; returns how many."""
    count = 0
    for domain in domains:
        for kind in domain.kinds:
            for row in await live(kind.name):
                engine.store.load(kind.name, row["id"], row["body"].encode())
                engine.timers.arm(kind.name, row["id"], row["due_us"])
                count += 1
                if count % LOAD_SLICE == 0:
                    await asyncio.sleep(0)  # the lease must be renewed meanwhile
    return count


async def load_pool(pool: Pool, fetch: Fetch) -> None:
    """Assignments and debts."""
    for row in await fetch("live_assignments"):
        pool.load_assignment(row["allocation_id"], row["node_id"], row["state"])
    for row in await fetch("live_debts"):
        pool.load_debt(row["debt_id"], row["node_id"], row["allocation_id"] or "")


class Left(Struct, frozen=True):
    """What a crash or a drain left to be done, each in the order it was committed."""

    steps: list[StepRow]
    messages: Sequence[Any]
    outbox: Sequence[Any]


NOTHING_LEFT = Left([], (), ())


async def read_left(fetch: Fetch) -> Left:
    """To be read while nothing commits: whatever a turn of ours adds is delivered by that turn, and only once."""
    step_fields = [field.name for field in fields(StepRow)]
    steps = [StepRow(**{name: row[name] for name in step_fields}) for row in await fetch("intended_steps")]
    return Left(steps, await fetch("waiting_messages"), await fetch("waiting_outbox"))


def resume(engine: Engine, dispatcher: Dispatcher, relay: Relay, left: Left) -> dict[str, int]:
    """Hand it to those who do it, before anything newer reaches them; returns how many of each."""
    for step in left.steps:
        dispatcher.accept(step)
    for row in left.messages:
        _deliver(engine, row)
    outbox_fields = [field.name for field in fields(OutboxRow)]
    for row in left.outbox:
        event = OutboxRow(**{name: row[name] for name in outbox_fields})
        if event.stream != relay.stream:
            continue
        if row["state"] == "parked":
            relay.hold(event.entity)
        else:
            relay.accept(event, row["attempts"])
    stream = engine.store.get("stream", relay.stream)
    if stream is not None and stream.state == "blocked":
        relay.resume_stuck(getattr(stream, "outbox_id", ""))
    return {"steps": len(left.steps), "messages": len(left.messages), "outbox": len(left.outbox)}


def _deliver(engine: Engine, row: Any) -> None:
    """A durable message; one its kind does not know any more pauses the entity instead of being guessed at."""
    try:
        message = engine.decode(row["to_kind"], row["type"], row["body"].encode())
    except KeyError:
        pause = Pause("unknown_step", {"message": row["type"], "message_id": row["message_id"]})
        engine.tell(row["to_kind"], row["to_id"], Envelope(pause, priority=True))
        return
    env = Envelope(
        message, trace_id=row["trace_id"], span_id=row["span_id"], actor=row["actor"],
        request_id=row["request_id"], message_id=row["message_id"], priority=True,
    )  # fmt: skip
    engine.tell(row["to_kind"], row["to_id"], env)
