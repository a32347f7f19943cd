"""What grows with what is done is told from what only wavers, and how sure that is."""

import random

import pytest

from benchmarks.flat import growth, quantile

SECONDS = range(60)
DONE = [4.0 * second for second in SECONDS]


def wavering(each: float, by: float) -> list[float]:
    chance = random.Random(1)
    return [1000 + each * done + chance.gauss(0, by) for done in DONE]


@pytest.mark.parametrize(("each", "by", "most"), [(2.2, 30, 2.0), (1.0, 4, 0.5), (1.0, 0, 0.5)])
def test_a_leak_with_each_one_is_seen_through_the_noise(each: float, by: float, most: float) -> None:
    found = growth("memory", DONE, wavering(each, by), most)
    assert not found.flat
    assert found.sharp
    assert abs(found.each - each) <= 2 * found.off + 1e-9


@pytest.mark.parametrize(("each", "by"), [(0.0, 30), (0.3, 10), (-5.0, 10)])
def test_what_only_wavers_or_falls_is_flat(each: float, by: float) -> None:
    found = growth("memory", DONE, wavering(each, by), 2.0)
    assert found.flat
    assert found.sharp


def test_what_wavers_too_much_to_tell_is_not_sharp() -> None:
    assert not growth("memory", DONE, wavering(0.0, 3000), 2.0).sharp


def test_a_quantile_is_one_of_the_values() -> None:
    assert (quantile([3, 1, 2], 0.5), quantile([3, 1, 2], 0.99), quantile([1], 0.5)) == (2, 3, 1)
