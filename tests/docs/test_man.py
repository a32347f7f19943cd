"""The manual page is what the help says, and a page that `man` can show."""

import shutil
import subprocess

import pytest

from adapters.cli.verbs import LOCAL
from tools import man


def test_it_is_what_the_parser_says() -> None:
    assert man.FILE.read_text(encoding="utf-8") == man.page(), "./run pages"


def test_every_local_verb_and_some_others_are_there() -> None:
    page = man.page().replace("\\-", "-")
    for words in [verb.words for verb in LOCAL] + ["node register", "case resolve", "why", "ledger verify"]:
        assert f"\n.SS amends {words}" in page, words


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed; .ci/run installs it")
def test_groff_finds_nothing_wrong_with_it_and_shows_every_word() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-rLL=200n", str(man.FILE)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "how an entry of the ledger came about" in done.stdout
    assert "debit:meter_...:1768464000000000" in done.stdout
