"""The state of an account."""

from actors.differences import Look
from amends.domain.kinds import ActorState


class Account(ActorState, frozen=True, kw_only=True):
    """Who pays, and in which currency."""

    currency: str
    created_us: int
    stripe_customer_id: str | None = None
    failing: int = 0  # credits on their way to Stripe that have failed and are tried again
    given_up: int = 0  # those that were given up, and are not settled
    resent: int = 0  # those of them that are on their way once more, by an operator's word
    overdrawn: bool = False  # whether its balance was below zero when it was last told
    look: Look = Look()
