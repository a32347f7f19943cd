"""Idempotency keys of the simulated Stripe.

Follows "Idempotent requests" and "Advanced error handling" of Stripe's documentation: status and body of the first
request with a key are kept once its endpoint has begun, 4xx and 500 as well, and come again with
`Idempotent-Replayed: true`; one that failed validation, was limited (429) or met another under way (409) keeps nothing.
The same key with other parameters, or at another endpoint, is an `idempotency_error`. A key may be forgotten when it is
24 hours old: here it is, at once. Keys have at most 255 characters.
"""

from typing import Final

import msgspec
from msgspec import Struct

from adapters.simulated.stripe_errors import Refusal, Reply, Request, full, invalid

FORGOTTEN_S: Final = 24 * 3600
MAX_KEYS: Final = 500_000
MAX_CHARS: Final = 255
_CANONICAL: Final = msgspec.json.Encoder(order="deterministic")


class Kept(Struct):
    """What is known of a key; `reply` is None while its first request is under way."""

    first: str
    at_s: float
    request_id: str
    reply: Reply | None = None


class Keys:
    """All keys that are remembered, the oldest first."""

    def __init__(self, kept: dict[str, Kept] | None = None) -> None:
        # What was under way when the simulator ended has not been done.
        self.kept = {key: entry for key, entry in (kept or {}).items() if entry.reply is not None}

    def begin(self, request: Request, request_id: str, now_s: float) -> Reply | None:
        """The kept reply of an earlier request; None: this one is the first, and under way now. Raises `Refusal`."""
        if len(request.key) > MAX_CHARS:
            raise invalid(f"Idempotency keys have at most {MAX_CHARS} characters", "Idempotency-Key")
        self._forget(now_s)
        first = _CANONICAL.encode([request.method, request.path, request.params]).decode()
        known = self.kept.get(request.key)
        if known is None:
            if len(self.kept) >= MAX_KEYS:
                raise full("idempotency keys")
            self.kept[request.key] = Kept(first, now_s, request_id)
            return None
        if known.first != first:
            words = "Keys for idempotent requests can only be used with the same parameters they were first used with."
            raise Refusal(400, words, kind="idempotency_error", began=False)
        if known.reply is None:
            raise in_flight()
        headers = {"Idempotent-Replayed": "true", "Original-Request": known.request_id}
        if known.reply.status >= 500:
            headers["Stripe-Should-Retry"] = "false"
        return msgspec.structs.replace(known.reply, headers=headers)

    def end(self, key: str, reply: Reply | None) -> None:
        """The request is over; without a reply nothing is kept."""
        if reply is None:
            self.kept.pop(key, None)
        elif key in self.kept:
            self.kept[key].reply = reply

    def _forget(self, now_s: float) -> None:
        while self.kept:
            key = next(iter(self.kept))
            if now_s - self.kept[key].at_s < FORGOTTEN_S:
                return
            del self.kept[key]


def in_flight() -> Refusal:
    """Another request with the key is under way."""
    words = "There is currently another in-progress request using this Idempotent Key."
    return Refusal(409, words, kind="idempotency_error", code="idempotency_key_in_use", began=False)
