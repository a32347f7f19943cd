"""What is shipped and how it is started: the wheel, and the scripts `run` and `.ci/run`."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.house.test_house import PACKAGES, ROOT, project_files

SCRIPTS = (ROOT / "run", ROOT / ".ci" / "run")


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `run` of `folder` from somewhere else."""
    command = [str(folder / "run"), *arguments]
    return subprocess.run(
        command, cwd="/", env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_wheel_ships_every_file_of_the_five_packages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
        beside = {name.partition("/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        metadata = archive.read(beside["METADATA"]).decode()
    expected = {
        str(path.relative_to(package.parent))
        for package in PACKAGES
        for path in project_files()
        if path.is_relative_to(package)
    }
    # docs/ travels in part: a case's runbook is read while the program runs
    runbooks = {f"supervisors/runbooks/{path.name}" for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert shipped == expected | runbooks
    assert {name.partition("/")[0] for name in shipped} == {path.name for path in PACKAGES}
    assert "licenses/NOTICE" in beside
    assert "\nLicense-Expression: Apache-2.0\n" in metadata


def test_the_notice_names_the_license_of_the_package() -> None:
    license_of = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"]
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert f"(SPDX: {license_of})" in notice


def test_every_verb_is_in_the_usage_and_on_the_page_for_contributors_or_the_readme() -> None:
    text = (ROOT / "run").read_text(encoding="utf-8")
    usage = text.partition("<<'TEXT'\n")[2].partition("\nTEXT\n")[0]
    listed = set(re.findall(r"^  (\w+)(?:, (\w+))? ", usage, re.MULTILINE))
    known = re.findall(r"^    (\w+)(?: \| (\w+))?\) ?(?:setup|lock|$)", text, re.MULTILINE)
    assert listed == set(known)
    pages = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md"))
    for verb in ("setup", "demo", "test", "check", "fix", "pages", "bench"):
        assert f"./run {verb}" in pages


def test_the_hooks_before_a_commit_are_our_own_verbs() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"repo: (.+)", text)) == {"local"}
    assert set(re.findall(r"language: (.+)", text)) == {"system"}
    entries = re.findall(r"entry: \./run (\w+)\n", text)
    assert entries == ["fix", "pages"]
    assert text.count("entry:") == len(entries)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_executed_and_shellcheck_has_nothing_to_say(script: Path) -> None:
    assert os.access(script, os.X_OK)
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    found = subprocess.run([shellcheck, str(script)], capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_an_unknown_verb_shows_the_known_ones() -> None:
    ended = run(ROOT, "dance")
    assert ended.returncode == 2
    assert "setup" in ended.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a space in its path, with `run` and what it reads."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name in ("run", "constraints.txt", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder)
    return folder


def fake(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_python_that_is_found_but_fails_is_passed_over(folder: Path, tmp_path: Path) -> None:
    """The names that come first fail as a pyenv shim does; the one named by hand is not even there."""
    shims = tmp_path / "shims"
    shims.mkdir()
    for name in ("python3.13", "python3.12"):
        fake(shims, name, 'echo "pyenv: command not found" >&2; exit 127')
    # The last one is good, and what it is asked to make fails on purpose: that it is asked is what counts.
    fake(shims, "python3.11", f'case "$*" in *venv*--clear*) exit 9;; esac; exec "{sys.executable}" "$@"')
    ended = run(folder, "setup", PATH=f"{shims}:/usr/bin:/bin")
    assert ended.returncode == 1
    assert "(python3.11)" in ended.stderr
    assert "is the folder writable" in ended.stderr


def test_without_any_python_it_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    (folder / "run").write_text((folder / "run").read_text().replace("/usr/bin/python3", "/nonexistent/python3"))
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "cat", "cksum", "sed", "flock", "rm", "mv", "tail"):
        found = shutil.which(name)
        if found is not None:
            (tools / name).symlink_to(found)
    for name in ("python3.13", "python3.12", "python3.11", "python3", "python"):
        fake(tools, name, "exit 127")
    ended = run(folder, "setup", PATH=str(tools), HOME=str(tmp_path))
    assert ended.returncode == 1
    assert "AMENDS_PYTHON=" in ended.stderr
