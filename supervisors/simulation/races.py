"""Races by bounded exhaustive reordering: two things happen at once, and each call may be overtaken by all the others.

    explored = explore(BY_NAME["attach/release"], deviations=2)

A story comes to the moment at which the rivals begin. From then on each call to the world outside and each reply to it
is a choice: it takes its moment, or is held back while everybody else goes on (a deviation). All schedules with so many
deviations are run; where nobody overtakes what is held back, it is the schedule without that, and not gone on from.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

from msgspec import Struct

from supervisors.invariants.records import Violation
from supervisors.simulation.points import MOMENT_S, Points
from supervisors.simulation.world import Running, World

HELD_S: Final = 0.25  # above what all the rest of a race takes, below every deadline that is set there
LONGER: Final = 0.1  # by so much each of a schedule is held longer than the one before, to come after what follows it
Sound = Callable[[World], list[Violation]]  # what does not hold of a world at rest
Schedule = tuple[int, ...]  # the numbers of the choices that are held back


class Choice(Struct, frozen=True):
    """What could be held back: its number from 1, which call, and whether it was overtaken while it was."""

    number: int
    what: str
    vain: bool = False


class Held(Points):
    """Points of which those of the schedule are held back, from `begin` to `end`."""

    def __init__(self, schedule: Schedule = (), hold_s: float = HELD_S, passes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.choices: list[Choice] = []
        self.called: list[tuple[float, str]] = []  # when, and what
        self._hold_s = {each: hold_s * (1 + LONGER * number) for number, each in enumerate(schedule)}
        self._passes = ("lease renew", "commit OutboxMarkRow", *passes)
        self._open = False

    def begin(self) -> None:
        """From here on there are choices."""
        self._open = True

    def end(self) -> None:
        """The race is over."""
        self._open = False

    async def before(self, what: str) -> None:
        """It is about to happen, now or after all others."""
        self.called.append((asyncio.get_running_loop().time(), what))
        await asyncio.sleep(MOMENT_S)
        await self._choose(what, "call")

    async def after(self, what: str) -> None:
        """It has happened, which is heard now or after all others."""
        await self._choose(what, "reply")

    async def turn(self, what: str) -> None:
        """A rival is about to make a move of its own."""
        await asyncio.sleep(MOMENT_S)
        await self._choose(what, "move")

    async def _choose(self, what: str, which: str) -> None:
        if not self._open or what.startswith(self._passes):
            return
        number = len(self.choices) + 1
        self.choices.append(Choice(number, f"{what}: {which}"))
        if number in self._hold_s:
            await asyncio.sleep(self._hold_s[number])
            if len(self.choices) == number:
                self.choices[number - 1] = Choice(number, f"{what}: {which}", vain=True)


class Race(Struct, frozen=True, kw_only=True):
    """`run` has it out in a world, under one schedule, and says what does not hold when all is quiet.

    `wrong`: what of this race in particular does not hold then.
    """

    name: str
    run: Callable[[World, Held, Sound], list[Violation]]
    wrong: Callable[[World], list[Violation]] = lambda world: []
    limits: dict[str, Any] = {}
    hold_s: float = HELD_S
    passes: tuple[str, ...] = ()


class Broken(Struct, frozen=True):
    """A schedule after which something does not hold, with what was held back."""

    schedule: Schedule
    held: tuple[str, ...]
    what: str


class Explored(Struct, kw_only=True):
    """What a race came to: schedules that were run, those in vain among them, choices without any deviation."""

    race: str
    deviations: int
    runs: int = 0
    vain: int = 0
    choices: int = 0
    broken: list[Broken] = []


def alone(
    tell: Callable[[Running, Held], Coroutine[Any, Any, None]],
) -> Callable[[World, Held, Sound], list[Violation]]:
    """A race within one runtime, looked at in the very instant in which all is quiet: clocks go on."""

    def run(world: World, held: Held, sound: Sound) -> list[Violation]:
        found = list[Violation]()

        async def story(running: Running) -> None:
            await tell(running, held)
            await running.quiet()
            found.extend(sound(world))

        assert world.run(story, held), "it died of nothing"
        return found

    return run


def run(race: Race, schedule: Schedule, sound: Sound) -> tuple[list[Choice], list[str]]:
    """The choices that a race had under this schedule, and what does not hold after it."""
    world, held = World(1, **race.limits), Held(schedule, race.hold_s, race.passes)
    try:
        found = race.run(world, held, lambda world: [*sound(world), *race.wrong(world)])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
        return held.choices, [f"{type(error).__name__}: {error}"]
    return held.choices, [f"{each.name} {each.ref}: {each.what}" for each in found]


def explore(race: Race, deviations: int, sound: Sound, only: int = 0, of: int = 1) -> Explored:
    """Every schedule of a race; of several workers each has the part `only` of the first deviations."""
    found = Explored(race=race.name, deviations=deviations)
    for schedule, choices, wrong in _schedules(race, deviations, sound, only, of):
        found.runs += 1
        found.choices = found.choices or len(choices)
        found.vain += bool(schedule) and choices[schedule[-1] - 1].vain
        held = tuple(choices[number - 1].what for number in schedule)
        found.broken += [Broken(schedule, held, what) for what in wrong]
    return found


def _schedules(
    race: Race, deviations: int, sound: Sound, only: int, of: int
) -> Iterator[tuple[Schedule, list[Choice], list[str]]]:
    left: list[Schedule] = [()]
    while left:
        schedule = left.pop()
        choices, wrong = run(race, schedule, sound)
        assert all(number <= len(choices) for number in schedule), f"{race.name} never came to {schedule}"
        yield schedule, choices, wrong
        last = schedule[-1] if schedule else 0
        if len(schedule) < deviations and not (schedule and choices[last - 1].vain):
            more = range(last + 1, len(choices) + 1)
            left += [(*schedule, number) for number in more if schedule or number % of == only]
