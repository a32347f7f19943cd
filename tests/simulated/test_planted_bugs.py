"""Bugs planted on purpose, each caught by name: a check that cannot fail proves nothing (reliability.md)."""

import re

import msgspec
import pytest

from supervisors.matrix import ROWS
from tests.proof import PLANTED, counted
from tools.planted.all import NUMBER, PAGE, PART, check, number, part
from tools.planted.bugs import Bug, Sweep
from tools.planted.overlay import module_of
from tools.planted.table import BUGS


@pytest.mark.slow
def test_a_bug_that_is_planted_is_caught_by_name() -> None:
    """One in each run of the tests; eight of the commit's are `./run campaign ci`'s."""
    swept = [each for each in BUGS.values() if isinstance(each.check, Sweep)]
    bug = swept[number() % len(swept)]
    result = check(bug)
    assert result.caught, f"./run campaign planted {bug.name}: {result.said}"
    counted[PLANTED] += 1


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS.keys())
def test_each_bug_has_its_place_and_is_python(bug: Bug) -> None:
    text = bug.planted()
    compile(text, bug.file, "exec")
    assert module_of(bug.file).startswith(("actors.", "adapters.", "amends.", "supervisors."))


def test_the_numbers_in_a_row_have_all_of_them() -> None:
    parts = len(BUGS) // PART
    assert sorted(bug.name for of in range(1000, 1000 + parts) for bug in part(of)) == sorted(BUGS)
    assert all(PART <= len(part(of)) <= PART + 1 for of in range(parts))
    assert number({NUMBER: "17"}.get) == 17


def test_there_are_bugs_of_every_kind_of_invariant_in_each_folder_and_in_every_row() -> None:
    assert {bug.invariant[0] for bug in BUGS.values()} == set("BATCUSL")
    assert {bug.file.partition("/")[0] for bug in BUGS.values()} == {"actors", "adapters", "src", "supervisors"}
    named = " ".join(f"{bug.file} {bug.check}" for bug in BUGS.values()).upper()
    assert [row.id for row in ROWS if row.id not in named] == []


def test_a_place_that_is_gone_or_there_twice_is_an_error() -> None:
    bug = next(iter(BUGS.values()))
    for old in ("this stands nowhere", "def "):
        with pytest.raises(ValueError, match="must stand once"):
            msgspec.structs.replace(bug, old=old).planted()


def test_what_nothing_catches_is_told() -> None:
    sound = next(bug for bug in BUGS.values() if isinstance(bug.check, Sweep) and bug.check.row == "R02")
    result = check(sound, "--sound")
    assert not result.caught
    assert result.said == f"{sound.name}: nothing is found, not {sound.expected}"


def test_the_page_has_every_bug() -> None:
    block = PAGE.read_text(encoding="utf-8").partition("<!-- planted -->")[2].partition("<!-- /planted -->")[0]
    assert re.findall(r"^\| ([a-z-]+) \|", block, re.MULTILINE)[1:] == list(BUGS)
