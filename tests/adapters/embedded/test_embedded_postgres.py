"""The embedded Postgres, started for real: on nothing, on data, after kills, as root and as a user."""

import asyncio
import logging
import os
import pwd
import shutil
import signal
import stat
import sys
from pathlib import Path

import asyncpg
import pytest
import uvloop

from adapters.embedded import account, process, programs
from adapters.embedded.nats import EmbeddedNats
from adapters.embedded.ownership import processes_in
from adapters.embedded.postgres import EmbeddedPostgres
from adapters.embedded.process import ServerFailed

OWNER = Path(__file__).with_name("owner.py")
ROOT = Path(__file__).resolve().parents[3]
# Only root may hand files to another account; there is no stand-in for that. CI is root, so it always runs there.
as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: another account for the server is made by root only; CI is root"
)


async def write(server: EmbeddedPostgres, number: int) -> None:
    connection = await asyncpg.connect(server.dsn)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
    await connection.execute("INSERT INTO kept VALUES ($1)", number)
    await connection.close()


async def read(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch("SELECT number FROM kept ORDER BY number")
    await connection.close()
    return [row["number"] for row in rows]


def gone(pid: int) -> bool:
    """Ended, or a zombie of somebody who does not reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def gone_within(pid: int, seconds: float) -> bool:
    for _ in range(int(seconds / 0.02)):
        if gone(pid):
            return True
        await asyncio.sleep(0.02)
    return False


async def test_a_first_start_makes_a_database_that_amends_owns_without_being_superuser(
    state_dir: Path,
) -> None:
    server = EmbeddedPostgres(state_dir)
    await server.start()
    connection = await asyncpg.connect(server.dsn)
    role = await connection.fetchrow(
        "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
    )
    owner = await connection.fetchval(
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    )
    durable = [
        await connection.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit", "full_page_writes")
    ]
    listening = await connection.fetchval("SHOW listen_addresses")
    await connection.close()
    superuser = await asyncpg.connect(server.superuser_dsn)
    assert await superuser.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    await superuser.close()
    await server.stop()
    assert role is not None
    assert tuple(role) == ("amends", False, True, False)
    assert owner == "amends"
    assert durable == ["on", "on", "on"]
    assert listening == ""


async def test_start_and_stop_repeat_and_a_second_start_does_nothing(state_dir: Path) -> None:
    server = EmbeddedPostgres(state_dir, settings={"max_connections": "17"})
    await server.start()
    pid = server.pid
    await server.start()
    assert server.pid == pid
    await write(server, 1)
    await server.stop()
    await server.stop()
    assert not server.alive()
    assert gone(pid)
    await server.start()
    assert server.pid != pid
    assert await read(server.dsn) == [1]
    connection = await asyncpg.connect(server.dsn)
    assert await connection.fetchval("SHOW max_connections") == "17"
    await connection.close()
    await server.stop()


async def test_after_kill_nine_of_the_server_every_committed_row_is_there(state_dir: Path) -> None:
    server = EmbeddedPostgres(state_dir)
    for number in range(3):
        await server.start()
        await write(server, number)
        os.kill(server.pid, signal.SIGKILL)
        while server.alive():
            await asyncio.sleep(0.01)
    await server.start()
    assert await read(server.dsn) == [0, 1, 2]
    await server.stop()


async def test_kill_nine_of_the_parent_ends_the_server_and_the_next_start_finds_all(state_dir: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, str(OWNER), "postgres", str(state_dir), "stay"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid_text, dsn = (await parent.stdout.readline()).decode().split(maxsplit=1)
    connection = await asyncpg.connect(dsn.strip())
    await connection.execute("CREATE TABLE kept (number int); INSERT INTO kept VALUES (7)")
    parent.kill()
    await parent.wait()
    # at once, while the old server may still be going down
    server = EmbeddedPostgres(state_dir)
    await server.start()
    assert gone(int(pid_text))
    assert await read(server.dsn) == [7]
    await connection.close()
    await server.stop()


async def test_a_server_left_without_a_death_signal_is_ended_by_the_next_start(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = EmbeddedPostgres(state_dir)
    await first.start()
    await write(first, 5)
    pid = first.pid
    first._release()  # as if its owner had died and the server had not noticed
    second = EmbeddedPostgres(state_dir)
    monkeypatch.setattr("adapters.embedded.postgres.LEFTOVER_GRACE_S", 0.1)
    await second.start()
    assert await gone_within(pid, 5)
    assert await read(second.dsn) == [5]
    await second.stop()
    await first.stop()


async def test_a_second_owner_of_the_same_directory_is_refused_and_ends_nothing(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.embedded.ownership.PATIENCE_S", 0.1)
    first = EmbeddedPostgres(state_dir)
    await first.start()
    second = EmbeddedPostgres(state_dir)
    with pytest.raises(ServerFailed, match=rf"in use by the process {os.getpid()}"):
        await second.start()
    assert first.alive()
    await first.stop()


async def test_a_path_too_long_for_a_socket_gets_a_short_private_one_that_goes_with_the_server(
    state_dir: Path,
) -> None:
    server = EmbeddedPostgres(state_dir / ("d" * 100))
    await server.start()
    sockets = server._sockets
    assert sockets is not None
    assert len(str(sockets)) < 60
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    await write(server, 2)
    os.kill(server.pid, signal.SIGKILL)
    while server.alive():
        await asyncio.sleep(0.01)
    await server.start()
    assert server._sockets == sockets
    assert await read(server.dsn) == [2]
    await server.stop()
    assert not sockets.exists()


async def test_two_run_beside_each_other(state_dir: Path) -> None:
    one, two = EmbeddedPostgres(state_dir / "one"), EmbeddedPostgres(state_dir / "a, 'b'")
    await asyncio.gather(one.start(), two.start())
    await write(one, 1)
    await write(two, 2)
    assert await read(one.dsn) == [1]
    assert await read(two.dsn) == [2]
    await asyncio.gather(one.stop(), two.stop())


async def test_a_crash_inside_initdb_leaves_nothing_that_a_start_would_take_for_data(state_dir: Path) -> None:
    half = state_dir / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(state_dir)
    await server.start()
    await write(server, 1)
    await server.stop()
    assert not half.exists()


async def test_a_wrong_setting_fails_with_the_log_and_the_next_start_works(state_dir: Path) -> None:
    with pytest.raises(ServerFailed, match=r"did not start(.|\n)*server\.log(.|\n)*no_such_setting"):
        await EmbeddedPostgres(state_dir, settings={"no_such_setting": "1"}).start()
    assert not processes_in(state_dir / "postgres" / "data", "postgres")
    server = EmbeddedPostgres(state_dir)
    await server.start()
    await server.stop()


async def test_before_a_start_there_is_no_address_and_no_pid(state_dir: Path) -> None:
    server = EmbeddedPostgres(state_dir)
    for name in ("dsn", "superuser_dsn", "pid"):
        with pytest.raises(ServerFailed, match="has not been started"):
            getattr(server, name)
    assert not server.alive()
    await server.stop()


def open_python() -> Path | None:
    """A Python of this version that any account can run: this one, or the system's."""
    system = Path(f"/usr/bin/python3.{sys.version_info.minor}")
    for candidate in (Path(sys.executable).resolve(), system):
        if candidate.exists() and account.closed_to_others(candidate) is None:
            return candidate
    return None


@as_root
async def test_an_ordinary_user_runs_both_as_himself_and_root_can_take_the_data_over(state_dir: Path) -> None:
    python = open_python()
    if python is None or account.closed_to_others(ROOT) is not None:
        pytest.skip("this Python or this folder lies below a directory that only root enters")
    state_dir.parent.chmod(0o777)
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(python), str(OWNER)]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    for kind, address in (("postgres", b"postgresql://amends@"), ("nats", b"nats://127.0.0.1:")):
        child = await asyncio.create_subprocess_exec(
            *prefix, kind, str(state_dir), "leave", env=environment, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await child.communicate()
        assert child.returncode == 0
        assert address in said
    assert (state_dir / "postgres" / "data").stat().st_uid == 65534
    server = EmbeddedPostgres(state_dir)
    await server.start()
    assert Path(f"/proc/{server.pid}").stat().st_uid == 65534
    await server.stop()


@as_root
async def test_root_with_a_closed_state_directory_keeps_its_data_elsewhere_and_finds_them_again(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(account, "SHARED_BASE", state_dir.parent / "shared")
    closed = tmp_path / "state"  # below pytest's own 0700 directory
    server = EmbeddedPostgres(closed)
    with caplog.at_level(logging.WARNING, "amends.embedded"):
        await server.start()
    assert "its data go to" in caplog.text
    await write(server, 3)
    await server.stop()
    tmp_path.chmod(0o755)  # the way is open now, or seems so: the data stay where they went
    monkeypatch.setattr(account, "closed_to_others", lambda path: None)
    again = EmbeddedPostgres(closed)
    await again.start()
    assert await read(again.dsn) == [3]
    copied = tmp_path / "copied"
    copied.mkdir()
    shutil.copy(closed / "postgres-directory", copied)
    monkeypatch.setattr("adapters.embedded.ownership.PATIENCE_S", 0.1)
    with pytest.raises(ServerFailed, match="in use by the process"):
        await EmbeddedPostgres(copied).start()
    assert again.alive()
    await again.stop()


@as_root
def test_a_database_that_has_become_closed_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    data = tmp_path / "state" / "postgres" / "data"  # below pytest's own 0700 directory
    data.mkdir(parents=True)
    (data / "PG_VERSION").touch()
    with pytest.raises(ServerFailed, match=r"chmod o\+x"):
        account.choose_home(tmp_path / "state", as_other=True)


@as_root
async def test_programs_that_the_account_cannot_read_are_copied_and_run_from_there(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_readable_by_others", lambda folder: False)
    server = EmbeddedPostgres(state_dir)
    await server.start()
    command = Path(f"/proc/{server.pid}/exe").readlink()
    await server.stop()
    assert command.is_relative_to(state_dir / "postgres")


@as_root
async def test_another_account_on_the_machine_is_not_let_in(state_dir: Path) -> None:
    server = EmbeddedPostgres(state_dir)
    await server.start()
    psql = programs.postgres_programs(state_dir / "postgres", as_other=True) / "psql"
    stranger = await asyncio.create_subprocess_exec(
        *(
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            str(psql),
            server.superuser_dsn,
            "-c",
            "SELECT 1",
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
    )
    _, complaint = await stranger.communicate()
    await server.stop()
    assert stranger.returncode == 2
    # at the socket, which is the server's account's own; or, where the stranger has that one, by who he is
    assert b"Permission denied" in complaint or b"Peer authentication failed" in complaint


@as_root
def test_the_server_has_an_account_of_its_own_and_data_that_are_there_keep_theirs(tmp_path: Path) -> None:
    own = pwd.getpwnam(account.OWN)
    assert account.server_account(tmp_path / "missing") == (own.pw_uid, own.pw_gid)
    os.chown(tmp_path, 65534, 65534)
    assert account.server_account(tmp_path) == (65534, 65534)


@as_root
def test_where_no_account_can_be_made_it_is_the_shared_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(account, "OWN", "amends-nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    shared = pwd.getpwnam("nobody")
    assert account.server_account(tmp_path / "missing") == (shared.pw_uid, shared.pw_gid)
    assert "no account amends-nowhere can be made" in caplog.text


def test_both_start_and_stop_on_uvloop_too(state_dir: Path) -> None:
    async def start_and_stop() -> None:
        postgres, nats = EmbeddedPostgres(state_dir), EmbeddedNats(state_dir)
        await asyncio.gather(postgres.start(), nats.start())
        await write(postgres, 1)
        await asyncio.gather(postgres.stop(), nats.stop())
        assert not postgres.alive()
        assert not nats.alive()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(start_and_stop())


def test_without_setpriv_root_is_refused_clearly_and_a_user_goes_on_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ServerFailed, match="util-linux"):
        process.death_signal_prefix((65534, 65534))
    with caplog.at_level(logging.WARNING, "amends.embedded"):
        assert process.death_signal_prefix(None) == []
    assert "setpriv" in caplog.text
