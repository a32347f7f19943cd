"""Credits to the simulated Stripe in one process: no sockets, and the time of the loop it runs on.

Outcomes are those of the real adapter's table, which `tests/adapters/stripe` holds both to.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from msgspec import Struct

from adapters.simulated.faults import CALM, Faults
from adapters.simulated.stripe_book import API_KEY, Begun, StripeBook
from adapters.simulated.stripe_errors import Reply, Request, Thing
from adapters.simulated.stripe_events import encoded, signature
from adapters.simulated.stripe_routes import new_book
from amends.ports.steps import Outcome, OutcomeKind, StepCall

FORGOTTEN_US: Final = 23 * 3_600_000_000
MAX_PAGES: Final = 100
TICK_S: Final = 0.001  # what is left may be less than a clock of seconds since 1970 can add
NO_WAY: Final = Outcome("failed", "stripe_unreachable", "connection refused", may_have_run=False)
BROKEN: Final = Outcome("unknown", "stripe_unreachable", "the connection was lost")
REFUSED: Final = ("failed", "stripe_refused", False)
UNKNOWN_KEY: Final = ("failed", "stripe_unauthorized", False)
# By status; what is not here, and no other 4xx, is Stripe's own error.
BY_STATUS: Final[dict[int, tuple[OutcomeKind, str, bool]]] = {
    400: REFUSED, 401: UNKNOWN_KEY, 402: REFUSED, 403: UNKNOWN_KEY, 404: REFUSED,
    409: ("unknown", "stripe_in_flight", True),
    429: ("failed", "stripe_rate_limited", False),
}  # fmt: skip


class Sent(Struct):
    """A request on its way; `reply` when it is `over`, None if nobody is answered."""

    begun: Begun
    due_s: float
    reply: Reply | None = None
    over: bool = False


class SimulatedStripe:
    """What is kept when a runtime dies. `up` false: it cannot be reached."""

    def __init__(self, now_s: Callable[[], float], api_key: str = API_KEY) -> None:
        self.book: StripeBook = new_book(now_s, api_key)
        self.up = True
        self._sent: list[Sent] = []

    def send(self, begun: Begun) -> Sent:
        """Take a request; it is done when its time has come, whether or not anybody still waits for it."""
        sent = Sent(begun, self.book.now_s() + begun.delay_s)
        self._sent.append(sent)
        return sent

    def settle(self) -> None:
        """Do what is due."""
        for sent in [each for each in self._sent if each.due_s <= self.book.now_s()]:
            self._sent.remove(sent)
            sent.reply, sent.over = self.book.finish(sent.begun), True

    def customer(self, **fields: str) -> str:
        """One more customer; its id."""
        return str(self.book.call("POST", "/v1/customers", dict(fields))["id"])

    def webhook(self, event: Thing, secret: str) -> tuple[bytes, str]:
        """Body and `Stripe-Signature` of an event (`book.listeners` get them), signed now by the simulator's clock."""
        body = encoded(event)
        return body, signature(body, secret, self.book.now_s())

    def mirrored(self, customer: str) -> dict[str, list[tuple[str, int, str]]]:
        """Ledger key → its credits: transaction, amount above zero, currency. What is due is done before."""
        self.settle()
        found: dict[str, list[tuple[str, int, str]]] = {}
        for each in self.book.of("customer_balance_transaction").values():
            if each["customer"] == customer and (key := each["metadata"].get("ledger_key")):
                found.setdefault(key, []).append((each["id"], -each["amount"], each["currency"]))
        return found


class _Credit(Struct, frozen=True):
    """As `adapters.stripe.mirror.Credit`, which another adapter does not know."""

    customer: str
    amount_minor: int
    currency: str
    ledger_key: str
    first_us: int
    generation: int = 0
    look_up: bool = False


class _Lost(Exception):
    """Nobody answers; the outcome says what may be."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


class SimulatedMirror:
    """Implements `amends.ports.steps.StepRunner` for `stripe.credit`, for one process, which passes `faults`."""

    def __init__(
        self, stripe: SimulatedStripe, *, now_us: Callable[[], int], faults: Faults = CALM, api_key: str = API_KEY,
        max_pages: int = MAX_PAGES,
    ) -> None:  # fmt: skip
        self._stripe, self._now_us, self._faults, self._api_key = stripe, now_us, faults, api_key
        self._max_pages = max_pages

    async def run(self, call: StepCall) -> Outcome:
        """One try, within `call.timeout_ms`."""
        credit = msgspec.convert(call.args, _Credit)
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                await self._faults.before(call.name)
                outcome = await self._act(credit)
                await self._faults.after(call.name)
        except TimeoutError:
            return Outcome("unknown", "stripe_timeout", f"no answer within {call.timeout_ms} ms")
        return outcome

    async def _act(self, credit: _Credit) -> Outcome:
        if credit.look_up or self._now_us() - credit.first_us >= FORGOTTEN_US:
            known = await self._looked_up(credit)
            if known is not None:
                return known
        metadata = {"ledger_key": credit.ledger_key, "source": "amends"}
        params = {"amount": str(-credit.amount_minor), "currency": credit.currency, "metadata": metadata}
        key = f"{credit.ledger_key}#{credit.generation}" if credit.generation else credit.ledger_key
        try:
            reply = await self._ask("POST", credit.customer, params, key)
        except _Lost as lost:
            return lost.outcome
        return Outcome("done", data={"transaction": reply.body["id"]}) if reply.status == 200 else _judged(reply)

    async def _looked_up(self, credit: _Credit) -> Outcome | None:
        after: Thing = {}
        since = str(max(0, credit.first_us // 1_000_000 - 86_400))
        for _ in range(self._max_pages):
            try:
                reply = await self._ask("GET", credit.customer, {"limit": "100", "created": {"gte": since}, **after})
            except _Lost as lost:
                return _open(lost.outcome)
            if reply.status != 200:
                return _open(_judged(reply))
            for one in _of_key(reply.body["data"], credit.ledger_key):
                if (one["amount"], one["currency"]) == (-credit.amount_minor, credit.currency):
                    return Outcome("done", data={"transaction": one["id"]})
                return Outcome("failed", "stripe_idempotency", f"{one['id']} has another amount")
            if not reply.body["has_more"]:
                return None
            after = {"starting_after": reply.body["data"][-1]["id"]}
        return Outcome("unknown", "stripe_too_many", "more transactions than may be read")

    async def _ask(self, method: str, customer: str, params: Thing, key: str = "") -> Reply:
        """An answer; raises `_Lost`."""
        if not self._stripe.up:
            raise _Lost(NO_WAY)
        path = f"/v1/customers/{customer}/balance_transactions"
        self._stripe.settle()
        begun = self._stripe.book.begin(Request(method, path, params, key, self._api_key))
        if isinstance(begun, Reply):
            return begun
        if begun.fault == "refuse":
            raise _Lost(NO_WAY)
        sent = self._stripe.send(begun)
        self._stripe.settle()
        while not sent.over:
            await asyncio.sleep(max(TICK_S, sent.due_s - self._stripe.book.now_s()))
            self._stripe.settle()
        if sent.reply is None:
            raise _Lost(BROKEN)
        return sent.reply


def _of_key(things: list[Thing], ledger_key: str) -> Iterator[Thing]:
    return (each for each in things if each["metadata"].get("ledger_key") == ledger_key)


def _open(outcome: Outcome) -> Outcome:
    """A look-up that did not come to an end: an earlier try may have run."""
    kind: OutcomeKind = "failed" if outcome.code in ("stripe_refused", "stripe_unauthorized") else "unknown"
    return msgspec.structs.replace(outcome, kind=kind, may_have_run=True)


def _judged(reply: Reply) -> Outcome:
    error, data = reply.body["error"], {"http_status": reply.status}
    if reply.status == 400 and error["type"] == "idempotency_error":
        return Outcome("failed", "stripe_idempotency", error["message"], data=data)
    stored = reply.headers.get("Idempotent-Replayed") == "true"
    own: tuple[OutcomeKind, str, bool] = ("unknown", "stripe_stored_error" if stored else "stripe_error", True)
    kind, code, ran = BY_STATUS.get(reply.status, own)
    return Outcome(kind, code, error["message"], ran, {**data, "replayed": True} if stored else data)
