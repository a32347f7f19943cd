"""The simulated Stripe without sockets and without a clock of its own: objects, events, idempotency, faults.

    book = StripeBook(now_s=time.time)
    begun = book.begin(request)          # a Reply at once, or a Begun: wait its `delay_s`, then
    reply = book.finish(begun)           # do it; None: the connection is cut

Two shells stand on it: `stripe_server` over HTTP, `stripe_steps` in one process. What is created follows Stripe's API
reference; where a module imitates more than a shape, it names the page.
"""

import re
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from adapters.simulated.stripe_errors import Refusal, Reply, Request, Thing, full, missing
from adapters.simulated.stripe_faults import BEFORE, UNHEARD, FaultPlan, broken
from adapters.simulated.stripe_keys import Kept, Keys

API_KEY: Final = "sk_test_simulated"
API_VERSION: Final = "2026-10-28.endive"  # the one that our release of the library asks for
MAX_OBJECTS: Final = 200_000  # of a kind
MAX_EVENTS: Final = 50_000  # then the oldest go; Stripe keeps them for 30 days
MAX_REQUESTS: Final = 10_000  # remembered, to be looked at
NO_REQUEST: Final[Thing] = {"id": None, "idempotency_key": None}  # of an event that no request of ours has caused

Handler = Callable[["StripeBook", Thing, tuple[str, ...]], Thing]


class Seen(Struct, frozen=True):
    """A request as it was answered; `status` 0 where it was not."""

    method: str
    path: str
    key: str
    status: int
    request_id: str


class Begun(Struct, frozen=True):
    """A request whose endpoint is about to begin."""

    request: Request
    request_id: str
    delay_s: float = 0.0
    fault: str = ""


class State(Struct):
    """All that a simulator keeps."""

    objects: dict[str, dict[str, Thing]] = {}
    counts: dict[str, int] = {}
    keys: dict[str, Kept] = {}
    ahead_s: float = 0.0


class StripeBook:
    """One account at Stripe. `ROUTES` of `stripe_routes` says which endpoint is whose."""

    def __init__(
        self, now_s: Callable[[], float], routes: tuple[tuple[str, str, Handler], ...], *, api_key: str = API_KEY,
        state: State | None = None,
    ) -> None:  # fmt: skip
        kept = state or State()
        self._wall_s, self._api_key = now_s, api_key
        self._routes = [(method, re.compile(re.sub(r"{}", r"([^/]+)", path)), do) for method, path, do in routes]
        self.objects, self._counts, self.ahead_s = kept.objects, kept.counts, kept.ahead_s
        self.keys, self.faults = Keys(kept.keys), FaultPlan()
        self.seen: deque[Seen] = deque(maxlen=MAX_REQUESTS)
        self.listeners: list[Callable[[Thing], None]] = []  # of events
        self.changes = 0
        self._request = NO_REQUEST

    # --- requests ------------------------------------------------------------------------------------

    def begin(self, request: Request) -> Reply | Begun:
        """Let it in: key of the API, faults, idempotency, in Stripe's order; a fault may keep it from beginning."""
        request_id = self.new_id("req")
        fault = self.faults.next(request)
        name = fault.kind if fault is not None else ""
        try:
            self._authenticate(request.token)
            if name in BEFORE:
                refusal = BEFORE[name]()
                raise refusal
            if request.method == "POST" and request.key and name not in UNHEARD:
                kept = self.keys.begin(request, request_id, self.now_s())
                if kept is not None:
                    return self._answer(request, request_id, kept)
        except Refusal as refusal:
            return self._answer(request, request_id, Reply(refusal.status, refusal.body))
        return Begun(request, request_id, fault.seconds if fault is not None else 0.0, name)

    def finish(self, begun: Begun) -> Reply | None:
        """Do it; None: nobody is answered. Its key holds what was answered, if the endpoint had begun."""
        request = begun.request
        if begun.fault in UNHEARD:
            self._note(request, begun.request_id, 0)
            return None
        self._request = {"id": begun.request_id, "idempotency_key": request.key or None}
        try:
            if begun.fault == "stored_error":
                raise broken()
            reply, keep = Reply(200, self.call(request.method, request.path, request.params)), True
            if begun.fault == "done_stored_error":
                reply = Reply(500, broken().body)
        except Refusal as refusal:
            reply, keep = Reply(refusal.status, refusal.body), refusal.began
        finally:
            self._request = NO_REQUEST
        if request.method == "POST":
            self.keys.end(request.key, reply if keep else None)
        self.changes += 1
        if begun.fault == "cut":
            self._note(request, begun.request_id, 0)
            return None
        return self._answer(request, begun.request_id, reply)

    def _authenticate(self, token: str) -> None:
        if token != self._api_key:
            shown = (
                f"Invalid API Key provided: {token[:8]}****{token[-4:]}" if token else "You did not provide an API key."
            )
            raise Refusal(401, shown, began=False)

    def call(self, method: str, path: str, params: Thing | None = None) -> Thing:
        """Do it at once, past keys, faults and the API key, as somebody else who uses the account; raises `Refusal`."""
        for route, pattern, do in self._routes:
            if route == method and (match := pattern.fullmatch(path)):
                self.changes += 1
                # A copy: what is answered, or kept under a key, does not change with the object.
                return copied(do(self, params or {}, match.groups()))
        raise Refusal(404, f"Unrecognized request URL ({method}: {path}).", began=False)

    def _answer(self, request: Request, request_id: str, reply: Reply) -> Reply:
        headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION, **reply.headers}
        if request.key:
            headers["Idempotency-Key"] = request.key
        self._note(request, request_id, reply.status)
        return Reply(reply.status, reply.body, headers)

    def _note(self, request: Request, request_id: str, status: int) -> None:
        self.seen.append(Seen(request.method, request.path, request.key, status, request_id))

    # --- objects -------------------------------------------------------------------------------------

    def now_s(self) -> float:
        """The simulator's clock, which `advance` moves."""
        return self._wall_s() + self.ahead_s

    def advance(self, seconds: float) -> None:
        """Let time pass, for keys and for what is created."""
        self.ahead_s += seconds
        self.changes += 1

    def new_id(self, prefix: str) -> str:
        """An id that no other object has."""
        self._counts[prefix] = self._counts.get(prefix, 0) + 1
        return f"{prefix}_{self._counts[prefix]:014d}"

    def of(self, kind: str) -> dict[str, Thing]:
        """All objects of a kind, the oldest first."""
        return self.objects.setdefault(kind, {})

    def add(self, kind: str, prefix: str, **fields: Any) -> Thing:
        """Create an object; raises `Refusal` when there are too many."""
        things = self.of(kind)
        if len(things) >= MAX_OBJECTS:
            raise full(f"objects of the kind {kind}")
        thing = {"id": self.new_id(prefix), "object": kind, "created": int(self.now_s()), "livemode": False, **fields}
        things[thing["id"]] = thing
        return thing

    def get(self, kind: str, identifier: str, param: str = "id", status: int = 404) -> Thing:
        """An object that is there; raises `Refusal` if it is not."""
        thing = self.of(kind).get(identifier)
        if thing is None:
            raise missing(kind, identifier, param, status)
        return thing

    def emit(self, name: str, thing: Thing, before: Thing | None = None) -> None:
        """An event with the object as it is now; `before` has what an update changed."""
        data: Thing = {"object": thing} if before is None else {"object": thing, "previous_attributes": before}
        event = self.add(
            "event", "evt", api_version=API_VERSION, type=name, data=copied(data), pending_webhooks=0,
            request=dict(self._request),
        )  # fmt: skip
        events = self.of("event")
        if len(events) > MAX_EVENTS:
            del events[next(iter(events))]
        self.changes += 1
        for listener in self.listeners:
            listener(event)

    def state(self) -> State:
        """All that has to be kept for another simulator to go on."""
        return State(self.objects, self._counts, self.keys.kept, self.ahead_s)


def copied(thing: Thing) -> Thing:
    """The same object once more."""
    made: Thing = msgspec.json.decode(msgspec.json.encode(thing))
    return made
