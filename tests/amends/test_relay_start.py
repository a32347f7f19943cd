"""What a relay finds at its start: the row that a run is open for is tried alone, wherever it now stands."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from amends.runtime.engine import Engine
from amends.runtime.relay import Published, Relay
from amends.runtime.streams import PublishRecovered
from amends.values.limits import Limits
from amends.values.records import OutboxRow
from supervisors.timing import timing


class Broker:
    """Acknowledges all."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        self.ids.append(message_id)
        return Published("ok")


def row(outbox_id: str) -> OutboxRow:
    return OutboxRow(outbox_id, "node:n1", "S", "subject", "{}", "", "", 1)


async def test_the_stuck_row_is_found_behind_one_whose_mark_was_lost() -> None:
    told: list[Any] = []
    engine = SimpleNamespace(
        context=SimpleNamespace(limits=Limits(timing("acceptance", {}))),
        tell=lambda kind, identifier, env: told.append(env.message),
        writer=SimpleNamespace(submit=lambda pending: None),
    )
    broker = Broker()
    relay = Relay(cast(Engine, engine), broker, "S", lambda: 2)
    # given the run's row behind another of its entity
    for outbox_id in ("marked-late", "stuck", "newer"):
        relay.accept(row(outbox_id))
    relay.resume_stuck("stuck")
    # when the stream takes events again
    running = asyncio.create_task(relay.run())
    async with asyncio.timeout(5):
        while relay.pending:
            await asyncio.sleep(0.005)
    running.cancel()
    # then the run hears of it, and every row has gone out
    assert [message.outbox_id for message in told if isinstance(message, PublishRecovered)] == ["stuck"]
    assert broker.ids == ["stuck", "marked-late", "newer"]
