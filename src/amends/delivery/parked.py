"""Parked notifications: the oldest one probes the bus; when the stream acknowledges again the others follow (R07).

Publishes nothing itself: what it asks for are turns of the notifications, whose steps run like all others.
"""

import asyncio

from amends.delivery.notifications import BusHealthy, Probe
from amends.runtime.engine import Engine
from amends.turn.decision import Decision
from amends.turn.messages import Envelope, StepDone

PER_SECOND = 50
ANSWER_US = 120_000_000  # longer than a step may take: an answer that was set aside holds nobody up


class ParkedNotifications:
    """Has tried again what could not be sent. While the bus stays down a parked one adds no record."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._parked: dict[str, None] = {}
        self._some = asyncio.Event()
        self._acknowledged = asyncio.Event()  # the stream has taken a notification since the last round
        self._returned = False  # whether one came back in this round: the bus may be down again
        self._probing, self._asked_us = "", 0

    def follow(self, decision: Decision) -> None:
        """A turn of a notification."""
        if decision.kind.name != "notification" or decision.state is None:
            return
        if decision.id == self._probing and isinstance(decision.env.message, StepDone):
            self._probing = ""
        if decision.state.state == "parked":
            self._returned |= decision.id not in self._parked
            self.accept(decision.id)
        else:
            self._parked.pop(decision.id, None)
            if decision.state.state == "sent":
                self._acknowledged.set()

    def accept(self, ntf_id: str) -> None:
        """Take over a parked one."""
        self._parked[ntf_id] = None
        self._some.set()

    def __len__(self) -> int:
        return len(self._parked)

    async def run(self) -> None:
        """Probe until cancelled; silent while nothing is parked."""
        pause_s = self._engine.context.limits.backoff("notification_backoff_ms").cap_ms / 1000
        while True:
            if not self._parked:
                self._some.clear()
                await self._some.wait()
                self._acknowledged.clear()  # what was acknowledged before says nothing of the bus as it is now
            try:
                async with asyncio.timeout(pause_s):
                    await self._acknowledged.wait()
            except TimeoutError:
                self._ask()
                continue
            self._acknowledged.clear()
            self._returned = False
            for ntf_id in list(self._parked):
                if self._returned:
                    break
                self._tell(ntf_id, BusHealthy())
                await asyncio.sleep(1 / PER_SECOND)

    def _ask(self) -> None:
        """Have the oldest probe the bus, unless one that was asked has yet to answer."""
        now_us = self._engine.now_us()
        answered = self._probing not in self._parked or now_us - self._asked_us > ANSWER_US
        if self._parked and answered:
            self._probing, self._asked_us = min(self._parked), now_us
            self._tell(self._probing, Probe())

    def _tell(self, ntf_id: str, message: object) -> None:
        self._engine.tell("notification", ntf_id, Envelope(message, priority=True))
