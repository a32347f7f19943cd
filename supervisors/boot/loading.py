"""Recovery at start: what the database says becomes actors, timers, steps, messages and outbox rows in memory."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec.structs import fields

from amends.runtime.dispatcher import Dispatcher
from amends.runtime.domain import Domain
from amends.runtime.engine import Engine
from amends.runtime.messages import Envelope, Pause
from amends.runtime.relay import Relay
from amends.values.records import OutboxRow, StepRow
from supervisors.pool import Pool

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
    return count


async def load_pool(pool: Pool, fetch: Fetch) -> None:
    """Assignments and debts."""
    for row in await fetch("live_assignments"):
        pool.load_assignment(row["allocation_id"], row["node_id"], row["state"])
    for row in await fetch("live_debts"):
        pool.load_debt(row["debt_id"], row["node_id"], row["allocation_id"] or "")


async def resume(engine: Engine, dispatcher: Dispatcher, relay: Relay, fetch: Fetch) -> dict[str, int]:
    """Steps left intended, messages not taken in, events not acknowledged; returns how many of each."""
    step_fields = [field.name for field in fields(StepRow)]
    steps = await fetch("intended_steps")
    for row in steps:
        dispatcher.accept(StepRow(**{name: row[name] for name in step_fields}))
    messages = await fetch("waiting_messages")
    for row in messages:
        _deliver(engine, row)
    outbox_fields = [field.name for field in fields(OutboxRow)]
    outbox = await fetch("waiting_outbox")
    for row in outbox:
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
    return {"steps": len(steps), "messages": len(messages), "outbox": len(outbox)}


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
