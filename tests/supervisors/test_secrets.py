"""Generated secrets: written whole, an empty file is none; tokens that are no text are refused as any other."""

import stat
from pathlib import Path

import pytest

from amends.values.errors import Rejected
from supervisors.api.auth import Gatekeeper, operators
from supervisors.boot.files import TOKEN_FILE, operator_token
from supervisors.settings import Settings


def test_an_empty_token_file_of_a_crash_is_made_anew_and_kept(tmp_path: Path) -> None:
    (tmp_path / TOKEN_FILE).touch()
    known, token = operators(Settings(), lambda: operator_token(tmp_path))
    assert len(token) > 40
    assert operators(Settings(), lambda: operator_token(tmp_path)) == (known, token)
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [TOKEN_FILE]


def test_nobody_is_let_in_without_a_token_or_with_one_that_is_no_text(tmp_path: Path) -> None:
    known, token = operators(Settings(), lambda: operator_token(tmp_path))
    gate = Gatekeeper(Settings(), known)
    assert gate.may_look(token) == "local"
    assert gate.may_look("") is None
    assert gate.may_look("\udcff\ud800") is None
    with pytest.raises(Rejected, match="not known"):
        gate({"Authorization": "Bearer \udcff"}, "operator")
