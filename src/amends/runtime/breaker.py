"""A breaker before something that everybody shares: Postgres, a stream of NATS.

Closed, all pass. A failure opens it: one caller at a time tries again as a probe, after growing waits, and whoever else
waits is charged with nothing. The first probe that succeeds closes it.
"""

import logging
from collections.abc import Callable
from typing import Any

from amends.values.backoff import Backoff

log = logging.getLogger("amends.breakers")


class Breaker:
    """One shared thing. Who owns the breaker makes the probes; `waits` lie between them.

    `said`: what the log calls it, one line when it goes and one when it is back; without it nothing is said.
    """

    def __init__(self, name: str, waits: Backoff, now_us: Callable[[], int], *, seed: int = 0, said: str = "") -> None:
        self._said = said
        self.name, self._waits, self._now, self._seed = name, waits, now_us, seed
        self.failures = self.opened = 0  # in a row now; how often it has opened
        self._since_us = 0

    @property
    def closed(self) -> bool:
        """Whether everybody may pass."""
        return not self.failures

    @property
    def wait_s(self) -> float:
        """Seconds to let pass before the next probe; 0 while closed."""
        if not self.failures:
            return 0.0
        return self._waits.delay_us(self.failures, f"{self.name}/{self.opened}", self._seed) / 1e6

    def failed(self) -> None:
        """The shared thing did not answer: open, or stay so."""
        if not self.failures:
            self.opened += 1
            self._since_us = self._now()
            if self._said:
                log.warning("%s does not answer as it should; what is for it waits", self._said)
        self.failures += 1

    def resume(self, failures: int) -> None:
        """An outage that began before this start goes on, `failures` in a row by now."""
        self.failed()
        self.failures = failures

    def succeeded(self) -> None:
        """It has answered: closed."""
        if self.failures and self._said:
            log.warning("%s is back after %.1f s", self._said, (self._now() - self._since_us) / 1e6)
        self.failures = 0

    def detail(self) -> dict[str, Any]:
        """What the supervision tree shows of it."""
        if self.closed:
            return {"breaker": "closed"}
        return {"breaker": "open", "failures": self.failures, "open_ms": (self._now() - self._since_us) // 1000}
