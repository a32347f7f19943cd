"""The house rules hold for every file that belongs to the project; what they mean stands in rules.py."""

import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.house import rules

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    ROOT / "src" / "amends", ROOT / "src" / "amends_client", ROOT / "actors", ROOT / "supervisors", ROOT / "adapters",
)  # fmt: skip
UNDECLARED = 16  # the last migration of before they said whether they expand
ADDRESS_FREE = ("run", "constraints.txt", "pyproject.toml", ".ci/run")
TEXT = {
    ".py",
    ".sql",
    ".sh",
    ".toml",
    ".md",
    ".txt",
    ".yml",
    ".yaml",
    ".json",
    ".html",
    ".css",
    ".js",
    ".conf",
    "",
}

Rule = Callable[[str], Iterator[str]]


@cache
def project_files() -> tuple[Path, ...]:
    """Every file that is tracked or would be: git knows, also what .gitignore leaves out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # an unpacked archive
        skipped = {".git", ".venv", ".amends", "__pycache__", "build", "dist"}
        found = [
            path
            for path in ROOT.rglob("*")
            if not any(part in skipped or part.endswith("_cache") for part in path.relative_to(ROOT).parts)
        ]
    return tuple(sorted(path for path in found if path.is_file() and not path.is_symlink()))


def complaints(files: Iterator[Path], rule: Rule) -> list[str]:
    """What `rule` says about each file, with the file's name."""
    return [
        f"{path.relative_to(ROOT)}:{complaint}"
        for path in files
        for complaint in rule(path.read_text(encoding="utf-8", errors="replace"))
    ]


def python_files() -> Iterator[Path]:
    return (path for path in project_files() if path.suffix == ".py")


def package_files() -> Iterator[Path]:
    return (path for path in python_files() if any(path.is_relative_to(package) for package in PACKAGES))


def text_files() -> Iterator[Path]:
    return (path for path in project_files() if path.suffix in TEXT)


def test_there_are_files_to_look_at() -> None:
    assert {ROOT / "pyproject.toml", ROOT / "run", Path(__file__)} <= set(project_files())
    assert len(list(package_files())) >= len(PACKAGES)


def test_no_file_is_longer_than_a_reader_likes() -> None:
    assert complaints(python_files(), lambda text: rules.too_long(text, rules.FILE_LINES)) == []


def test_every_function_fits_a_screen() -> None:
    assert complaints(python_files(), rules.long_functions) == []


def test_nothing_is_left_unfinished() -> None:
    assert complaints(text_files(), lambda text: rules.matches(rules.LEFT_OVER, text)) == []


def test_nothing_waits_with_wait_for() -> None:
    assert complaints(python_files(), lambda text: rules.matches(rules.WAIT_FOR, text)) == []


def test_no_exception_is_passed_over_in_silence() -> None:
    assert complaints(python_files(), rules.silent_excepts) == []


def test_every_ssh_connection_checks_the_host_key() -> None:
    assert complaints(package_files(), lambda text: rules.matches(rules.UNCHECKED_HOST, text)) == []


def test_what_installs_and_runs_names_no_address_of_the_network() -> None:
    files = (ROOT / name for name in ADDRESS_FREE)
    assert complaints(files, lambda text: rules.matches(rules.WEB_ADDRESS, text)) == []


def test_no_path_of_one_machine_is_written_down() -> None:
    assert complaints(text_files(), lambda text: rules.matches(rules.MACHINE_PATH, text)) == []


def test_every_file_of_the_packages_says_what_it_is() -> None:
    assert complaints(package_files(), rules.no_docstring) == []


def test_nothing_imports_boot() -> None:
    boot = ROOT / "supervisors" / "boot"
    files = (path for path in package_files() if not path.with_suffix("").is_relative_to(boot))
    assert complaints(files, lambda text: rules.imports_of(text, "supervisors.boot")) == []


def test_the_readme_is_short() -> None:
    files = (path for path in [ROOT / "README.md"] if path.exists())
    assert complaints(files, lambda text: rules.too_long(text, rules.README_LINES)) == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_package_is_typed(package: Path) -> None:
    assert (package / "py.typed").exists()
    assert (package / "__init__.py").exists()


def test_every_direct_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    explained = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert [one for one in wanted if f"| `{Requirement(one).name}` |" not in explained] == []


def test_every_pinned_package_has_hashes() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [(line, following) for line, following in pairwise(lines) if "==" in line]
    assert len(pins) > 20
    assert [line for line, following in pins if not following.strip().startswith("--hash=sha256:")] == []


def test_a_migration_says_whether_the_release_before_lives_with_it() -> None:
    files = sorted((ROOT / "adapters" / "postgres" / "migrations").glob("*.sql"))
    declaring = [path for path in files if int(path.name[:4]) > UNDECLARED]
    assert declaring
    assert complaints(iter(declaring), rules.undeclared) == []
    assert complaints(iter(declaring), rules.narrowing) == []
