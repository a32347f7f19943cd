"""The calls of the client are what the tables of the runtime make: every subject has one, and no file is behind."""

import re
from typing import cast

import pytest

from amends_client import client_of
from amends_client.link import Link
from tools import client
from tools.asyncapi import endpoints
from tools.client_types import BY_HAND

FILES = client.files()


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_is_what_the_tables_say(name: str) -> None:
    assert (client.FOLDER / name).read_text(encoding="utf-8") == FILES[name], "run: ./run pages"


def test_there_is_no_other_file() -> None:
    assert {path.name for path in client.FOLDER.glob("*.py")} == set(FILES)


def test_every_subject_can_be_asked() -> None:
    asked = client_of(cast(Link, None))
    said = set(re.findall(r'"((?:cmd|qry|ops)\.[a-z_.]+)"', "".join(FILES.values())))
    for subject in {endpoint.subject for endpoint in endpoints()} - BY_HAND - {"ops.case.list"}:
        family, entity, verb = subject.split(".")
        assert callable(getattr(getattr(asked.ops if family == "ops" else asked, entity), verb)), subject
        assert subject in said or verb in ("get", "list"), subject
    assert callable(asked.ops.case.list)
