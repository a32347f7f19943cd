"""The connections of a runtime to NATS: its own, one for heartbeats, and one over which the canary flies.

Each is sought again for ever when it is lost. One that the server has closed for good ends the runtime.
"""

import asyncio
from typing import Any

from nats.aio.client import Client

from adapters.nats import connection
from adapters.nats.agents import Heartbeats
from amends.runtime.trunk import ChildSpec
from amends.values.errors import Unavailable
from supervisors.closing import Parts
from supervisors.detector import Detector
from supervisors.nats_options import nats_options
from supervisors.settings import Settings


class Links:
    """Opened one after another; each is a part to be closed. Raise `Unavailable`, `BadConfiguration`."""

    def __init__(self, settings: Settings, urls: list[str], epoch: int, instance_id: str) -> None:
        self._urls, self._options, self._epoch = urls, nats_options(settings), epoch
        self._subject = f"amends.v1.canary.{instance_id}"
        self._closed, self._why = asyncio.Event(), ""

    async def open(self, parts: Parts) -> None:
        """The runtime's own, and the canary's."""
        self.client = await self._connect("amends")
        parts.opened("NATS connection", lambda: connection.close(self.client))
        self._canary = await self._connect("amends-canary")
        parts.opened("canary's connection", lambda: connection.close(self._canary))

    async def open_heartbeats(self, parts: Parts, heartbeats: Heartbeats) -> None:
        """That of the heartbeats: a flood of them takes nobody else's messages along."""
        self._beats = await self._connect("amends-heartbeats", dropped=heartbeats.drop, beats=heartbeats.take)
        parts.opened("heartbeats' connection", lambda: connection.close(self._beats))

    async def listen(self, heartbeats: Heartbeats, detector: Detector) -> None:
        """Take in heartbeats, and our own canary."""
        await heartbeats.start(self._beats)

        async def came_back(message: Any) -> None:
            detector.canary()

        await self.client.subscribe(self._subject, cb=came_back)

    def up(self) -> bool:
        """Whether the runtime's own connection stands now."""
        return self.client.is_connected

    def child(self) -> ChildSpec:
        """The service that fails when a connection is closed for good."""
        return ChildSpec(name="nats", run=self._until_closed, fatal=True, detail=lambda: {"connected": self.up()})

    async def send_canary(self, period_s: float) -> None:
        """Through the broker and back, until cancelled."""
        while True:
            if self._canary.is_connected:
                await self._canary.publish(self._subject, b"")
            await asyncio.sleep(period_s)

    async def _connect(self, name: str, **more: Any) -> Client:
        name = f"{name}-{self._epoch}"
        return await connection.connect(self._urls, name=name, closed=self._on_closed, **more, **self._options)

    def _on_closed(self, why: str) -> None:
        self._why = self._why or why
        self._closed.set()

    async def _until_closed(self) -> None:
        """A runtime whose connection is not sought again hears nothing and keeps the lease: it must end."""
        await self._closed.wait()
        why = self._why or "it did not say why"
        raise Unavailable(f"the NATS server has closed a connection of the runtime for good: {why}")
