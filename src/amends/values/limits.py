"""Limits: the `[timing]` keys a process runs with. The kernel asks by name; the table itself is the domain's."""

from collections.abc import Mapping

from amends.values.backoff import Backoff
from amends.values.errors import BadConfiguration

LimitValue = int | tuple[int, int]


class Limits:
    """Read-only `[timing]` values (milliseconds, counts, percents) under their contract names."""

    def __init__(self, values: Mapping[str, LimitValue], *, seed: int = 0) -> None:
        self._values = dict(values)
        self.seed = seed

    def __call__(self, key: str) -> int:
        """The whole number under `key`."""
        value = self._get(key)
        if not isinstance(value, int):
            raise BadConfiguration(f"[timing] {key} must be one number, not a range")
        return value

    def us(self, key: str) -> int:
        """The milliseconds under `key`, in microseconds."""
        return self(key) * 1000

    def backoff(self, key: str) -> Backoff:
        """The range `[first, cap]` under `key`."""
        value = self._get(key)
        if isinstance(value, int):
            return Backoff(value, value)
        return Backoff(*value)

    def delay_us(self, key: str, attempt: int, what: str) -> int:
        """The wait after the `attempt`-th try of `what`, microseconds."""
        return self.backoff(key).delay_us(attempt, what, self.seed)

    def _get(self, key: str) -> LimitValue:
        try:
            return self._values[key]
        except KeyError:
            raise BadConfiguration(f"[timing] {key} is not set") from None
