"""What holds of every meter: windows add up, credits never exceed debits, an evaluation is repeatable."""

import random
from itertools import pairwise

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.money.metering import Usage, Window, windows
from actors.money.policy import Cause
from actors.money.settlement import Meter, Settlement, lower, settle
from supervisors.policy_file import built_in
from tests.actors.money.oracle import Account, usage

POLICY = built_in()
UNIT_US, HOUR_US = POLICY.time.unit_us, POLICY.time.window_us
T0 = 1_768_478_400_000_000
LIVES = 10_000
SEED = 20_260_115
ENDS: tuple[tuple[Cause, str], ...] = (
    ("release", ""), ("force_release", "operator_request"), ("force_release", "platform_fault"), ("node_offline", ""),
    ("node_rebooted", ""),
)  # fmt: skip
EDGES_US = (0, POLICY.minimum.billable_us, 600_000_000, HOUR_US)  # after the start: where a rule says something else
WINDOWS_US = (UNIT_US, 7 * UNIT_US, 60 * UNIT_US, HOUR_US)

rates = st.integers(0, 10**15)
starts = st.integers(0, 2**52)
lengths = st.integers(0, 40 * HOUR_US)


def covered(found: list[Window], from_us: int, to_us: int, window_us: int) -> None:
    """The windows cover [from, to) once: no gap, no overlap, no empty one, each within its place on the grid."""
    if to_us <= from_us:
        assert found == []
        return
    assert (found[0].from_us, found[-1].to_us) == (from_us, to_us)
    assert all(one.to_us == other.from_us for one, other in pairwise(found))
    assert all(one.from_us < one.to_us for one in found)
    assert all(one.start_us % window_us == 0 for one in found)
    assert all(one.start_us <= one.from_us and one.to_us <= one.start_us + window_us for one in found)
    assert len({one.start_us for one in found}) == len(found), "a window has a key of its own"


@settings(deadline=None)
@given(rate=rates, start_us=starts, length_us=lengths, window=st.sampled_from([HOUR_US, 4 * HOUR_US, HOUR_US // 4]))
@example(rate=249_000_000, start_us=T0, length_us=0, window=HOUR_US)
def test_the_debits_of_all_windows_are_the_whole_usage(rate: int, start_us: int, length_us: int, window: int) -> None:
    stop_us = start_us + length_us
    found = list(windows(Usage(rate, start_us, UNIT_US), window, start_us, stop_us))
    assert sum(one.amount_minor for one in found) == usage(rate, start_us, stop_us)
    covered(found, start_us, stop_us, window)


@settings(deadline=None)
@given(rate=rates, start_us=starts, length_us=lengths, cuts=st.lists(lengths, max_size=6))
def test_in_however_many_parts_it_is_posted_it_comes_to_the_same(
    rate: int, start_us: int, length_us: int, cuts: list[int]
) -> None:
    stop_us = start_us + length_us
    edges = (start_us // HOUR_US * HOUR_US + cut // HOUR_US * HOUR_US for cut in cuts)
    parts = sorted({start_us, stop_us, *(edge for edge in edges if start_us < edge < stop_us)})
    meter = Usage(rate, start_us, UNIT_US)
    found = [one for from_us, to_us in pairwise(parts) for one in windows(meter, HOUR_US, from_us, to_us)]
    assert found == list(windows(meter, HOUR_US, start_us, stop_us))
    covered(found, start_us, stop_us, HOUR_US)


@settings(deadline=None)
@given(
    start_us=starts, number=st.integers(1, 40), off_us=st.sampled_from([-1, 0, 1]), posted=st.integers(0, 40),
    rate=rates,
)  # fmt: skip
def test_a_stop_beside_the_edge_of_a_window_leaves_no_empty_one(
    start_us: int, number: int, off_us: int, posted: int, rate: int
) -> None:
    first_us = start_us // HOUR_US * HOUR_US
    posted_us, stop_us = max(start_us, first_us + posted * HOUR_US), first_us + number * HOUR_US + off_us
    meter = Usage(rate, start_us, UNIT_US)
    end = settle(POLICY, Meter(meter, posted_us), "release", "", stop_us)
    covered(list(end.windows), posted_us, max(stop_us, start_us), HOUR_US)
    assert end.posted + end.final - end.overrun == usage(rate, start_us, stop_us)


@settings(deadline=None)
@given(rate=rates, start_us=starts, lengths_us=st.tuples(lengths, lengths, lengths))
def test_usage_never_falls_and_never_drifts(rate: int, start_us: int, lengths_us: tuple[int, int, int]) -> None:
    meter = Usage(rate, start_us, UNIT_US)
    times = sorted(start_us + length for length in lengths_us)
    counted = [meter.at(t_us) for t_us in times]
    assert counted == sorted(counted) == [usage(rate, start_us, t_us) for t_us in times]
    assert meter.between(times[0], times[1]) + meter.between(times[1], times[2]) == counted[2] - counted[0]
    assert [meter.at(start_us), meter.at(start_us - 1), meter.at(0)] == [0, 0, 0]


class Life:
    """One meter as the product reckons it, beside the same one by the book."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        rate = chance.choice([0, 1, 2_970_000, 249_000_000, chance.randrange(10**9), chance.randrange(10**13)])
        start = T0 + chance.randrange(2 * HOUR_US)
        window = chance.choice(WINDOWS_US)
        self.policy = msgspec.structs.replace(POLICY, time=msgspec.structs.replace(POLICY.time, window_us=window))
        self.meter, self.window_us = Usage(rate, start, UNIT_US), window
        self.book = Account(rate, start, window)
        self.through_us, self.debits, self.credits = start, list[int](), list[int]()
        self.stopped_us, self.minimum, self.overrun, self.capped = 0, 0, 0, False

    def somewhen(self) -> int:
        """An instant of the life, often right beside an edge, of a window or in a rule, sometimes before the start."""
        if self.chance.random() < 0.1:
            return self.meter.start_us + self.chance.choice(EDGES_US) + self.chance.choice([-1, 0, 1])
        place = self.meter.start_us + self.chance.randrange(-2, 120) * self.window_us
        beside = self.chance.choice([0, 0, -1, 1, self.chance.randrange(self.window_us)])
        return place // self.window_us * self.window_us + beside

    def post(self) -> None:
        """Windows that have ended, up to some edge."""
        until_us = self.somewhen() // self.window_us * self.window_us
        due = list(windows(self.meter, self.window_us, self.through_us, until_us))
        self.debits += [window.amount_minor for window in due]
        self.through_us = max(self.through_us, until_us)
        self.book.post(until_us)

    def end(self) -> None:
        """The first cause, evaluated twice."""
        (cause, reason), at_us = self.chance.choice(ENDS), self.somewhen()
        prior = self.chance.randrange(sum(self.debits) + 1) if self.chance.random() < 0.1 else 0
        if prior:  # something was given back before, in whatever way
            self.credits.append(prior)
            self.book.credits["before"] = prior
        meter = Meter(self.meter, self.through_us, prior)
        found: Settlement = settle(self.policy, meter, cause, reason, at_us)
        assert settle(self.policy, meter, cause, reason, at_us) == found, "it is repeatable"
        self.debits += [window.amount_minor for window in found.windows] + [found.minimum]
        self.credits += [found.overrun, found.policy_credit]
        assert (sum(self.debits), sum(self.credits)) == (found.debited, found.credited + prior)
        self.stopped_us, self.minimum, self.overrun = found.stop_us, found.minimum, found.overrun
        self.through_us, self.capped = max(self.through_us, found.stop_us), found.capped
        self.book.end(cause, reason, at_us)

    def later(self) -> None:
        """Another cause, which may prove an earlier end."""
        at_us = self.somewhen()
        found = lower(self.meter, self.stopped_us, sum(self.debits), sum(self.credits), at_us)
        if found is not None:
            assert found.stop_us < self.stopped_us, "the end only falls"
            self.stopped_us, self.capped = found.stop_us, self.capped or found.capped
            self.credits.append(found.overrun)
            self.overrun += found.overrun
        self.book.lower(at_us)

    def holds(self) -> None:
        """The invariants of the ledger at this instant, and that the book says the same."""
        debited, credited, book = sum(self.debits), sum(self.credits), self.book
        assert 0 <= credited <= debited
        until_us = min(self.stopped_us, self.through_us) if book.stopped is not None else self.through_us
        if self.capped:
            assert credited == debited
        else:
            assert debited - self.overrun == self.meter.at(until_us) + self.minimum
        assert (debited, credited, self.overrun) == (book.debited, book.credited, book.overrun)
        assert (self.through_us, self.capped) == (book.through, book.capped)
        assert self.stopped_us == (book.stopped or 0)


def test_ten_thousand_lives_come_to_what_the_book_says() -> None:
    capped, lowered, refunded = 0, 0, 0
    for number in range(LIVES):
        life = Life(random.Random(SEED + number))
        for _ in range(life.chance.randrange(4)):
            life.post()
            life.holds()
        life.end()
        life.holds()
        before = life.stopped_us
        for _ in range(life.chance.randrange(3)):
            life.later()
            life.holds()
        capped, lowered = capped + life.capped, lowered + (life.stopped_us < before)
        refunded += any(life.credits)
    assert min(capped, lowered, refunded) > 100, "the lives are of every kind"


def test_the_smallest_rates_over_3600_windows_come_to_the_floor_of_the_exact_total() -> None:
    """Of 1 to 999 millionths an hour most windows are 0, and what they lack is never lost."""
    second_us = 1_000_000
    for rate in (1, 2, 3, 7, 250, 333, 500, 667, 998, 999):
        for speed in (1, 1_000, 999_983):  # rates of so many hours' worth a second, too
            meter = Usage(rate * speed, T0, UNIT_US)
            found = list(windows(meter, second_us, T0, T0 + 3600 * second_us))
            assert len(found) == 3600
            assert sum(one.amount_minor for one in found) == rate * speed // 1_000_000
