"""JetStream publishing with acknowledgement, for the outbox relay and for notifications.

Streams are made at start or by an operator, never because one has vanished.
"""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, MsgspecError, Struct
from nats.aio.client import Client
from nats.errors import BadSubjectError, MaxPayloadError, NoRespondersError
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from amends.ports.bus import Published
from amends.values import ids
from amends.values.errors import Unavailable

EVENTS, NOTIFICATIONS = "AMENDS_EVT", "AMENDS_NTF"
SUBJECTS = {EVENTS: "amends.v1.evt.>", NOTIFICATIONS: "amends.v1.ntf.>"}
ACK_S = 2.0
DAYS_30_S = 30 * 86400
DUPLICATE_WINDOW_S = 600
# JetStream's error codes that blame this very message. Every other one is the stream's, the account's or the cluster's
# trouble and passes when that does: at its limits or store failed (10077), sealed (10109), not found (10059), offline
# (10118), too many requests (10167), resources (10002, 10023, 10028, 10047), JetStream off (10039, 10076), no leader
# (10008, 10009), "bad request" (10003) and what is unknown. Codes about headers that are never set here (expected
# sequence or stream, per-message TTL, batches) blame somebody in between and are waited out as well.
BLAMES_MESSAGE = {10054: "larger than the stream takes", 10097: "its header is larger than 64 KiB"}


def traceparent(trace: tuple[str, str], message_id: str) -> str:
    """The W3C header of a (trace id, span id). What no span has caused gets an id of its own: none may be empty."""
    return f"00-{trace[0]}-{trace[1] or ids.span_id('message', message_id)}-01"


class _Told(Struct):
    """Of JetStream's answer about a stream: its leader's clock; an older server, or no stream, tells none."""

    ts: Annotated[datetime, Meta(tz=True)] | None = None


class JetStreamPublisher:
    """Implements `amends.ports.bus.Publisher`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._js = client.jetstream(timeout=ACK_S)

    async def create_streams(self) -> list[str]:
        """Make the streams that are missing; returns which. Only at start or by an operator's word."""
        try:
            return await self._create_missing()
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the streams cannot be made: {error}") from error

    async def _create_missing(self) -> list[str]:
        made = []
        for name, subject in SUBJECTS.items():
            try:
                await self._js.stream_info(name)
            except NotFoundError:
                await self._js.add_stream(
                    StreamConfig(
                        name=name,
                        subjects=[subject],
                        storage=StorageType.FILE,
                        retention=RetentionPolicy.LIMITS,
                        discard=DiscardPolicy.OLD,
                        max_age=DAYS_30_S,
                        duplicate_window=DUPLICATE_WINDOW_S,
                    )
                )
                made.append(name)
        return made

    async def clock_us(self) -> int | None:
        """What the broker's clock says; None where it does not tell, or is away. The driver drops it, so we ask."""
        if not self._client.is_connected:
            return None
        try:
            answer = await self._client.request(f"$JS.API.STREAM.INFO.{EVENTS}", timeout=ACK_S)
            told = msgspec.json.decode(answer.data, type=_Told).ts
        except (NatsError, OSError, TimeoutError, MsgspecError):
            return None
        return int(told.timestamp() * 1_000_000) if told is not None and told.year > 1 else None  # Go's zero time

    async def publish(self, subject: str, payload: bytes, message_id: str, trace: tuple[str, str]) -> Published:
        """Publish and wait for the acknowledgement; one marked duplicate counts as published (R01)."""
        if not self._client.is_connected:
            return Published("down", "bus_unavailable", "not connected to NATS")
        headers = {"Nats-Msg-Id": message_id, "traceparent": traceparent(trace, message_id)}
        try:
            ack = await self._js.publish(subject, payload, headers=headers, timeout=ACK_S)
        except (NatsError, OSError, TimeoutError, ValueError, TypeError) as error:
            return _not_taken(error)
        return Published("duplicate" if ack.duplicate else "ok")


def _not_taken(error: Exception) -> Published:
    """What the driver's error says of the message or of the bus."""
    if isinstance(error, MaxPayloadError):
        return Published("poison", "too_large", str(error))
    if isinstance(error, BadSubjectError):
        return Published("poison", "bad_subject", str(error))
    if isinstance(error, NoStreamResponseError | NoRespondersError):
        return Published("down", "no_stream", "no stream takes the subject")
    if isinstance(error, APIError):
        poison = error.err_code in BLAMES_MESSAGE
        return Published("poison" if poison else "down", f"jetstream_{error.err_code}", str(error.description))
    if isinstance(error, TimeoutError):
        return Published("down", "ack_timeout", str(error) or "no acknowledgement in time")
    if isinstance(error, NatsError | OSError):
        return Published("down", "bus_unavailable", str(error) or type(error).__name__)
    # Somebody else has answered the subject: no acknowledgement.
    return Published("down", "bad_ack", f"{type(error).__name__}: {error}")
