"""The client: all calls by entity, events, webhooks; and how it connects."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from amends_client.api.callers import Callers
from amends_client.api.operators import Operators
from amends_client.calls import DEADLINE_S, Calls, Chance
from amends_client.following import Event, events
from amends_client.link import Link
from amends_client.nats_link import linked


class Client(Callers):
    """What can be asked of a runtime: `client.allocation.request(…)`, `client.node.list(…)`, `client.ops.case.show(…)`.

    Every call raises `Refused` where the runtime says no, and `Unreachable` where nobody answers until the deadline.
    Safe to use by many tasks at once.
    """

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._calls = calls
        self.ops = Operators(calls)

    def events(self, entity: str, identifier: str, after: int = 0) -> AsyncGenerator[Event]:
        """Events of an account, node, allocation, attachment or namespace, in order, for ever: `async for event in ….`

        `after`: the `seq` of the last one that was dealt with; kept by whoever must not see one twice. NATS must let
        the user read the stream: else `NoEvents` (`Handle.until` does without).
        """
        return events(self._calls.link, entity, identifier, after)

    async def forward_webhook(self, body: bytes, signature: str, *, deadline_s: float | None = None) -> bool:
        """Hand on a webhook of Stripe as it came, with its header `Stripe-Signature`; whether it was known already.

        Needs no token: the signature is the proof. Answer Stripe with 200 only when this returns. Raises `Refused` (400
        `bad_signature`) and `Unreachable`; it may be handed on as often as one likes.
        """
        reply = await self._calls.raw("ingress.stripe", body, {"Stripe-Signature": signature}, deadline_s)
        return reply.duplicate


@asynccontextmanager
async def connect(
    *servers: str, token: str = "", inbox_prefix: str = "", deadline_s: float = DEADLINE_S, seed: int | None = None,
    **nats_options: Any,
) -> AsyncIterator[Client]:  # fmt: skip
    """A client of the runtime behind these NATS servers (`nats://user:password@host:4222`), closed at the end.

    `token`: of a caller or an operator. `inbox_prefix`: where answers go; `_INBOX_<user>` if left out, as the
    documented permissions have it. `deadline_s`: of the connection and of every call that names none. `seed`: of the
    pauses between tries. `nats_options` go to nats-py (user, password, user_credentials, tls, …). Raises `Unreachable`;
    once there, the connection comes back by itself.
    """
    async with linked(servers, inbox_prefix, deadline_s, nats_options) as link:
        yield client_of(link, token=token, deadline_s=deadline_s, chance=Chance(seed))


def client_of(link: Link, *, token: str = "", deadline_s: float = DEADLINE_S, chance: Chance | None = None) -> Client:
    """A client over a link of one's own, such as a scripted one in a test."""
    return Client(Calls(link, token, deadline_s, chance))
