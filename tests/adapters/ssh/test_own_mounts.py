"""Mounts that a customer made itself with FUSE: unmounted when it is locked out, and nothing else ever is (T5)."""

import ctypes
import os
import pwd
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.ssh.commands import script
from tests.adapters.ssh.machines import HOMES, Customer, OpenSsh
from tests.patience import PATIENCE_S

USER = "am-" + "0" * 26
HEAD = f"homes=HOMES; AMENDS_USER={USER}; uid=2001; mounts=TABLE\n"
OWN = "rw,user_id=2001,group_id=2001"


@pytest.fixture
async def resident(openssh: OpenSsh) -> Customer:
    customer = Customer(openssh)
    assert await customer.exits("user-create") == 0
    return customer


class Fuse:
    """FUSE mounts, made as `fusermount` makes them for a user; what would serve them never answers."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._open: list[int] = []
        self._places: list[Path] = []

    def mount(self, place: Path, uid: int) -> None:
        device = os.open("/dev/fuse", os.O_RDWR)
        self._open.append(device)
        options = f"fd={device},rootmode=40000,user_id={uid},group_id={uid}".encode()
        if self._libc.mount(b"theirs", bytes(place), b"fuse.test", 0, options):
            pytest.skip(f"FUSE is not permitted here: {os.strerror(ctypes.get_errno())}")
        self._places.append(place)

    def close(self) -> None:
        for device in self._open:
            os.close(device)
        for place in reversed(self._places):
            subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True, timeout=PATIENCE_S)


@pytest.fixture
def fuse() -> Iterator[Fuse]:
    if not Path("/dev/fuse").exists():
        pytest.skip("there is no FUSE here")
    made = Fuse()
    yield made
    made.close()


def mounted(below: Path) -> list[str]:
    places = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in places if place == str(below) or place.startswith(f"{below}/")]


async def test_a_customers_own_fuse_mounts_are_unmounted_with_the_lock(resident: Customer, fuse: Fuse) -> None:
    # given mounts of the customer's in its home, one of them over its keys, with names that the table escapes
    home, uid = HOMES / resident.user, pwd.getpwnam(resident.user).pw_uid
    assert await resident.exits("key-install") == 0
    for name in ("plain", "with a blank", "back\\slash", ".ssh"):
        (home / name).mkdir(exist_ok=True)
        fuse.mount(home / name, uid)
    assert len(mounted(home)) == 4
    # when it is locked out, then they are gone, and so is the key below one of them
    assert await resident.exits("user-lock") == 0
    assert mounted(home) == []
    assert not (home / ".ssh/authorized_keys").exists()
    # and the node owes nothing
    assert await resident.exits("user-remove") == 0
    assert not home.exists()


async def test_a_fuse_mount_over_the_home_itself_hides_no_key(resident: Customer, fuse: Fuse) -> None:
    home, uid = HOMES / resident.user, pwd.getpwnam(resident.user).pw_uid
    assert await resident.exits("key-install") == 0
    fuse.mount(home, uid)
    assert await resident.exits("user-lock") == 0
    assert mounted(home) == []
    assert not (home / ".ssh/authorized_keys").exists()


async def test_a_fuse_mount_of_anybody_else_stays_and_stops_the_removal(resident: Customer, fuse: Fuse) -> None:
    home, uid = HOMES / resident.user, pwd.getpwnam(resident.user).pw_uid
    (home / "data").mkdir()
    fuse.mount(home / "data", 0)
    assert await resident.exits("user-lock") == 0
    assert await resident.exits("user-remove") == 74
    # also where one of the customer's own lies under it
    fuse.mount(home / "data", uid + 1)
    assert await resident.exits("user-remove") == 74
    assert mounted(home) == [str(home / "data")] * 2


@pytest.mark.parametrize(
    ("lines", "own"),
    [
        ([f"36 1 0:5 / {{home}}/a rw,nosuid shared:7 master:2 - fuse.sshfs me@there: {OWN},allow_other"], True),
        ([f"36 1 0:5 / {{home}}/a rw - fuse x {OWN}"], True),
        ([f"36 1 0:5 / {{home}} rw - fuse x {OWN}"], True),
        (["36 1 0:5 / {home}/a rw - fuse x rw,user_id=20011,group_id=2001"], False),
        (["36 1 0:5 / {home}/a rw - fuse x rw,user_id=0,group_id=2001"], False),
        (["36 1 0:5 / {home}/a rw - fuse x rw,xuser_id=2001"], False),
        (["36 1 0:5 / {home}/a rw - fuse user_id=2001 rw"], False),
        (["36 1 0:5 /user_id=2001 {home}/a rw,user_id=2001 - nfs4 user_id=2001 rw,vers=4.2"], False),
        ([f"36 1 0:5 / {{home}}/a rw - fuseblk /dev/sdb {OWN}"], False),
        ([f"36 1 0:5 / {{home}}x/a rw - fuse x {OWN}"], None),
        ([f"36 1 0:5 / / rw - fuse x {OWN}"], None),
        # the newest decides: what lies on a mount of the customer's, or was made since, is looked at first
        ([f"36 1 0:5 / {{home}}/a rw - fuse x {OWN}", "37 36 0:6 / {home}/a/b rw - nfs s rw"], False),
        (["36 1 0:6 / {home}/n rw - nfs s rw", f"37 1 0:5 / {{home}}/a rw - fuse x {OWN}"], True),
    ],
)
def test_the_mount_table_is_read_to_the_letter(tmp_path: Path, lines: list[str], *, own: bool | None) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "".join(line.format(home=tmp_path / USER) + "\n" for line in ["1 0 8:1 / / rw - ext4 d rw", *lines])
    )
    text = script("user-lock")
    head = HEAD.replace("HOMES", shlex.quote(str(tmp_path))).replace("TABLE", shlex.quote(str(table)))
    ask = "find_home\nnewest_mount || exit 3\nis_own_fuse || exit 4\nexit 0\n"
    done = subprocess.run(
        ["sh", "-s"], input=text.replace("amends_main </dev/null\n", head + ask), capture_output=True, text=True,
        check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == ({True: 0, False: 4, None: 3}[own], "")
