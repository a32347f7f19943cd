"""One NATS connection of the runtime, with defaults that notice a dead link in seconds and never give up."""

import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import SlowConsumerError

from adapters.nats.beats import BeatParser, Take
from amends.values.errors import BadConfiguration, Unavailable
from amends.values.inboxes import inbox_prefix

log = logging.getLogger("amends.nats")
PING_S = 5
FIRST_TRIES = 10
REPEAT_S, REMEMBERED = 60.0, 64  # the same trouble is logged again after so long; so many different ones are told apart
RETRY_S: Any = 0.2  # the driver annotates it as int and takes it as it is
_QUOTED = re.compile(r"\"[^\"]*\"")
PENDING_BYTES = 64 * 1024 * 1024


async def connect(
    servers: Sequence[str], *, name: str, closed: Callable[[str], None] = lambda why: None,
    dropped: Callable[[str], None] = lambda subject: None, beats: Take | None = None, **options: Any,
) -> Client:  # fmt: skip
    """Connect; raises `Unavailable`, and `BadConfiguration` where the server refuses us.

    Options as nats-py takes them (user, password, token, tls …); answers come to the user's own inbox.

    `closed` is called when the connection has ended for good, by us or by the server (credentials that ran out): the
    driver does not seek it again then. `dropped` hears the subject of each message that came faster than it was read.
    `beats` takes heartbeats as they are read, before the driver sees them.
    """
    client = Client()
    if beats is not None:
        client._ps = BeatParser(client, beats)  # noqa: SLF001 - the driver has no other place for it
    voice = _Voice(name, client, dropped)

    async def on_closed() -> None:
        closed(str(client.last_error or ""))

    at = ", ".join(map(_shown, servers))
    try:
        await client.connect(
            servers=list(servers),
            name=name,
            max_reconnect_attempts=FIRST_TRIES,  # without a bound the driver seeks the first connection for ever
            reconnect_time_wait=RETRY_S,
            ping_interval=PING_S,
            max_outstanding_pings=2,
            connect_timeout=3,
            error_cb=voice.error,
            disconnected_cb=voice.lost,
            reconnected_cb=voice.back,
            closed_cb=on_closed,
            pending_size=PENDING_BYTES,
            **{"inbox_prefix": inbox_prefix(options.get("user", ""), servers), **options},
        )
        client.options["max_reconnect_attempts"] = -1  # once connected, it is sought again for ever
    except (OSError, NatsError, TimeoutError) as error:
        # The driver's last word is that no server is left; why the server sent us away stands in what it said before.
        refused = next((said for said in (str(error), *voice.said) if "authorization" in said.lower()), "")
        if refused:
            who = f"user {options['user']!r}" if options.get("user") else "a client without a user"
            raise BadConfiguration(
                f"NATS at {at} is there and refuses {who} ({refused}); set [nats].user and password, or the "
                "AMENDS_NATS_USER and AMENDS_NATS_PASSWORD that this server's users file names"
            ) from error
        do = "start it, or correct [nats].servers (AMENDS_NATS_SERVERS)"
        raise Unavailable(f"NATS cannot be reached at {at}: {error}; {do}") from error
    return client


class _Voice:
    """What a connection says: a line when it is lost and one when it is back, and each other trouble once a minute."""

    def __init__(self, name: str, client: Client, dropped: Callable[[str], None]) -> None:
        self._name, self._client, self._dropped = name, client, dropped
        self._away_since: float | None = None
        self._heard: dict[str, float] = {}  # text → when it was last logged

    @property
    def said(self) -> list[str]:
        """What was heard lately."""
        return list(self._heard)

    async def lost(self) -> None:
        if self._away_since is None and not self._client.is_closed:  # else it is we who end it
            self._away_since = time.monotonic()
            log.warning("%s: the connection to NATS is lost; it is sought until it is back", self._name)

    async def back(self) -> None:
        if self._away_since is not None:
            away_s, self._away_since = time.monotonic() - self._away_since, None
            log.warning("%s: NATS is back after %.1f s", self._name, away_s)

    async def error(self, error: Exception) -> None:
        if isinstance(error, SlowConsumerError):
            self._dropped(error.subject)
        text, now = str(error) or type(error).__name__, time.monotonic()
        kind = _QUOTED.sub('""', text)  # one for each reply subject would be as good as none
        last = self._heard.get(kind)
        if last is not None and now - last < REPEAT_S:
            return
        if len(self._heard) >= REMEMBERED:
            self._heard.clear()
        self._heard[kind] = now
        if self._away_since is None or last is None:
            log.warning("%s: nats: %s", self._name, text)


def _shown(url: str) -> str:
    """The address without what may be a password."""
    scheme, _, rest = url.rpartition("://")
    return f"{scheme or 'nats'}://{rest.rpartition('@')[2]}"


async def close(client: Client | None) -> None:
    """Close without waiting for what is pending."""
    if client is not None and not client.is_closed:
        await client.close()
