"""The clock never runs backwards, and follows a stepped wall clock only slowly."""

from amends.runtime.clock import Clock


class Hands:
    def __init__(self) -> None:
        self.wall, self.mono = 1_000_000_000, 0

    def clock(self, floor_us: int = 0) -> Clock:
        return Clock(lambda: self.wall, lambda: self.mono, floor_us)

    def pass_us(self, us: int) -> None:
        self.wall += us
        self.mono += us


def test_it_follows_the_wall_clock() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.pass_us(5_000_000)
    assert clock.now_us() == 1_005_000_000
    assert not clock.stepped


def test_it_never_runs_backwards_and_slews_at_most_500_parts_per_million() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall -= 3_600_000_000
    last = clock.now_us()
    for _ in range(100):
        hands.pass_us(1_000_000)
        now = clock.now_us()
        assert 999_500 <= now - last <= 1_000_000
        last = now
    assert clock.stepped


def test_it_starts_no_earlier_than_the_persisted_high_water_mark() -> None:
    hands = Hands()
    clock = hands.clock(floor_us=2_000_000_000)
    assert clock.now_us() == 2_000_000_000
    hands.pass_us(1_000_000)
    assert 2_000_999_000 <= clock.now_us() <= 2_001_000_000


def test_a_forward_step_that_another_clock_confirms_is_taken_at_once() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall += 3_600_000_000
    assert clock.now_us() < 1_001_000_000
    # when Postgres, asked within a millisecond, says the same as the wall clock
    assert clock.compare(hands.wall + 500, hands.wall, hands.wall + 1000) == 0
    assert clock.now_us() == hands.wall
    assert not clock.stepped


def test_a_step_that_the_other_clock_does_not_confirm_or_a_backward_one_is_not() -> None:
    hands = Hands()
    clock = hands.clock()
    right = hands.wall
    hands.wall += 3_600_000_000
    assert clock.compare(right, hands.wall, hands.wall) == 3_600_000_000
    assert clock.now_us() < right + 1_000_000
    assert clock.stepped
    hands.wall = right - 10_000_000
    hands.mono += 1
    assert clock.compare(hands.wall, hands.wall, hands.wall) == 0
    assert clock.now_us() >= right
    assert clock.stepped


def test_a_wall_clock_that_is_behind_the_other_says_by_how_much() -> None:
    hands = Hands()
    assert hands.clock().compare(hands.wall + 5_000_000, hands.wall, hands.wall + 1000) == -4_999_000
