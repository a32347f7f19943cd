"""Stripe's webhook, over HTTP and over NATS alike: signature, what the event says, whether it is known, its turn.

Deliveries of one event are taken one after another, so that what an earlier one came to is read and not guessed; those
of different events side by side. An answer means committed.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from actors.payment.messages import StripeEvent
from actors.payment.reading import read_event
from actors.payment.state import Said
from actors.tables import StripeEventRow
from amends.ports.journal import Journal
from amends.runtime.engine import Engine
from amends.runtime.requests import Endpoint, Entry
from amends.turn.messages import CommandInfo, Envelope
from amends.values import ids
from amends.values.errors import Rejected

log = logging.getLogger("amends.payments")
SUBJECT = "ingress.stripe"
MOST = 256  # deliveries under way
REPLY_S = 30.0
T = TypeVar("T")
Verify = Callable[[bytes, str], None]  # body and header; raises ValueError that says why it is not Stripe's
Count = Callable[[str, str], None]  # a refusal for the audit: where it came from, of which kind


class Delivery(Struct, frozen=True):
    """ingress.stripe: an event as Stripe sent it, with whatever else it has; nothing is read before its signature."""

    id: str
    type: str
    data: dict[str, Any]


class Webhooks:
    """Takes deliveries from `open` on. `take` raises `Rejected`, `Unavailable`."""

    def __init__(self, engine: Engine, journal: Journal, verify: Verify, refused: Count) -> None:
        self._engine, self._journal, self._verify, self._refused = engine, journal, verify, refused
        self._flying: dict[str, asyncio.Future[None]] = {}  # by event, the delivery that is under way
        self._under_way, self._open = 0, False
        self.taken = self.duplicates = 0

    def open(self) -> None:
        """What an earlier runtime left has been taken up: now new things may come in."""
        self._open = True

    def endpoints(self) -> list[Endpoint]:
        """Its subject."""
        return [Endpoint(subject=SUBJECT, request=Delivery, role="signed", raw=self._over_nats)]

    async def take(self, body: bytes, signature: str, source: str) -> dict[str, Any]:
        """One delivery; `source`: by which way it came. The answer says whether it was a duplicate."""
        try:
            self._verify(body, signature)
        except ValueError as error:
            self._refused(source, "bad_signature")
            raise Rejected(
                "bad_signature", f"this is not signed by Stripe: {error}", field="Stripe-Signature"
            ) from None
        if self._under_way >= MOST:
            raise Rejected("throttled", f"{MOST} deliveries are under way; send it again")
        self._under_way += 1
        try:
            answer = await self._in_turn(self._read(body, source))
        finally:
            self._under_way -= 1
        self.taken += 1
        self.duplicates += bool(answer["duplicate"])
        return answer

    def _read(self, body: bytes, source: str) -> Said:
        """What it says; what is signed and cannot be read may move money, so it leaves a trace."""
        try:
            return read_event(body, self._engine.now_us())
        except Rejected as error:
            self._refused(source, "unreadable_event")
            log.warning("an event that Stripe has signed cannot be read: %s", error)
            raise

    async def _over_nats(self, data: bytes, headers: Mapping[str, str], entry: Entry) -> dict[str, Any]:
        return await self.take(data, headers.get("Stripe-Signature", ""), "nats")

    async def _in_turn(self, said: Said) -> dict[str, Any]:
        """After the deliveries of the same event that came before."""
        while (earlier := self._flying.get(said.event_id)) is not None:
            await _within(earlier)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flying[said.event_id] = over

        def landed() -> None:
            if self._flying.pop(said.event_id, None) is over:
                over.set_result(None)

        try:
            known = await self._journal.find(StripeEventRow, said.event_id)
            if known is not None:  # told to whom it was told first, however it would be read today
                said = replace(said, payment_id=known.payment_id)
            result = self._tell(StripeEvent(said, known.state if known is not None else ""))
        except BaseException:
            landed()
            raise
        result.add_done_callback(lambda done: landed())  # also when nobody waits for it any more
        return await _within(result)

    def _tell(self, message: StripeEvent) -> "asyncio.Future[dict[str, Any]]":
        engine = self._engine
        if engine.stopping or not self._open:
            raise Rejected("draining", "the runtime is being stopped, or not yet serving; send it again")
        if engine.writer.full:
            raise Rejected("throttled", "too many turns wait for the database; send it again")
        now_us = engine.now_us()
        request_id = ids.type_id("req", now_us, engine.entropy(10))
        trace_id, span_id = ids.trace_id("request", request_id), ids.span_id("command", request_id)
        info = CommandInfo("stripe", "", "", SUBJECT, request_id, trace_id, span_id, "", now_us)
        result: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def reply(data: dict[str, Any] | None, error: Rejected | None) -> None:
            if result.done():
                return
            if error is not None:
                result.set_exception(error)
                result.exception()  # whoever waits hears it; if nobody does, it is no failure of the loop
            else:
                result.set_result(data or {})

        env = Envelope(
            message, trace_id=trace_id, span_id=span_id, actor="stripe", request_id=request_id, command=info,
            reply=reply,
        )  # fmt: skip
        engine.tell("payment", message.said.payment_id, env)
        return result


async def _within(future: "asyncio.Future[T]") -> T:
    """What it comes to; raises `Rejected` when that takes too long."""
    await asyncio.wait({future}, timeout=REPLY_S)
    if not future.done():
        raise Rejected("deadline_exceeded", "not committed in time; send it again")
    return future.result()
