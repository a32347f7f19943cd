"""Exports of a storage host, over a stand-in exportfs, and the programs that it runs."""

import asyncio
import socket
import sys
from functools import partial as partial_of
from pathlib import Path
from typing import Any

import pytest

from adapters.storage.bind import BindBackend
from adapters.storage.directories import Directories
from adapters.storage.exports import parse
from adapters.storage.nfs import NfsBackend
from adapters.storage.programs import run
from adapters.storage.usage import Measured
from amends.ports.storage import Access, Capabilities, Mode, Trouble
from amends.values.errors import BadConfiguration
from tests.adapters.providers.benches import STAND_IN
from tests.adapters.providers.hosts import Clock
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.slow  # each look at the table is a program that starts


@pytest.fixture
def nfs(tmp_path: Path, directories: Directories, clock: Clock) -> NfsBackend:
    exportfs = (sys.executable, "-SE", str(STAND_IN), str(tmp_path))
    return NfsBackend(
        directories, Measured(directories, clock), Capabilities(), "storage-1", exportfs=exportfs,
        mount_options="vers=4.2,soft", clients=tmp_path / "clients",
    )  # fmt: skip


def calls(tmp_path: Path) -> list[str]:
    return [line for line in (tmp_path / "calls").read_text().splitlines() if line != "-v"]


# --- exports ---------------------------------------------------------------------------------------------


async def test_an_export_is_made_for_one_address_and_nothing_but_that_is_run(nfs: NfsBackend, tmp_path: Path) -> None:
    path = tmp_path / "srv" / "data"
    source = await nfs.apply("data", "10.0.0.5", "rw")
    assert source == {"type": "nfs", "server": "storage-1", "export": str(path), "options": "vers=4.2,soft"}
    await nfs.apply("data", "10.0.0.5", "rw")
    assert await nfs.look("data", "10.0.0.5") == "rw"
    await nfs.withdraw("data", "10.0.0.5")
    assert await nfs.look("data", "10.0.0.5") == ""
    assert calls(tmp_path) == [
        f"-i -o rw,sync,no_subtree_check,root_squash 10.0.0.5:{path}", f"-u 10.0.0.5:{path}", "-f",
    ]  # fmt: skip


async def test_what_is_not_exported_is_flushed_all_the_same(nfs: NfsBackend, tmp_path: Path) -> None:
    await nfs.withdraw("data", "10.0.0.5")
    assert calls(tmp_path) == ["-f"]


async def test_another_mode_is_flushed_so_that_it_counts_at_once(nfs: NfsBackend, tmp_path: Path) -> None:
    await nfs.apply("data", "10.0.0.5", "rw")
    await nfs.apply("data", "10.0.0.5", "ro")
    assert await nfs.look("data", "10.0.0.5") == "ro"
    assert calls(tmp_path)[-1] == "-f"


async def test_an_address_of_the_sixth_version_stands_in_brackets(nfs: NfsBackend, tmp_path: Path) -> None:
    address = await nfs.locate("data", "2001:DB8::0:5")
    assert address == "2001:db8::5"
    await nfs.apply("data", address, "ro")
    assert await nfs.look("data", address) == "ro"
    assert f"[2001:db8::5]:{tmp_path}/srv/data" in calls(tmp_path)[0]
    await nfs.withdraw("data", address)
    assert await nfs.look("data", address) == ""


NAMES = {
    "n1.example": ["10.0.0.5"], "two.example": ["10.0.0.5", "10.0.0.6"], "both.example": ["10.0.0.5", "2001:db8::5"],
    "other.example": ["10.0.0.9"],
}  # fmt: skip


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a resolver says; of `down.example` nothing, since it is away."""

    def getaddrinfo(name: str, *_: Any, **__: Any) -> list[Any]:
        if name not in NAMES:
            raise socket.gaierror(socket.EAI_AGAIN if name == "down.example" else socket.EAI_NONAME, "no answer")
        return [(0, 0, 0, "", (address, 0)) for address in NAMES[name]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.usefixtures("names")
async def test_a_name_is_looked_up_when_it_is_granted(nfs: NfsBackend) -> None:
    assert await nfs.locate("data", "n1.example") == "10.0.0.5"
    for name in ("nowhere.example", "down.example"):
        with pytest.raises(Trouble) as found:
            await nfs.locate("data", name)
        assert (found.value.code, found.value.retryable) == ("address_unknown", True)


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("name", ["two.example", "both.example"])
async def test_a_name_of_several_addresses_is_no_node(nfs: NfsBackend, name: str) -> None:
    with pytest.raises(Trouble, match=r"10\.0\.0\.5") as found:
        await nfs.locate("data", name)
    assert (found.value.code, found.value.retryable) == ("address_ambiguous", False)


# Lines that let more than one address in, 10.0.0.5 among them.
WIDER = ["<world>", "*", "*.example", "@nodes", "10.0.0.0/24", "10.0.0.0/255.255.255.0", "two.example"]


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("client", WIDER)
async def test_an_address_that_a_line_of_others_covers_is_no_node_and_has_access(
    nfs: NfsBackend, tmp_path: Path, client: str
) -> None:
    line = f"{tmp_path}/srv/data|{client}\tro,sync\n"
    (tmp_path / "etab").write_text(line)
    with pytest.raises(Trouble) as found:
        await nfs.locate("data", "10.0.0.5")
    assert (found.value.code, found.value.retryable) == ("address_ambiguous", False)
    assert client in found.value.message
    assert await nfs.look("data", "10.0.0.5") == "ro"
    # then taking access away says that it is not gone, and leaves the line, which is not the provider's
    with pytest.raises(Trouble) as kept:
        await nfs.withdraw("data", "10.0.0.5")
    assert (kept.value.code, kept.value.partial, client in kept.value.message) == ("still_exported", True, True)
    assert (tmp_path / "etab").read_text() == line


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("client", ["10.0.0.9", "10.0.1.0/24", "2001:db8::/32", "other.example", "nowhere.example"])
async def test_a_line_of_another_address_is_none_of_the_nodes(nfs: NfsBackend, tmp_path: Path, client: str) -> None:
    (tmp_path / "etab").write_text(f"{tmp_path}/srv/data|{client}\trw,sync\n")
    assert await nfs.locate("data", "10.0.0.5") == "10.0.0.5"
    assert await nfs.look("data", "10.0.0.5") == ""
    await nfs.withdraw("data", "10.0.0.5")
    assert client in (tmp_path / "etab").read_text()


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("10.0.0.5", "n1.example"),
        ("10.0.0.5", "::ffff:10.0.0.5"),
        ("10.0.0.5", "10.0.0.5/32"),
        ("2001:db8::5", "2001:DB8:0:0::5"),
    ],
)
async def test_an_export_is_taken_away_however_the_table_spells_its_address(
    nfs: NfsBackend, tmp_path: Path, address: str, client: str
) -> None:
    (tmp_path / "etab").write_text(f"{tmp_path}/srv/data|{client}\trw,sync\n")
    assert await nfs.look("data", address) == "rw"
    await nfs.withdraw("data", address)
    assert (tmp_path / "etab").read_text() == ""


@pytest.mark.usefixtures("names")
async def test_where_a_name_in_the_table_cannot_be_looked_up_nobody_says_that_access_is_gone(
    nfs: NfsBackend, tmp_path: Path
) -> None:
    (tmp_path / "etab").write_text(f"{tmp_path}/srv/data|down.example\trw,sync\n")
    for ask in (nfs.look, nfs.withdraw, nfs.locate):
        with pytest.raises(Trouble, match=r"down\.example") as found:
            await ask("data", "10.0.0.5")
        assert (found.value.code, found.value.partial) == ("exports_unreadable", False)


async def test_to_give_much_access_again_the_table_is_read_once_before_and_once_after(
    nfs: NfsBackend, tmp_path: Path, directories: Directories
) -> None:
    def looks() -> int:
        calls = (tmp_path / "calls").read_text().splitlines()
        (tmp_path / "calls").unlink()
        return calls.count("-v")

    wanted: dict[Access, Mode] = {("data", f"10.0.0.{number}"): "rw" for number in range(1, 6)}
    assert await nfs.restore(wanted) == {}
    assert looks() == 2
    assert await nfs.restore(wanted) == {}
    assert looks() == 1
    failed = await nfs.restore({**wanted, ("missing", "10.0.0.5"): "rw"})
    assert [(access, trouble.code) for access, trouble in failed.items()] == [
        (("missing", "10.0.0.5"), "no_such_namespace")
    ]
    (tmp_path / "fault").write_text("-i lie\n")
    (tmp_path / "etab").unlink()
    assert [trouble.code for trouble in (await nfs.restore(wanted)).values()] == ["export_failed"]
    assert [await nfs.look(*access) for access in wanted].count("rw") == 4


async def test_exports_of_other_hands_stay(nfs: NfsBackend, tmp_path: Path) -> None:
    theirs = [f"{tmp_path}/srv/data|10.0.0.9", "/home/theirs|10.0.0.5", f"{tmp_path}/srv/more|<world>"]
    (tmp_path / "etab").write_text("".join(f"{each}\trw,sync\n" for each in theirs))
    await nfs.apply("data", "10.0.0.5", "rw")
    await nfs.withdraw("data", "10.0.0.5")
    assert (tmp_path / "etab").read_text() == "".join(f"{each}\trw,sync\n" for each in theirs)


@pytest.mark.parametrize(
    ("fault", "code", "partial"),
    [("-i fail", "export_failed", False), ("-i lie", "export_failed", False), ("-i narrow", "export_failed", True),
     ("-v fail", "exports_unreadable", False)],
)  # fmt: skip
async def test_an_export_that_did_not_come_about_is_trouble(
    nfs: NfsBackend, tmp_path: Path, fault: str, code: str, partial: bool
) -> None:
    (tmp_path / "fault").write_text(f"{fault}\n")
    with pytest.raises(Trouble) as found:
        await nfs.apply("data", "10.0.0.5", "rw")
    assert (found.value.code, found.value.partial, found.value.retryable) == (code, partial, True)


@pytest.mark.parametrize(
    ("fault", "code"), [("-u fail", "still_exported"), ("-u lie", "still_exported"), ("-f fail", "flush_failed")]
)
async def test_an_export_that_is_not_gone_is_trouble_until_it_is(
    nfs: NfsBackend, tmp_path: Path, fault: str, code: str
) -> None:
    await nfs.apply("data", "10.0.0.5", "rw")
    (tmp_path / "fault").write_text(f"{fault}\n")
    with pytest.raises(Trouble) as found:
        await nfs.withdraw("data", "10.0.0.5")
    assert (found.value.code, found.value.partial) == (code, True)
    await nfs.withdraw("data", "10.0.0.5")
    assert calls(tmp_path)[-1] == "-f"
    assert await nfs.look("data", "10.0.0.5") == ""


async def test_a_client_loses_its_state_with_its_last_export(
    nfs: NfsBackend, tmp_path: Path, directories: Directories
) -> None:
    (directories.root / "more").mkdir()
    for number, address in enumerate(("10.0.0.5:871", "10.0.0.6:700", "[::1]:5")):
        client = tmp_path / "clients" / str(number)
        client.mkdir(parents=True)
        (client / "info").write_text(f'clientid: 0x1\naddress: "{address}"\nstatus: confirmed\n')
        (client / "ctl").touch()
    await nfs.apply("data", "10.0.0.5", "rw")
    await nfs.apply("more", "10.0.0.5", "rw")

    def expired() -> list[str]:
        return [path.parent.name for path in (tmp_path / "clients").glob("*/ctl") if path.read_text() == "expire\n"]

    await nfs.withdraw("data", "10.0.0.5")
    assert expired() == []
    await nfs.withdraw("more", "10.0.0.5")
    assert expired() == ["0"]


@pytest.mark.parametrize("file", ["ctl", "info"])
async def test_a_client_that_keeps_its_state_is_trouble_until_it_does_not(
    nfs: NfsBackend, tmp_path: Path, file: str
) -> None:
    client = tmp_path / "clients" / "7"
    client.mkdir(parents=True)
    (client / "info").write_text('address: "10.0.0.5:871"\n')
    (client / "ctl").touch()
    (client / file).rename(client / "aside")
    (client / file).mkdir()  # it cannot be read or written
    await nfs.apply("data", "10.0.0.5", "rw")
    with pytest.raises(Trouble, match="7 ") as found:
        await nfs.withdraw("data", "10.0.0.5")
    assert (found.value.code, found.value.partial, found.value.retryable) == ("not_expired", True, True)
    (client / file).rmdir()
    (client / "aside").rename(client / file)
    await nfs.withdraw("data", "10.0.0.5")
    assert (client / "ctl").read_text() == "expire\n"


def test_the_export_table_is_read_as_exportfs_prints_it() -> None:
    said = (
        "/srv/nfs/data \n\t\t10.0.0.5(sync,wdelay,hide,no_subtree_check,sec=sys,rw,secure,root_squash,no_all_squash)\n"
        "/srv/nfs/data \n\t\t2001:db8::5(sync,wdelay,hide,no_subtree_check,sec=sys,ro,secure,root_squash)\n"
        "/export       \t<world>(sync,wdelay,hide,no_subtree_check,sec=sys,ro,secure,root_squash,no_all_squash)\n"
    )
    assert parse(said) == {
        "/srv/nfs/data": {"10.0.0.5": "rw", "2001:db8::5": "ro"}, "/export": {"<world>": "ro"},
    }  # fmt: skip
    assert parse("") == {}
    assert parse("exportfs: (odd words)") == {}


# --- programs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [True, False])
async def test_a_program_that_does_not_end_is_ended_and_only_one_that_changes_may_have_done_a_part(
    tmp_path: Path, changes: bool
) -> None:
    told = tmp_path / "pid"
    program = "import os, pathlib, signal, sys; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); signal.pause()"
    running = asyncio.create_task(run([sys.executable, "-SE", "-c", program, str(told)], 3.0, changes=changes))
    async with asyncio.timeout(PATIENCE_S):
        while not told.exists() or not told.read_text():
            await asyncio.sleep(0.01)
    process = Path("/proc") / told.read_text()
    assert process.exists()
    assert not running.done()
    with pytest.raises(Trouble) as found:
        await running
    assert (found.value.code, found.value.partial) == ("program_timeout", changes)
    assert not process.exists()


@pytest.mark.parametrize(("fault", "partial"), [("-v hang", False), ("-i hang", True)])
async def test_a_look_that_does_not_end_has_changed_nothing(
    nfs: NfsBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, partial: bool
) -> None:
    monkeypatch.setattr("adapters.storage.nfs.run", partial_of(run, within_s=1.5))
    (tmp_path / "fault").write_text(f"{fault}\n")
    with pytest.raises(Trouble) as found:
        await nfs.apply("data", "10.0.0.5", "rw")
    assert (tmp_path / "pid").exists()  # it did hang
    assert (found.value.code, found.value.partial) == ("program_timeout", partial)


async def test_a_program_that_is_not_there_or_says_too_much_is_trouble() -> None:
    with pytest.raises(Trouble, match="is not there"):
        await run(["/nonexistent/exportfs"], changes=True)
    with pytest.raises(Trouble, match="bytes of output"):
        await run(
            [sys.executable, "-c", "import sys\nwhile True: sys.stdout.write('x' * 65536)"], PATIENCE_S, changes=True
        )


@pytest.mark.parametrize("name", ["a b", "a(b)", "a,b", "ä", "a\\b", "a:b"])
def test_a_root_that_the_export_table_would_quote_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    odd = Directories(tmp_path / name)
    with pytest.raises(BadConfiguration, match="letters, digits"):
        NfsBackend(odd, Measured(odd, lambda: 0), Capabilities(), "10.0.0.20")


async def test_with_bind_access_is_a_table_and_the_source_the_directory(directories: Directories, clock: Clock) -> None:
    backend = BindBackend(directories, Measured(directories, clock), Capabilities())
    assert await backend.apply("data", "10.0.0.5", "rw") == {"type": "bind", "path": str(directories.root / "data")}
    assert await backend.look("data", "10.0.0.5") == "rw"
    await backend.withdraw("data", "10.0.0.5")
    await backend.withdraw("data", "10.0.0.5")
    assert await backend.look("data", "10.0.0.5") == ""
    with pytest.raises(Trouble):
        await backend.apply("missing", "10.0.0.5", "rw")
