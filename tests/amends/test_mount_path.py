"""One opinion of where an attachment may be mounted: the command's, the agent's and the schema's."""

import pwd
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.fields import MountPath
from adapters.nats.agent_paths import check
from amends.ports.mounts import MountRefused
from amends.values.errors import Rejected
from amends.values.mount_path import MAX_PATH_BYTES, inside, refusal
from supervisors.api.endpoints import checks

REFUSED = [
    ("", "must be absolute"),
    ("mnt/data", "must be absolute"),
    ("/", "written plainly"),
    ("//", "written plainly"),
    ("/mnt/../etc", "written plainly"),
    ("/mnt/./data", "written plainly"),
    ("/mnt//data", "written plainly"),
    ("/mnt/data/", "written plainly"),
    ("/mnt/a\nb", "cannot be shown"),
    ("/mnt/a\x00b", "cannot be shown"),
    ("/mnt/a\x7f", "cannot be shown"),
    ("/mnt/a\x85", "cannot be shown"),
    ("/mnt/a\u202eb", "cannot be shown"),
    ("/mnt/a\ud800", "cannot be shown"),
    ("/" + "x" * MAX_PATH_BYTES, f"more than {MAX_PATH_BYTES} bytes"),
    ("/" + "é" * (MAX_PATH_BYTES // 2), f"more than {MAX_PATH_BYTES} bytes"),
    ("/home", "in a home"),
    ("/home/am-x/data", "in a home"),
    ("/root", "in a home"),
    ("/etc", "lies in /etc"),
    ("/usr/share/x", "lies in /usr"),
]
FIELD = {"field": "mount_path"}
ACCEPTED = [
    "/mnt/data",
    "/data",
    "/mnt/a b/ü",
    "/homes/x",
    "/etcetera",
    "/mnt/..data",
    "/" + "x" * (MAX_PATH_BYTES - 1),
]
PATHS = st.text(max_size=40) | st.text(alphabet="/.a \x00~é", max_size=20).map(lambda rest: "/mnt/" + rest)


@pytest.fixture(autouse=True, scope="module")
def nobodys_homes() -> Iterator[None]:
    """A machine without accounts: an agent refuses its own accounts' homes besides."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pwd, "getpwall", list)
        yield


def by_command(path: str) -> str:
    """What a command is told, "" if it is accepted."""
    request: Any = SimpleNamespace(mount_path=path)
    who: Any = None
    try:
        checks(str, str, {})["mount_path"](request, who)
    except Rejected as error:
        return f"{error.details}: {error.message}"
    return ""


def by_agent(path: str) -> str:
    """What a task is told, "" if it is mounted there."""
    try:
        check(path)
    except MountRefused as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("path", "reason"), REFUSED)
def test_what_is_refused_says_the_field_and_the_reason_to_whoever_asks(path: str, reason: str) -> None:
    why = refusal(path)
    assert why.startswith("mount_path ")
    assert reason in why
    assert by_command(path) == f"{FIELD}: {why}"
    assert by_agent(path) == why


@pytest.mark.parametrize("path", ACCEPTED)
def test_what_is_accepted_is_accepted_by_all(path: str) -> None:
    assert refusal(path) == by_command(path) == by_agent(path) == ""
    assert msgspec.convert(path, type=MountPath) == path


@given(PATHS)
def test_nobody_has_another_opinion(path: str) -> None:
    why = refusal(path)
    assert by_command(path) == (f"{FIELD}: {why}" if why else "")
    assert by_agent(path) == why
    try:
        msgspec.convert(path, type=MountPath)
    except msgspec.ValidationError:
        assert why


def test_an_accounts_home_elsewhere_is_the_machines_own_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = SimpleNamespace(pw_dir="/data/homes/anna", pw_uid=1000)
    monkeypatch.setattr(pwd, "getpwall", lambda: [entry])
    assert "somebody's home" in by_agent("/data/homes/anna/x")


@pytest.mark.parametrize(
    ("path", "folder", "is_inside"),
    [
        ("/mnt", "/mnt", True),
        ("/mnt/a", "/mnt", True),
        ("/mnt", "/mnt/", True),
        ("/mntx", "/mnt", False),
        ("/mnt", "/mnt/a", False),
        ("/mnt", "/", True),
    ],
)
def test_inside_is_the_folder_or_below_it(path: str, folder: str, is_inside: bool) -> None:
    assert inside(path, folder) is is_inside
