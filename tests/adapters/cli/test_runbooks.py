"""Runbooks: one for each kind of case, naming its commands, and every command line in them can be typed."""

import re
import shlex
from pathlib import Path

import pytest

from adapters.cli import arguments
from adapters.cli.verbs import all_verbs, command_verbs
from amends.domain.matrix import CaseKind
from supervisors.matrix import CASES
from tests.adapters.cli.conftest import REQUESTS

COMMANDS, VERBS = command_verbs(REQUESTS), all_verbs(REQUESTS)
RUNBOOKS = Path(__file__).parents[3] / "docs" / "runbooks"
PAGES = sorted(RUNBOOKS.glob("*.md"))


def command_lines(text: str) -> list[str]:
    """What stands indented, and what is quoted and has arguments."""
    quoted = [line for line in re.findall(r"`amends ([^`]+)`", text) if re.search(r"[A-Z]{3}|--", line)]
    return quoted + re.findall(r"^    amends (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("case", CASES, ids=[case.kind for case in CASES])
def test_every_kind_of_case_has_its_page_and_the_page_its_commands(case: CaseKind) -> None:
    text = (RUNBOOKS / case.runbook).read_text()
    assert text.startswith(f"# {case.kind}\n")
    for heading in ("What happened.", "What is owed.", "How to look.", "What settles it.", "What not to do."):
        assert f"**{heading}**" in text
    for subject in case.commands:
        (words,) = [verb.words for verb in COMMANDS if verb.subject == subject]
        assert f"amends {words} " in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_line_of_a_page_can_be_typed(page: Path) -> None:
    lines = command_lines(page.read_text())
    assert lines
    parser = arguments.parser([], VERBS)
    for line in lines:
        parser.parse_args(shlex.split(line))
