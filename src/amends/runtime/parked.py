"""Parked notifications: the oldest one is the probe of the bus; when it is acknowledged the others follow (R07)."""

import asyncio
from collections.abc import Callable

import msgspec

from amends.runtime.decision import Decision
from amends.runtime.engine import Engine
from amends.runtime.messages import Envelope
from amends.runtime.notifications import Notification, Redispatch, SentLate, subject_of
from amends.runtime.relay import Publisher

PER_SECOND = 50


class ParkedNotifications:
    """Tries again what could not be sent. While the bus stays down a parked one adds no record."""

    def __init__(self, engine: Engine, publisher: Publisher, now_us: Callable[[], int]) -> None:
        self._engine, self._publisher, self._now = engine, publisher, now_us
        self._parked: dict[str, None] = {}
        self._wake = asyncio.Event()

    def follow(self, decision: Decision) -> None:
        """A committed turn of a notification."""
        if decision.kind.name == "notification":
            if decision.state is not None and decision.state.state == "parked":
                self.accept(decision.id)
            else:
                self._parked.pop(decision.id, None)

    def accept(self, ntf_id: str) -> None:
        """Take over a parked one."""
        self._parked[ntf_id] = None
        self._wake.set()

    def __len__(self) -> int:
        return len(self._parked)

    async def run(self) -> None:
        """Probe until cancelled; silent while nothing is parked."""
        pause_s = self._engine.context.limits.backoff("notification_backoff_ms").cap_ms / 1000
        while True:
            self._wake.clear()
            if not self._parked:
                await self._wake.wait()
            await asyncio.sleep(pause_s)
            if self._parked and await self._probe(min(self._parked)):
                for ntf_id in list(self._parked):
                    self._engine.tell("notification", ntf_id, Envelope(Redispatch(), priority=True))
                    await asyncio.sleep(1 / PER_SECOND)

    async def _probe(self, ntf_id: str) -> bool:
        state = self._engine.store.get("notification", ntf_id)
        if not isinstance(state, Notification) or state.state != "parked":
            self._parked.pop(ntf_id, None)
            return False
        started = self._now()
        payload = msgspec.json.encode({**state.body, "late": True})
        trace = tuple(state.first_ref.split(":"))
        result = await self._publisher.publish(subject_of(state), payload, ntf_id, (trace[0], trace[-1]))
        if result.kind not in ("ok", "duplicate"):
            return False
        self._parked.pop(ntf_id, None)
        message = SentLate(started, self._now())
        self._engine.tell(
            "notification", ntf_id, Envelope(message, trace_id=trace[0], span_id=trace[-1], priority=True)
        )
        return True
