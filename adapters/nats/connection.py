"""One NATS connection of the runtime, with defaults that notice a dead link in seconds and never give up."""

import logging
from collections.abc import Sequence
from typing import Any

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from amends.values.errors import Unavailable

log = logging.getLogger("amends.nats")
PING_S = 5
FIRST_TRIES = 10
PENDING_BYTES = 64 * 1024 * 1024


async def connect(servers: Sequence[str], *, name: str, **options: Any) -> Client:
    """Connect; raises `Unavailable`. Options as nats-py takes them (user, password, token, tls …)."""

    async def on_error(error: Exception) -> None:
        log.warning("nats: %s", error)

    try:
        client = await nats.connect(
            servers=list(servers),
            name=name,
            max_reconnect_attempts=FIRST_TRIES,  # without a bound the driver seeks the first connection for ever
            reconnect_time_wait=0.2,
            ping_interval=PING_S,
            max_outstanding_pings=2,
            connect_timeout=3,
            error_cb=on_error,
            pending_size=PENDING_BYTES,
            **options,
        )
        client.options["max_reconnect_attempts"] = -1  # once connected, it is sought again for ever
    except (OSError, NatsError, TimeoutError) as error:
        raise Unavailable(f"NATS cannot be reached at {', '.join(map(_shown, servers))}: {error}") from error
    return client


def _shown(url: str) -> str:
    """The address without what may be a password."""
    scheme, _, rest = url.rpartition("://")
    return f"{scheme or 'nats'}://{rest.rpartition('@')[2]}"


async def close(client: Client | None) -> None:
    """Close without waiting for what is pending."""
    if client is not None and not client.is_closed:
        await client.close()
