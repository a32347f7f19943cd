"""JetStream publishing with acknowledgement, for the outbox relay and for notifications.

Streams are made at start or by an operator, never because one has vanished.
"""

import json
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, MsgspecError, Struct
from nats.aio.client import Client
from nats.errors import BadSubjectError, MaxPayloadError, NoRespondersError
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from amends.ports.bus import NOT_TOGETHER, Outgoing, Published
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
NO_BATCHES = 10174  # the stream is not made for them
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
                await self._create(name, subject)
                made.append(name)
        return made

    async def _create(self, name: str, subject: str) -> None:
        config = StreamConfig(
            name=name,
            subjects=[subject],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            max_age=DAYS_30_S,
            duplicate_window=DUPLICATE_WINDOW_S,
        )
        # The driver knows no batches; a server before 2.12 ignores the word, and takes messages one by one.
        wanted = json.dumps({**config.as_dict(), "allow_atomic": True}).encode()
        answer = await self._client.request(f"$JS.API.STREAM.CREATE.{name}", wanted, timeout=ACK_S)
        if (error := json.loads(answer.data).get("error")) is not None:
            raise APIError.from_error(error)

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

    async def missing(self) -> list[str]:
        """The streams that are not there; raises `Unavailable`."""
        found = []
        for name in SUBJECTS:
            try:
                await self._js.stream_info(name)
            except NotFoundError:
                found.append(name)
            except (NatsError, OSError, TimeoutError) as error:
                why = str(error) or "no answer; is it switched on, and may this user ask?"
                raise Unavailable(f"JetStream: {why}") from error
        return found

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

    async def publish_together(self, messages: Sequence[Outgoing]) -> Published:
        """Publish them as one atomic batch with one acknowledgement; a repeat among them refuses it."""
        if not self._client.is_connected:
            return Published("down", "bus_unavailable", "not connected to NATS")
        batch = secrets.token_hex(8)
        *before, last = (_batched(batch, number, message) for number, message in enumerate(messages, 1))
        last[2]["Nats-Batch-Commit"] = "1"
        try:
            for subject, payload, headers in before:
                await self._client.publish(subject, payload, headers=headers)
            subject, payload, headers = last
            answer = await self._client.request(subject, payload, headers=headers, timeout=ACK_S)
            told = msgspec.json.decode(answer.data, type=_Acknowledged)
        except (NatsError, OSError, TimeoutError, ValueError, TypeError) as error:
            return msgspec.structs.replace(_not_taken(error), kind="down")  # whose fault it is shows one by one
        if told.error is not None:
            code = NOT_TOGETHER if told.error.err_code == NO_BATCHES else f"jetstream_{told.error.err_code}"
            return Published("down", code, told.error.description)
        if told.count != len(messages):  # a server that knows no batches has stored the last one by itself
            return Published("down", NOT_TOGETHER, "the server takes no batches")
        return Published("ok")


class _Refusal(Struct):
    err_code: int = 0
    description: str = ""


class _Acknowledged(Struct):
    """Of JetStream's answer to a batch: how many messages it stored, or what is wrong."""

    error: _Refusal | None = None
    count: int = 0


def _batched(batch: str, number: int, message: Outgoing) -> tuple[str, bytes, dict[str, Any]]:
    headers = {
        "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number), "Nats-Msg-Id": message.message_id,
        "traceparent": traceparent(message.trace, message.message_id),
    }  # fmt: skip
    return message.subject, message.payload, headers


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
