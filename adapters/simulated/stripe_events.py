"""An event of the simulated Stripe as a webhook's body, and the signature over it."""

import hmac
import json

from adapters.simulated.stripe_errors import Thing


def encoded(event: Thing) -> bytes:
    """An event's body, over several lines as Stripe sends it."""
    return json.dumps(event, indent=2, ensure_ascii=False).encode()


def signature(body: bytes, secret: str, at_s: float) -> str:
    """The `Stripe-Signature` of a body. Source: "Verify webhook signatures manually"."""
    made = hmac.new(secret.encode(), b"%d." % int(at_s) + body, "sha256").hexdigest()
    return f"t={int(at_s)},v1={made}"
