"""Matching by label: the same answers as a look through all, first come first served, and how little is looked at."""

import random
from collections.abc import ItemsView, Iterator, Mapping

import pytest

from supervisors.free_nodes import FreeNodes, Labels, WaitingRequests, Wanted

VALUES = {"site": ("a", "b", "c"), "gpu": ("none", "h100"), "disk": ("ssd", "hdd")}


def labels(rng: random.Random) -> dict[str, str]:
    return {name: rng.choice(values) for name, values in VALUES.items() if rng.random() < 0.7}


def wanted(rng: random.Random, nodes: int) -> Wanted:
    node_id = f"n{rng.randrange(nodes)}" if rng.random() < 0.2 else ""
    pairs = [(name, rng.choice(values)) for name, values in VALUES.items() if rng.random() < 0.4]
    return Wanted(frozenset(pairs), node_id)


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_free_node_that_fits_is_found(seed: int) -> None:
    rng = random.Random(seed)
    free: FreeNodes[int] = FreeNodes()
    plain: dict[str, dict[str, str]] = {}
    for number in range(400):
        name = f"n{rng.randrange(40)}"
        if rng.random() < 0.6:
            of_node = plain[name] if name in plain and rng.random() < 0.7 else labels(rng)
            if plain.get(name) != of_node:
                plain.pop(name, None)
                plain[name] = of_node
            free.add(name, of_node, number)
        else:
            assert (free.take(name) is None) == (plain.pop(name, None) is None)
        asked = wanted(rng, 40)
        assert free.first(asked) == next((each for each, has in plain.items() if asked.fits(each, has)), None)
    assert len(free) == len(plain)


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_waiting_request_that_a_node_fits_is_found(seed: int) -> None:
    rng = random.Random(seed)
    waiting: WaitingRequests[str] = WaitingRequests()
    plain: dict[str, Wanted] = {}
    for number in range(400):
        name = f"a{rng.randrange(60)}"
        if rng.random() < 0.6:
            plain.setdefault(name, wanted(rng, 10))
            waiting.add(name, plain[name], str(number))
        else:
            assert (waiting.take(name) is None) == (plain.pop(name, None) is None)
        node_id, has = f"n{rng.randrange(10)}", labels(rng)
        assert waiting.first(node_id, has) == next(
            (each for each, asked in plain.items() if asked.fits(node_id, has)), None
        )
    assert list(waiting) == list(plain)


class Looked(Mapping[str, str]):
    """Labels that count how often they are asked."""

    times = 0

    def __init__(self, **labels: str) -> None:
        self._labels = labels

    def __getitem__(self, name: str) -> str:
        Looked.times += 1
        return self._labels[name]

    def items(self) -> ItemsView[str, str]:
        return self._labels.items()

    def __iter__(self) -> Iterator[str]:
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)


def test_one_node_in_ten_thousand_is_found_without_a_look_at_the_others() -> None:
    free: FreeNodes[int] = FreeNodes()
    for number in range(10_000):
        has: Labels = Looked(site="a", gpu="h100" if number == 9_999 else "none")
        free.add(f"n{number}", has, number)
    Looked.times = 0
    assert free.first(Wanted(frozenset({("gpu", "h100"), ("site", "a")}))) == "n9999"
    assert free.first(Wanted(frozenset({("gpu", "nowhere")}))) is None
    assert Looked.times <= 2


def test_a_node_looks_at_those_who_could_want_it_only() -> None:
    waiting: WaitingRequests[int] = WaitingRequests()
    for number in range(10_000):
        waiting.add(f"a{number}", Wanted(frozenset({("host", str(number))})), number)
    Looked.times = 0
    assert waiting.first("n1", Looked(site="a")) is None
    assert waiting.first("n1", Looked(host="77")) == "a77"
    assert Looked.times == 1
