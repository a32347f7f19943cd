"""The way to Stripe, where credits are mirrored there; its library is loaded only then."""

from collections.abc import Callable

from amends.ports.steps import Outcome, StepCall
from supervisors.closing import Parts
from supervisors.settings import StripeSettings
from supervisors.stripe_steps import StripeSteps


class NoStripe:
    """Stands where nothing is mirrored: steps of a configuration that did so are held, and never come here."""

    async def run(self, call: StepCall) -> Outcome:
        """Nothing was sent."""
        return Outcome("failed", "stripe_unreachable", "[stripe].mirror_credits is off", may_have_run=False)


def stripe_steps(settings: StripeSettings, now_us: Callable[[], int], parts: Parts) -> StripeSteps | None:
    """Who does steps at Stripe; None where `mirror_credits` is off."""
    if not settings.mirror_credits:
        return None
    from adapters.stripe.api import StripeApi  # noqa: PLC0415 - a quarter of a second, and 80 MB with its models
    from adapters.stripe.mirror import StripeMirror  # noqa: PLC0415

    mirror = StripeMirror(StripeApi(settings.api_key, api_base=settings.api_base), now_us=now_us)
    parts.opened("connections to Stripe", mirror.close)
    return StripeSteps(mirror, now_us)
