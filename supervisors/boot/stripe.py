"""The way to Stripe, where credits are mirrored there; its library is loaded only then."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from amends.ports.steps import Outcome, StepCall
from amends.values.errors import Unavailable
from supervisors.closing import Parts
from supervisors.settings import StripeSettings
from supervisors.stripe_look import Rows, StripeLook
from supervisors.stripe_steps import StripeSteps

READ_S: Final = 20.0  # all transactions of one customer


class NoStripe:
    """Stands where nothing is mirrored: steps of a configuration that did so are held, and never come here."""

    async def run(self, call: StepCall) -> Outcome:
        """Nothing was sent."""
        return Outcome("failed", "stripe_unreachable", "[stripe].mirror_credits is off", may_have_run=False)


async def nobody(customer: str) -> list[dict[str, Any]]:
    """Of a link that is only tried out."""
    return []


class StripeLink:
    """Credits to Stripe, and what is there of them. The library is loaded here: a quarter of a second, 32 MB."""

    def __init__(self, settings: StripeSettings, now_us: Callable[[], int], rows: Rows = nobody) -> None:
        from adapters.stripe.api import StripeApi  # noqa: PLC0415
        from adapters.stripe.ledger import StripeLedger  # noqa: PLC0415
        from adapters.stripe.mirror import StripeMirror  # noqa: PLC0415

        api = StripeApi(settings.api_key, api_base=settings.api_base)
        self._mirror, self._ledger = StripeMirror(api, now_us=now_us), StripeLedger(api)
        self.steps = StripeSteps(self._mirror, now_us, look=StripeLook(rows, self.mirrored, now_us))

    async def mirrored(self, customer: str) -> dict[str, list[tuple[int, str]]]:
        """Ledger key → (minor units, currency) of each credit of that customer; raises as `StripeLedger.mirrored`."""
        try:
            async with asyncio.timeout(READ_S):
                found = await self._ledger.mirrored(customer)
        except TimeoutError:
            raise Unavailable(f"Stripe has not answered within {READ_S:.0f} s") from None
        return {key: [(one.amount_minor, one.currency) for one in made] for key, made in found.items()}

    async def close(self) -> None:
        """Close its connections."""
        await self._mirror.close()


def stripe_link(settings: StripeSettings, now_us: Callable[[], int], parts: Parts, rows: Rows) -> StripeLink | None:
    """The way there; None where `mirror_credits` is off. `rows`: what the ledger says of a customer."""
    if not settings.mirror_credits:
        return None
    link = StripeLink(settings, now_us, rows)
    parts.opened("connections to Stripe", link.close)
    return link
