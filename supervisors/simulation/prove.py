"""`amends prove`: the crash sweep over somebody's own policy and timing, and what it came to.

Each row's story is told once without a crash; that is how it must end under this policy. Then it is told again for each
point and each way to die there, and must end so, with every invariant held.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from supervisors.simulation.points import MODES, Point
from supervisors.simulation.stories import STORIES, Story
from supervisors.simulation.sweep import Told, ended, tell, wrong
from supervisors.simulation.world import WINDOW_US, Terms

WINDOW: Final = re.compile(r"^(\s*window_us\s*=\s*)[\d_]+", re.MULTILINE)
SAID: Final = {"before": "before it", "lost": "with its reply lost", "after": "after it"}


class Crash(Struct, frozen=True):
    """One death: at which point, how, and what did not hold afterwards. `reached`: whether the story came to it."""

    number: int
    what: str
    mode: str
    reached: bool
    violations: list[str] = []

    @property
    def holds(self) -> bool:
        """Whether it was reached, and nothing was broken."""
        return self.reached and not self.violations


class Proof(Struct, frozen=True):
    """A row's sweep. `broken`: what does not hold even without a crash."""

    row: str
    points: int
    crashes: list[Crash]
    broken: list[str] = []

    @property
    def holds(self) -> bool:
        """Whether each point was reached, and nothing was broken."""
        return not self.broken and all(crash.holds for crash in self.crashes)


def with_windows(terms: Terms, unit_us: int) -> Terms:
    """The same with windows of a second, so that stories that last seconds have some; of a unit where that is more."""
    window_us = max(WINDOW_US, unit_us)
    text = WINDOW.sub(lambda found: f"{found[1]}{window_us}", terms.policy_text)
    return msgspec.structs.replace(terms, policy_text=text)


def prove(story: Story, terms: Terms, modes: tuple[str, ...] = MODES) -> Proof:
    """The sweep of one row."""
    try:
        told = tell(story, terms=terms)
    except Exception as error:  # noqa: BLE001 - a story that does not end is what was looked for
        return Proof(story.row, 0, [], [f"L1 {story.row}: {type(error).__name__}: {error}"])
    own = ended(story, told.world)
    broken = [f"{each.name} {each.ref}: {each.what}" for each in wrong(own, told.world)]
    crashes = [_died(own, terms, point, mode) for mode in modes for point in told.points] if not broken else []
    return Proof(story.row, len(told.points), crashes, broken)


def _died(story: Story, terms: Terms, point: Point, mode: str) -> Crash:
    try:
        told: Told = tell(story, point.number, mode, terms=terms)
    except Exception as error:  # noqa: BLE001 - as above
        return Crash(point.number, point.what, mode, True, [f"L1 {story.row}: {type(error).__name__}: {error}"])
    found = [f"{each.name} {each.ref}: {each.what}" for each in wrong(story, told.world)]
    return Crash(point.number, point.what, mode, told.crashed == point, found)


def stories_of(row: str) -> list[Story]:
    """Those of a row, all of them without one; none for one that is not there."""
    return [story for story in STORIES if row in ("", story.row)]


def summary(proofs: list[Proof]) -> dict[str, Any]:
    """All of it as data."""
    return {
        "holds": all(proof.holds for proof in proofs),
        "rows": [{**msgspec.to_builtins(proof), "holds": proof.holds} for proof in proofs],
    }


def page(proof: Proof, *, points: bool) -> Iterator[str]:
    """A row's line; a line for each point if that is asked for, and for whatever is not as it must be."""
    good = sum(crash.holds for crash in proof.crashes)
    unreached = sum(not crash.reached for crash in proof.crashes)
    yield (f"{proof.row}  {proof.points:4d} points, {len(proof.crashes):4d} crashes: {good} ended as they must, "
           f"{len(proof.crashes) - good - unreached} did not, {unreached} were not reached")  # fmt: skip
    yield from (f"     BROKEN without a crash: {each}" for each in proof.broken)
    by_point: dict[tuple[int, str], list[Crash]] = {}
    for crash in proof.crashes:
        by_point.setdefault((crash.number, crash.what), []).append(crash)
    for (number, what), crashes in sorted(by_point.items()):
        ended_well = sum(crash.holds for crash in crashes)
        if points or ended_well < len(crashes):
            yield f"     {number:4d} {what}: {ended_well} of {len(crashes)} ended as they must"
        for crash in crashes:
            if not crash.reached:
                yield f"          NOT REACHED, dying {SAID[crash.mode]}"
            yield from (f"          BROKEN, died {SAID[crash.mode]}: {each}" for each in crash.violations)
