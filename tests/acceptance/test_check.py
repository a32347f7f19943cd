"""`amends init`, `amends check` and `amends upgrade --check`: a configuration made, held to real servers, run."""

import asyncio
import json
import os
import stat
import sys
import tomllib
from pathlib import Path

import pytest

from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.postgres import EmbeddedPostgres
from amends.values.errors import BadConfiguration
from supervisors.boot.init import init
from supervisors.settings import load
from supervisors.toml_lines import quoted
from tests.directories import with_database
from tests.forked import PIPE, python
from tests.patience import PATIENCE_S

FILES = ("amends.toml", "nats-users.conf", "operator.token")


async def amends(*words: object) -> tuple[int, str]:
    """The program's exit status, and all that it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "supervisors.boot", *map(str, words), stdout=PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(PATIENCE_S):
        said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


def lines(said: str) -> dict[str, list[str]]:
    """What was found of each part."""
    found: dict[str, list[str]] = {}
    for line in said.splitlines()[1:-1]:
        part, state = line[: line.index("  ")], line.split("  ", 1)[1].split()[0]
        found.setdefault(part, []).append(state)
    return found


async def test_what_init_writes_is_checked_and_runs_and_is_not_overwritten(state_dir: Path) -> None:
    folder = state_dir / "new"
    status, said = await amends("init", "--folder", folder, "--nodes", "n1", "--operator", "olga")
    assert (status, said.count(str(folder)) >= 4) == (0, True), said
    assert [stat.S_IMODE((folder / name).stat().st_mode) for name in FILES] == [0o600] * 3
    before = [(folder / name).read_text() for name in FILES]
    status, said = await amends("init", "--folder", folder)
    assert (status, "is there already" in said) == (2, True), said
    assert [(folder / name).read_text() for name in FILES] == before
    config = folder / "amends.toml"
    config.write_text(config.read_text().replace("127.0.0.1:8321", "127.0.0.1:0"))
    status, said = await amends("check", "--config", config)
    assert (status, said.splitlines()[-1]) == (0, "nothing is wrong"), said
    assert not (folder / "state").exists(), "it was only looked at"
    # when it is run, then olga's token is good
    folder.chmod(0o711)  # for root's Postgres, which runs as another: else its data would go elsewhere
    await with_database(folder / "state")
    with (folder / "log").open("wb") as log:
        process = await python("-m", "supervisors.boot", "run", "--config", config, stdout=PIPE, stderr=log)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            assert (await process.stdout.readline()).strip() == b"ready", (folder / "log").read_text()
        token = (folder / "operator.token").read_text().strip()
        status, said = await amends("case", "list", "--state-dir", folder / "state", "--token", token)
        assert status == 0, said
        assert json.loads((folder / "log").read_text().splitlines()[0])["level"] == "info", "nobody sits before it"
    finally:
        process.terminate()
        await process.wait()


def test_a_folder_of_any_name_is_written_as_toml_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" \\ü😀'
    assert init(folder)[-1].count(f"'{folder}/amends.toml'") == 2
    assert load(folder / "amends.toml", {}).state_dir == str(folder / "state")
    assert tomllib.loads(f"a = {quoted(chr(127) + chr(10))}") == {"a": "\x7f\n"}
    with pytest.raises(BadConfiguration, match="cannot be printed"):
        init(tmp_path / "a\nb = 1")


@pytest.mark.parametrize("word", ["a node", "n.1", "N_2", "n1,", ",,", " ", ""])
def test_names_that_no_node_can_have_are_refused_before_a_file_is_there(tmp_path: Path, word: str) -> None:
    names = word.split(",")
    for nodes, providers in ((names, []), ([], names)):
        with pytest.raises(BadConfiguration, match=r"is no name: 1 to 63 lower-case letters"):
            init(tmp_path, nodes, providers)
    with pytest.raises(BadConfiguration, match="--operator"):
        init(tmp_path, operator="b d")
    assert list(tmp_path.iterdir()) == []


async def test_real_servers_are_looked_at_and_nothing_is_written(state_dir: Path) -> None:
    postgres, nats = EmbeddedPostgres(state_dir), EmbeddedNats(state_dir)
    await with_database(state_dir)
    await postgres.start()
    await nats.start()
    config = state_dir / "amends.toml"
    text = (
        f'callers = "open"\nstate_dir = "{state_dir}/state"\n[postgres]\ndsn = "{postgres.dsn}"\n'
        f'[nats]\nservers = ["{nats.url}"]\n[http]\nlisten = "127.0.0.1:0"\n'
    )
    try:
        config.write_text(text)
        status, said = await amends("check", "--config", config)
        found = lines(said)
        assert (status, found["nats"], found["streams"], found["schema"]) == (0, ["ok"], ["note"], ["ok"]), said
        assert found["open runs"] == ["ok"]
        status, said = await amends("upgrade", "--check", "--config", config)
        assert (status, set(lines(said))) == (0, {"postgres", "schema", "open runs"}), said
        # what is wrong is said, each part for itself
        taken = nats.url.rpartition(":")[2]
        wrong = text.replace('listen = "127.0.0.1:0"', f'listen = "127.0.0.1:{taken}"')
        wrong = wrong.replace("[nats]\n", '[nats]\nauto_create_streams = "never"\n')
        wrong += '[otlp]\nendpoint = "http://127.0.0.1:1"\n[ssh]\nclient_key = "/nowhere"\n'
        wrong += '[stripe]\nmirror_credits = true\napi_key = "rk_x"\napi_base = "http://127.0.0.1:1"\n'
        config.write_text(wrong)
        status, said = await amends("check", "--config", config)
        found = lines(said)
        assert (status, said.splitlines()[-1]) == (1, "5 wrong"), said
        assert [found[part] for part in ("http", "streams", "spans", "ssh key", "stripe")] == [["wrong"]] * 5, said
        assert "rk_x" not in said
    finally:
        await nats.stop()
        await postgres.stop()
    config.write_text(text)
    status, said = await amends("check", "--config", config)
    assert status == 1, said
    assert [lines(said)[part] for part in ("database", "nats")] == [["wrong"], ["wrong"]], said


async def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "supervisors.boot", "check", stdout=writes, stderr=PIPE
    )
    os.close(writes)
    _, said = await process.communicate()
    assert (process.returncode, said) == (141, b"")
