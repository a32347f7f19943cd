"""The six races: whoever comes first, at any call, it ends well (reliability.md)."""

import asyncio

import pytest

from amends.values.errors import Fenced
from supervisors.invariants.records import Violation
from supervisors.simulation.races import Held, Race, alone, explore, run
from supervisors.simulation.rivals import RACES
from supervisors.simulation.sweep import unsound
from supervisors.simulation.world import Running, World
from tests.proof import SCHEDULES, counted
from tools.races import joined, replayed

BY_RACE = [pytest.param(race, id=race.name.replace("/", "-")) for race in RACES]


@pytest.mark.parametrize("race", BY_RACE)
def test_whatever_is_overtaken_it_ends_well(race: Race) -> None:
    found = explore(race, 1, unsound)
    assert found.broken == []
    counted[SCHEDULES] += found.runs
    assert found.runs == found.choices + 1
    assert found.runs - found.vain >= 4  # in so many orders


def test_the_named_races_are_there() -> None:
    named = ["heartbeat/verdict", "stop/debit", "double take-over", "attach/release", "webhook/retry", "operator/retry"]
    assert set(named) <= {race.name for race in RACES}


# --- how they are explored --------------------------------------------------------------------------------


class Two:
    """Two rivals of two moves each, and the orders in which they came."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.bad = ""
        self.race = Race(name="two", run=alone(self._tell), wrong=self._wrong)

    async def _tell(self, running: Running, held: Held) -> None:
        said: list[str] = []

        async def rival(*moves: str) -> None:
            for move in moves:
                await held.turn(move)
                said.append(move)

        held.begin()
        await asyncio.gather(rival("a", "b"), rival("x", "y"))
        held.end()
        self.orders.append("".join(said))

    def _wrong(self, world: World) -> list[Violation]:
        return [Violation("L1", "two", "as it may not be")] if self.orders[-1] == self.bad else []


@pytest.mark.parametrize(("deviations", "orders"), [(0, 1), (1, 4), (2, 5), (3, 6)])
def test_every_order_is_come_to_when_there_are_deviations_enough(deviations: int, orders: int) -> None:
    two = Two()
    found = explore(two.race, deviations, unsound)
    assert len(set(two.orders)) == orders  # of six that there are of two times two
    assert found.runs == len(two.orders)


def test_parts_together_are_the_whole() -> None:
    whole = explore(Two().race, 2, unsound)
    parts = [explore(Two().race, 2, unsound, part, 3) for part in range(3)]
    lines = [{name: getattr(part, name) for name in part.__struct_fields__} for part in parts]
    assert joined(lines) == [whole]


def test_what_is_broken_is_named_with_what_was_held_back_and_comes_again() -> None:
    two = Two()
    two.bad = "xyab"
    found = explore(two.race, 2, unsound)
    assert [each.what for each in found.broken] == ["L1 two: as it may not be"] * len(found.broken)
    first = found.broken[0]
    assert first.held[0] == "a: move"
    assert run(two.race, first.schedule, unsound)[1] == ["L1 two: as it may not be"]


def test_a_race_that_ends_by_an_error_is_broken() -> None:
    async def tell(running: Running, held: Held) -> None:
        held.begin()
        await held.turn("a")
        raise Fenced("no")

    found = explore(Race(name="bad", run=alone(tell)), 0, unsound)
    assert [each.what for each in found.broken] == ["Fenced: no"]


def test_a_schedule_is_replayed_call_by_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert replayed("attach/release", (1,)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "   1 HELD provider.usage: call"
    assert "   4      a customer attaches: move" in lines
