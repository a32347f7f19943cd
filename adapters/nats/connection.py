"""One NATS connection of the runtime, with defaults that notice a dead link in seconds and never give up."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from amends.values.errors import Unavailable

log = logging.getLogger("amends.nats")
PING_S = 5
FIRST_TRIES = 10
RETRY_S: Any = 0.2  # the driver annotates it as int and takes it as it is
PENDING_BYTES = 64 * 1024 * 1024


async def connect(
    servers: Sequence[str], *, name: str, closed: Callable[[str], None] = lambda why: None, **options: Any
) -> Client:
    """Connect; raises `Unavailable`. Options as nats-py takes them (user, password, token, tls …).

    `closed` is called when the connection has ended for good, by us or by the server (credentials that ran out): the
    driver does not seek it again then.
    """
    client = Client()

    async def on_error(error: Exception) -> None:
        log.warning("nats: %s", error)

    async def on_closed() -> None:
        closed(str(client.last_error or ""))

    try:
        await client.connect(
            servers=list(servers),
            name=name,
            max_reconnect_attempts=FIRST_TRIES,  # without a bound the driver seeks the first connection for ever
            reconnect_time_wait=RETRY_S,
            ping_interval=PING_S,
            max_outstanding_pings=2,
            connect_timeout=3,
            error_cb=on_error,
            closed_cb=on_closed,
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
