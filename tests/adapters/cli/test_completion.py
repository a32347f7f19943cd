"""Completion scripts, by the shells that read them: what is offered is what the parser takes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.cli import arguments
from adapters.cli.completion import SHELLS, places, script
from adapters.cli.verbs import LOCAL, all_verbs
from amends.domain.domain import requests_of
from supervisors.rental import RENTAL

PARSER = arguments.parser([verb.words for verb in LOCAL], all_verbs(requests_of((RENTAL,)).values()))
OFFERED = {place.words: {*place.verbs, *place.options} for place in places(PARSER)}
# How each shell is asked what it would offer; the words are typed, the last one in part.
ASK = {
    "bash": """source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _amends; printf '%s\\n' "${COMPREPLY[@]}" """,
    "zsh": """compdef() { }; source "$0"; _describe() { print -rl -- "${(P@)3%%:*}"; }
words=("$@"); CURRENT=$#; _amends""",
    "fish": "source $argv[1]; complete -C (string join ' ' -- $argv[2..]) | string split -f1 \\t",
}
OPTIONS = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["-N", "-c"]}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    if shutil.which(found) is None:
        pytest.skip(f"{found} is not here")
    return found


def offered(shell: str, folder: Path, *words: str) -> set[str]:
    file = folder / f"amends.{shell}"
    file.write_text(script(PARSER, shell))
    done = subprocess.run([shell, *OPTIONS[shell], ASK[shell], str(file), *words], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert done.stderr == ""
    return {word for word in done.stdout.split("\n") if word.startswith(words[-1]) and word}


def test_every_verb_has_its_place_with_the_options_that_it_takes() -> None:
    assert {"node", "run", "case"} <= OFFERED[""]
    assert {"register", "list", "show"} <= OFFERED["node"]
    assert {"--host", "--host-key", "--label", "--key"} <= OFFERED["node register"]
    assert {verb.words for verb in LOCAL} <= set(OFFERED)


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        (("amends", "n"), ""),
        (("amends", "node", "re"), "node"),
        (("amends", "--json", "node", "re"), "node"),
        (("amends", "node", "register", "n1", "--h"), "node register"),
        (("amends", "node", "register", "--host", "node", "--"), "node register"),
    ],
)
def test_a_shell_offers_what_may_follow(shell: str, typed: tuple[str, ...], place: str, tmp_path: Path) -> None:
    wanted = {word for word in OFFERED[place] if word.startswith(typed[-1])}
    assert len(wanted) > 1
    assert offered(shell, tmp_path, *typed) == wanted


def test_an_unknown_shell_is_a_matter_of_usage() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "supervisors.boot", "completion", "tcsh"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "amends: completion: 'tcsh' is none of bash, zsh, fish\n")
