"""Steps at Stripe behind a breaker: while it cannot be reached, steps for it are held and spend no try."""

from collections.abc import Callable

from actors.account.mirror import AWAY
from amends.ports.steps import Outcome, StepCall, StepRunner
from amends.runtime.breaker import Breaker
from amends.values.backoff import Backoff
from supervisors.stripe_look import STEP as LOOK

WAITS = Backoff(1_000, 60_000)


class StripeSteps:
    """Implements `amends.ports.steps.StepRunner`; `there` says whether a step may be started now.

    `look`: who does the step that only reads.
    """

    def __init__(
        self, runner: StepRunner, now_us: Callable[[], int], seed: int = 0, *, look: StepRunner | None = None
    ) -> None:
        self._runner, self._look, self._now_us = runner, look, now_us
        self.breaker = Breaker("stripe", WAITS, now_us, seed=seed, said="Stripe")
        self._next_us = self._under_way = 0

    def there(self) -> bool:
        """Whether it answers, as far as we know, or may be asked again: one step is the probe."""
        return self.breaker.closed or (not self._under_way and self._now_us() >= self._next_us)

    async def run(self, call: StepCall) -> Outcome:
        """Do it, and learn from it."""
        self._under_way += 1
        failures = self.breaker.failures
        try:
            runner = self._look if call.name == LOOK and self._look is not None else self._runner
            outcome = await runner.run(call)
        finally:
            self._under_way -= 1
        if outcome.code in AWAY:
            if self.breaker.failures == failures:  # of those that were under way together one counts
                self.breaker.failed()
                self._next_us = self._now_us() + int(self.breaker.wait_s * 1e6)
        else:
            self.breaker.succeeded()
        return outcome
