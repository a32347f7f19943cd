"""The pages speak of files, functions and links that exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisors.matrix import ROWS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FILE = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|sql|md|json|toml))`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
WALK = re.compile(r"^\| .+ \| `([\w./-]+)` \| `([\w.]+)` \|$", re.MULTILINE)
STATUS = re.compile(r"^\| (R\d\d(?:[,–] ?R\d\d)*) \| .+ \| (\w+) \|$", re.MULTILINE)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def numbers(cell: str) -> Iterator[int]:
    """`R05, R06` and `R10–R14` as numbers."""
    first, *last = (int(number) for number in re.findall(r"R(\d\d)", cell))
    if "–" in cell:
        yield from range(first, last[0] + 1)
    else:
        yield from (first, *last)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_links_of_a_page_exist(page: Path) -> None:
    named = [name for name in FILE.findall(text(page)) if not name.startswith(".amends/")]  # made by a running one
    missing = [name for name in named if not ((ROOT / name).exists() or (page.parent / name).exists())]
    missing += [name for name in LINK.findall(text(page)) if not (page.parent / name).exists()]
    assert missing == []


def test_the_walks_name_functions_that_their_files_define() -> None:
    walks = WALK.findall(text(ROOT / "ARCHITECTURE.md"))
    assert len(walks) > 15
    for file, name in walks:
        code = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"(?:def|VIEW) {re.escape(name)}\b", code), f"{name} is not in {file}"


def test_the_readme_says_of_each_row_whether_it_is_built() -> None:
    said = {f"R{n:02}": status for cell, status in STATUS.findall(text(ROOT / "README.md")) for n in numbers(cell)}
    assert said == {row.id: row.status for row in ROWS}


def test_the_changelog_begins_with_the_version_that_is_shipped() -> None:
    version = re.search(r'^version = "(.+)"$', text(ROOT / "pyproject.toml"), re.MULTILINE)
    newest = re.search(r"^## (\S+)", text(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert version is not None
    assert newest is not None
    assert newest[1] == version[1]
