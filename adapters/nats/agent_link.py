"""The agents' way to NATS: one connection for one agent or many, sought for ever, replaced when given up.

It speaks up once when NATS is lost and once when it is back, not at every try.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol

from nats.aio.client import Client
from nats.errors import Error as NatsError

from adapters.nats.connection import PENDING_BYTES, PING_S
from amends.values.inboxes import inbox_prefix

log = logging.getLogger("amends.agent")
RETRY_S: Final = 0.5
CLOSE_WITHIN_S: Final = 2.0
CANCEL_TRIES: Final = 10


class Served(Protocol):
    """An agent or a provider as the link sees it. `name`: what a log calls it."""

    name: str

    async def serve(self, client: Client) -> None:
        """Serve until the connection is closed for good."""


class AgentLink:
    """A NATS connection that agents run on. `options` as nats-py takes them (user, password, …)."""

    def __init__(self, servers: Sequence[str], *, name: str, **options: Any) -> None:
        self._servers, self._name = list(servers), name
        self._options: dict[str, Any] = {
            "max_reconnect_attempts": -1, "reconnect_time_wait": RETRY_S, "connect_timeout": 3,
            "ping_interval": PING_S, "max_outstanding_pings": 2, "pending_size": PENDING_BYTES,
            "error_cb": self._lost, "reconnected_cb": self._back,
            "inbox_prefix": inbox_prefix(options.get("user", ""), servers), **options,
        }  # fmt: skip
        self._client: Client | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closed = self._quiet = False

    async def run(self, agent: Served) -> None:
        """Keep the agent running until cancelled. Raises what the agent's own directory is at fault for."""
        while not self._closed:
            client = await self._connected()
            if client is None:
                break
            try:
                await agent.serve(client)
            except NatsError as error:
                log.warning("%s starts again: %s", agent.name, error)
            await asyncio.sleep(RETRY_S)  # the connection was closed for good, by the server as a rule

    async def close(self) -> None:
        """Close the connection; agents that still run end."""
        self._closed = True
        opening, self._opening = self._opening, None
        for _ in range(CANCEL_TRIES):  # on Python 3.11 the driver may swallow a cancellation
            if opening is None or opening.done():
                break
            opening.cancel()
            await asyncio.wait({opening}, timeout=RETRY_S)
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    async def _connected(self) -> Client | None:
        """The open connection; None after `close`."""
        while not self._closed and (self._client is None or self._client.is_closed):
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._open())
            opening = self._opening
            # In a task of its own and not awaited here: this one must stay cancellable, and others wait too.
            await asyncio.wait({opening})
            if not opening.cancelled():
                opening.result()  # wrong options are not the world's fault, and do not mend
        return self._client

    async def _open(self) -> None:
        while not self._closed:
            client = Client()
            try:
                await client.connect(self._servers, name=self._name, **self._options)
            except (NatsError, OSError, TimeoutError) as error:
                await self._lost(error)
                await asyncio.sleep(RETRY_S)
            except BaseException:
                await _close(client)
                raise
            else:
                await self._back()
                self._client = client
                return

    async def _lost(self, error: Exception) -> None:
        if not self._quiet:
            self._quiet = True
            log.warning("%s: NATS: %s; trying until it is back", self._name, str(error) or type(error).__name__)

    async def _back(self) -> None:
        if self._quiet:
            log.warning("%s: NATS is back", self._name)
        self._quiet = False


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await client.close()
    except (TimeoutError, NatsError, OSError) as error:
        log.info("the connection to NATS did not close cleanly: %s", error)
