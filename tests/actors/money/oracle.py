"""The contract's arithmetic once more, from its page and with Python's integers: it calls nothing of the product.

The policy is the file as tomllib reads it. Instants in microseconds, amounts in minor units.
"""

import tomllib
from typing import Any

from supervisors.policy_file import BUILT_IN

FILE: dict[str, Any] = tomllib.loads(BUILT_IN.read_text())
PER = 3_600_000_000 * 1_000_000


def usage(rate: int, start: int, t: int, unit: int = FILE["time"]["unit_us"]) -> int:
    """C(t)."""
    return 0 if t <= start else rate * ((t - start) // unit) * unit // PER


def rule_of(cause: str, reason: str) -> dict[str, Any]:
    found: dict[str, Any]
    for found in FILE["rule"]:
        if found["cause"] == cause and found.get("reason", "*") in ("*", reason):
            return found
    raise AssertionError(cause)


class Account:
    """One meter's life by the book: what is posted, what was given back, where it stands."""

    def __init__(self, rate: int, start: int, window: int) -> None:
        self.rate, self.start, self.window = rate, start, window
        self.through, self.stopped, self.capped = start, None, False
        self.debits: dict[int | str, int] = {}
        self.credits: dict[str, int] = {}
        self.overrun = 0

    stopped: int | None

    def c(self, t: int) -> int:
        return usage(self.rate, self.start, t)

    @property
    def debited(self) -> int:
        return sum(self.debits.values())

    @property
    def credited(self) -> int:
        return sum(self.credits.values())

    def post(self, until: int) -> None:
        """Everything up to that instant, window by window; the grid is the epoch's."""
        while self.through < until:
            grid = self.through // self.window * self.window
            end = min(grid + self.window, until)
            assert grid not in self.debits, "a window is posted once"
            self.debits[grid] = self.c(end) - self.c(self.through)
            self.through = end

    def end(self, cause: str, reason: str, asked: int) -> None:
        """The first cause."""
        rule, e = rule_of(cause, reason), max(asked, self.start)
        past = max(0, self.c(self.through) - self.c(e))
        self.post(e)
        if cause in FILE["minimum"]["applies_to"] and rule.get("minimum", True) and asked >= self.start:
            least = self.rate * FILE["minimum"]["billable_us"] // PER
            if least > self.c(e):
                self.debits["minimum"] = least - self.c(e)
        self._over(past, e)
        base, bp = self.c(e) - self.c(max(self.start, e - rule.get("lookback_us", 0))), rule["bp"]
        if e - self.start < rule.get("early_full_refund_us", 0):
            base, bp = self.c(e), 10_000
        raw = (base * bp + 9_999) // 10_000
        credit = min(raw, self.debited - self.credited)
        self.capped = self.capped or credit < raw
        if credit >= max(1, FILE["caps"]["min_credit_minor"]):
            self.credits[rule["id"]] = credit
        self.stopped = e

    def lower(self, asked: int) -> None:
        """A later cause: it may only lower the end."""
        assert self.stopped is not None
        e = max(asked, self.start)
        if e < self.stopped:
            self._over(self.c(self.stopped) - self.c(e), e)
            self.stopped = e

    def _over(self, owed: int, e: int) -> None:
        given = min(owed, self.debited - self.credited)
        self.capped = self.capped or given < owed
        if given:
            assert f"overrun:{e}" not in self.credits, "a credit is given once"
            self.credits[f"overrun:{e}"] = given
        self.overrun += given


def reckoned(meter: dict[str, Any], evaluations: list[dict[str, Any]], window_us: int) -> dict[str, int]:
    """Key and amount of each entry of a meter: from when it ended, for what, and how far it was posted then."""
    book = Account(meter["rate_uminor_per_hour"], meter["started_us"], window_us)
    first, *later = evaluations
    book.post(first["posted_through_us"])
    book.end(first["cause"], first["reason"], first["asked_us"])
    for one in later:
        book.lower(one["asked_us"])
    assert book.stopped == meter["stopped_us"]
    name = meter["meter_id"]
    debits = {f"debit:{name}:{key}": amount for key, amount in book.debits.items()}
    return debits | {f"credit:{name}:{key}": amount for key, amount in book.credits.items()}
