"""What an error of Stripe's library, or of the way to it, says of a try: the outcome, with a code that stays.

| what came | kind | code | may have run |
|---|---|---|---|
| no connection | failed | `stripe_unreachable` | no |
| a connection that broke | unknown | `stripe_unreachable` | yes |
| 429: the limiter stands before the endpoint | failed | `stripe_rate_limited` | no |
| 409: the same key is under way | unknown | `stripe_in_flight` | yes |
| 400 of the idempotency layer: same key, other parameters | failed | `stripe_idempotency` | yes: the first one |
| 401, 403: it does not know our key, or it may not | failed | `stripe_unauthorized` | no |
| another 4xx that Stripe itself gives | failed | `stripe_refused` | no |
| 5xx or no answer of Stripe's shape | unknown | `stripe_error` | yes |
| a 5xx that was stored under the key and comes again | unknown | `stripe_stored_error` | yes |

"May have run" is said of this try alone. A refusal is stored under its key as well once the endpoint has begun
(`data["replayed"]`): when its cause is mended, another generation of the key is needed. Source: Stripe's "Idempotent
requests" and "Advanced error handling".
"""

from typing import Any, Final

import aiohttp
import stripe

from amends.ports.steps import Outcome, OutcomeKind

NOT_CONNECTED: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
REPLAYED: Final = "Idempotent-Replayed"

Row = tuple[OutcomeKind, str, bool]
# The first class that fits counts.
BY_CLASS: Final[dict[type[stripe.StripeError], Row]] = {
    stripe.IdempotencyError: ("failed", "stripe_idempotency", True),
    stripe.RateLimitError: ("failed", "stripe_rate_limited", False),
    stripe.InvalidRequestError: ("failed", "stripe_refused", False),
    stripe.AuthenticationError: ("failed", "stripe_unauthorized", False),
    stripe.PermissionError: ("failed", "stripe_unauthorized", False),
    stripe.CardError: ("failed", "stripe_refused", False),
}
IN_FLIGHT: Final[Row] = ("unknown", "stripe_in_flight", True)
ERROR: Final[Row] = ("unknown", "stripe_error", True)
STORED: Final[Row] = ("unknown", "stripe_stored_error", True)
BROKEN: Final[Row] = ("unknown", "stripe_unreachable", True)
NO_WAY: Final[Row] = ("failed", "stripe_unreachable", False)


def outcome_of(error: Exception, message: str) -> Outcome:
    """The outcome of a try that ended with this error. `message` is the text to show, without secrets."""
    (kind, code, ran) = _row(error)
    return Outcome(kind, code, message, ran, _data(error))


def _row(error: Exception) -> Row:
    if isinstance(error, stripe.APIConnectionError):
        return NO_WAY if isinstance(error.__cause__, NOT_CONNECTED) else BROKEN
    if not isinstance(error, stripe.StripeError):
        return BROKEN  # of aiohttp: the answer ended in its middle
    for kind, row in BY_CLASS.items():
        if isinstance(error, kind):
            return row
    if error.http_status == 409:
        return IN_FLIGHT
    return STORED if _replayed(error) else ERROR


def _replayed(error: stripe.StripeError) -> bool:
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    return headers.get(REPLAYED.lower(), "").lower() == "true"


def _data(error: Exception) -> dict[str, Any]:
    if not isinstance(error, stripe.StripeError) or error.http_status is None:
        return {}
    data: dict[str, Any] = {"http_status": error.http_status}
    if error.request_id:
        data["request_id"] = error.request_id
    if _replayed(error):
        data["replayed"] = True
    return data
