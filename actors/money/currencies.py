"""Units of currencies where Stripe's count is not the currency's own: its list of special cases."""

IN_HUNDREDTHS = ("isk", "ugx")  # counted by Stripe in hundredths that do not exist


def own_units(amount: int, currency: str) -> int:
    """An amount of Stripe's in the currency's own minor unit."""
    return amount // 100 if currency in IN_HUNDREDTHS else amount


def stripe_units(amount: int, currency: str) -> int:
    """An amount in the currency's own minor unit as Stripe counts it."""
    return amount * 100 if currency in IN_HUNDREDTHS else amount
