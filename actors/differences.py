"""The world beside the database: what is there and not wanted, or wanted and not there, is a case each.

It knows neither nodes nor providers: an entity asks its part of the world, compares, and hands in what differs. Nothing
is ever removed or made because of it. A case resolves itself when a later comparison does not see its difference any
more; one that an operator has resolved is not opened again before the difference has gone.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from amends.turn.cases import close_case, open_case
from amends.turn.decision import Decision
from amends.turn.messages import ResolveCase, StepDone

CASE = "world_difference"
NAMED_AT_ONCE = 32  # cases of one entity; the rest is counted, and named once there is room
ACCEPTED = 128  # differences that operators leave as they are
LISTED = 1024  # a list of so many names may have been cut: what it lacks may be there


class Look(Struct, frozen=True, omit_defaults=True):
    """An entity's look at its part of the world: the step whose outcome is waited for, and what may stay as it is."""

    step: str = ""
    accepted: tuple[str, ...] = ()


class LookAround(Struct, frozen=True):
    """It is this entity's turn to be compared with the world."""


class Difference(Struct, frozen=True):
    """One thing, and what its case says: what was seen, and what the database says of it."""

    target: str
    seen: str
    database: str
    names: dict[str, str]


def answered(d: Decision, m: StepDone) -> bool:
    """Whether it is the look that was waited for, and something is known by it."""
    if m.step_id != d.state.look.step:
        return False
    d.part("look", step="")
    return m.ok


def settle(d: Decision, found: Sequence[Difference], *, seen_us: int, whole: bool, commands: Sequence[str]) -> None:
    """Open what is new, close what is gone; where the list was cut (not `whole`) nothing is known to be gone."""
    there = {each.target: each for each in found}
    if whole:
        for target in [each for each in _open(d) if each not in there]:
            close_case(d, CASE, "a later comparison does not see it any more", target)
        accepted = tuple(each for each in d.state.look.accepted if each in there)
        if accepted != d.state.look.accepted:
            d.part("look", accepted=accepted)
    known = {*_open(d), *d.state.look.accepted}
    new = [each for each in found if each.target not in known]
    room = max(0, NAMED_AT_ONCE - len(list(_open(d))))
    more = {"more": len(new) - room} if len(new) > room else {}
    for each in new[:room]:
        evidence = {**each.names, "seen": each.seen, "seen_us": seen_us, "database": each.database, **more}
        open_case(d, CASE, each.target, evidence=evidence, commands=commands)


def resolved(d: Decision, m: ResolveCase) -> None:
    """An operator has settled a case by its word: what it is about may stay as it is."""
    if m.kind == CASE and len(d.state.look.accepted) < ACCEPTED:
        d.part("look", accepted=tuple(sorted({*d.state.look.accepted, str(m.row["target_ref"])})))


def quiet(last_us: int, asked_us: int, grace_us: int) -> bool:
    """Whether nothing was begun or ended in the grace before the question, nor since."""
    return last_us + grace_us <= asked_us


def _open(d: Decision) -> Iterable[str]:
    """What the open cases are about."""
    return [target for kind, _, target in (key.partition(" ") for key in d.state.cases) if kind == CASE]
