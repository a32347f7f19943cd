"""What a customer may prepare in its own home, and what others may have lying about, on a real machine."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.adapters.ssh.machines import HOMES, Customer, OpenSsh, processes_of, until
from tests.patience import PATIENCE_S


@pytest.fixture
async def resident(openssh: OpenSsh) -> Customer:
    customer = Customer(openssh)
    assert await customer.exits("user-create") == 0
    return customer


@pytest.fixture
def victim() -> Iterator[Path]:
    """Something of root's that the customer points at; writable for all, so only our care protects it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="amends-test-") as name:
        folder = Path(name)
        (folder / "authorized_keys").write_text("root's own\n")
        folder.chmod(0o777)
        (folder / "authorized_keys").chmod(0o666)
        yield folder


# A daemon without PAM looks at the password field for closed accounts, one with PAM at the expiry date.
both_daemons = pytest.mark.parametrize("openssh", [False, True], indirect=True, ids=["UsePAM no", "UsePAM yes"])


def own(customer: Customer, path: Path) -> None:
    entry = pwd.getpwnam(customer.user)
    os.lchown(path, entry.pw_uid, entry.pw_gid)


@both_daemons
async def test_the_key_is_written_for_a_stock_sshd_and_nobody_else(resident: Customer) -> None:
    await resident.exits("key-install")
    home = HOMES / resident.user
    uid = pwd.getpwnam(resident.user).pw_uid
    for path, mode in ((home, 0o700), (home / ".ssh", 0o700), (home / ".ssh/authorized_keys", 0o600)):
        found = path.lstat()
        assert (found.st_uid, found.st_mode & 0o7777) == (uid, mode)
    written = (home / ".ssh/authorized_keys").read_text()
    assert written == "restrict,pty,port-forwarding " + " ".join(resident.public.split(" ")[:2]) + "\n"
    assert await resident.can_log_in()


async def test_a_ssh_folder_that_leads_elsewhere_is_replaced_and_not_followed(resident: Customer, victim: Path) -> None:
    (HOMES / resident.user / ".ssh").symlink_to(victim)
    assert await resident.exits("key-install") == 0
    assert (victim / "authorized_keys").read_text() == "root's own\n"
    assert await resident.can_log_in()


@pytest.mark.parametrize("target", ["authorized_keys", "."])
async def test_a_keys_file_that_leads_elsewhere_is_replaced_and_not_followed(
    resident: Customer, victim: Path, target: str
) -> None:
    folder = HOMES / resident.user / ".ssh"
    folder.mkdir()
    own(resident, folder)
    (folder / "authorized_keys").symlink_to(victim / target)
    (folder / ".amends-key").symlink_to(victim / "authorized_keys")
    assert await resident.exits("key-install") == 0
    assert (victim / "authorized_keys").read_text() == "root's own\n"
    assert [path.name for path in victim.iterdir()] == ["authorized_keys"]
    assert await resident.can_log_in()


async def test_locking_deletes_no_key_elsewhere(resident: Customer, victim: Path) -> None:
    link = HOMES / resident.user / ".ssh"
    link.symlink_to(victim)
    assert await resident.exits("user-lock") == 0
    assert not link.is_symlink()
    assert (victim / "authorized_keys").read_text() == "root's own\n"


@both_daemons
async def test_a_locked_account_stays_closed_even_with_the_key_in_place(resident: Customer) -> None:
    await resident.exits("key-install")
    keys = HOMES / resident.user / ".ssh/authorized_keys"
    line = keys.read_text()
    await resident.exits("user-lock")
    assert not keys.exists()
    keys.write_text(line)
    own(resident, keys)
    assert not await resident.can_log_in()


async def test_a_second_keys_file_goes_with_the_lock(resident: Customer) -> None:
    await resident.exits("key-install")
    folder = HOMES / resident.user / ".ssh"
    (folder / "authorized_keys2").write_text(resident.public + "\n")
    folder.chmod(0o500)
    assert await resident.exits("user-lock") == 0
    assert list(folder.iterdir()) == []


def closed_home(home: Path) -> None:
    home.chmod(0)


def closed_ssh_folder(home: Path) -> None:
    (home / ".ssh").chmod(0)


def keys_as_a_folder(home: Path) -> None:
    keys = home / ".ssh/authorized_keys"
    keys.unlink()
    (keys / "full").mkdir(parents=True)
    (keys / "full").chmod(0)
    keys.chmod(0)
    home.chmod(0)


def keys_as_a_file_of_others(home: Path) -> None:
    keys = home / ".ssh/authorized_keys"
    keys.unlink()
    (keys / "full").mkdir(parents=True)
    for path in (keys / "full", keys, home / ".ssh"):
        os.chown(path, 12345, 12345)
        path.chmod(0o700)


@pytest.mark.parametrize("hostile", [closed_home, closed_ssh_folder, keys_as_a_folder, keys_as_a_file_of_others])
async def test_a_customer_who_closes_its_own_folders_is_locked_out_and_removed_all_the_same(
    resident: Customer, hostile: Callable[[Path], None]
) -> None:
    # given a customer who has logged in and left its home so that its own rights do not reach into it
    assert await resident.exits("key-install") == 0
    assert await resident.can_log_in()
    home = HOMES / resident.user
    hostile(home)
    if hostile is not keys_as_a_file_of_others:
        for path in home.rglob("*"):
            own(resident, path)
    # then it is locked out, as often as that is asked, and where sshd looks there is no key
    for _ in range(2):
        assert await resident.exits("user-lock") == 0
        assert not (home / ".ssh/authorized_keys").exists()
    assert not await resident.can_log_in()
    # and removed
    assert await resident.exits("user-remove") == 0
    assert not home.exists()
    assert not resident.exists


async def test_removal_follows_no_link_out_of_the_home(resident: Customer, victim: Path) -> None:
    (HOMES / resident.user / "link").symlink_to(victim)
    assert await resident.exits("user-remove") == 0
    assert not (HOMES / resident.user).exists()
    assert (victim / "authorized_keys").exists()


async def test_a_home_that_is_a_link_is_neither_used_nor_deleted(openssh: OpenSsh, victim: Path) -> None:
    customer = Customer(openssh)
    (HOMES / customer.user).symlink_to(victim)
    outcome = await customer.step("user-create")
    assert (outcome.exit_status, customer.exists) == (1, False)
    assert "exists already" in outcome.message
    (HOMES / customer.user).unlink()
    assert await customer.exits("user-create") == 0
    shutil.rmtree(HOMES / customer.user)
    (HOMES / customer.user).symlink_to(victim)
    for op in ("user-create", "key-install", "user-remove"):
        assert await customer.exits(op) == 1
    assert (HOMES / customer.user).is_symlink()
    assert (victim / "authorized_keys").read_text() == "root's own\n"


async def test_nothing_of_the_home_is_deleted_while_something_is_mounted_there(resident: Customer) -> None:
    home = HOMES / resident.user
    await resident.exits("key-install")
    (home / "thesis").write_text("a year's work")
    if why := resident.machine.mount_below_home(resident.user):
        pytest.skip(why)
    before = sorted(path.name for path in home.rglob("*"))
    assert await resident.exits("user-remove") == 74
    assert sorted(path.name for path in home.rglob("*")) == before
    assert (home / "data here" / "kept").read_text() == "the namespace's"
    assert not await resident.can_log_in()


async def test_a_bind_mount_of_the_same_file_system_stops_the_removal_as_well(resident: Customer, victim: Path) -> None:
    place = HOMES / resident.user / "bound"
    place.mkdir()
    mount = ["mount", "--bind", str(victim), str(place)]
    done = subprocess.run(mount, check=False, capture_output=True, timeout=PATIENCE_S)
    if done.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {done.stderr.decode().strip()}")
    try:
        assert await resident.exits("user-remove") == 74
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=PATIENCE_S)
    assert (victim / "authorized_keys").exists()
    assert await resident.exits("user-remove") == 0
    assert (victim / "authorized_keys").exists()


async def test_a_foreign_users_home_and_processes_are_left_alone(openssh: OpenSsh) -> None:
    customer = Customer(openssh)
    openssh.add_foreign(customer.user)
    await openssh.start_process(customer.user)
    for op in ("user-lock", "user-remove"):
        assert await customer.exits(op) == 1
    assert await openssh.has_processes(customer.user)
    assert (HOMES / customer.user).is_dir()


async def test_a_customer_who_stops_our_helper_costs_time_and_nothing_else(resident: Customer) -> None:
    # A busy process of the customer that stops every newcomer of its own uid, our key writer included.
    hunter = 'while :; do for p in $(pgrep -u "$(id -u)" -x sh); do [ "$p" = "$$" ] || kill -STOP "$p"; done; done'
    machine = resident.machine
    assert isinstance(machine, OpenSsh)
    hunting = machine.spawn(resident.user, "sh", "-c", hunter)
    uid = pwd.getpwnam(resident.user).pw_uid
    await until(lambda: len(processes_of(uid)) > 1, "the hunter looks for processes")
    assert hunting.poll() is None
    await resident.step("key-install", timeout_ms=300)  # whether it is caught is chance; this must hold anyhow:
    assert await resident.exits("user-remove", attempt="attempt_2") == 0
    assert not resident.exists


async def test_a_process_under_another_uid_in_the_customers_user_namespace_is_ended(resident: Customer) -> None:
    # given a process that the customer's user namespace maps to another uid, and whose parent is gone: newuidmap
    # does this for whoever has subordinate uids, root does it here
    machine = resident.machine
    assert isinstance(machine, OpenSsh)
    mapped = await machine.spawn_mapped(resident.user, 1_234_567)
    await until(lambda: processes_of(1_234_567), "the process has changed its uid")
    assert not await machine.has_processes(resident.user)
    # when the customer is locked out
    assert await resident.exits("user-lock") == 0
    # then it has ended
    assert processes_of(1_234_567) == []
    assert mapped.wait(PATIENCE_S) != 0


async def test_a_customer_has_no_subordinate_uids(resident: Customer) -> None:
    for table in ("/etc/subuid", "/etc/subgid"):
        if not Path(table).exists():
            pytest.skip(f"useradd gives none where there is no {table}")
        assert resident.user not in Path(table).read_text()


@pytest.fixture
def shared(resident: Customer) -> Iterator[Path]:
    """A folder of the customer's at the top of /tmp, with a file, a link, and a file of somebody else's."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="amends-test-"))
    (folder / "deep").mkdir()
    for path in (folder / "own", folder / "deep/own", folder / "others"):
        path.write_text("written")
    (folder / "link").symlink_to("/etc/passwd")
    for path in (folder, folder / "own", folder / "deep", folder / "deep/own", folder / "link"):
        own(resident, path)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.usefixtures("alone")
async def test_what_the_customer_left_in_tmp_goes_and_what_others_have_there_stays(
    resident: Customer, shared: Path, victim: Path
) -> None:
    # given files of the customer's below others' folders, too, and a link to a folder that is its own elsewhere
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True, timeout=PATIENCE_S).returncode:
        pytest.skip("mount namespaces are not permitted here")
    single = Path(tempfile.mkstemp(dir="/var/tmp", prefix="amends-test-")[1])
    (victim / "elsewhere").mkdir()
    (victim / "elsewhere/kept").write_text("written")
    (shared / "deep/way").symlink_to(victim / "elsewhere")
    for path in (single, victim / "elsewhere", victim / "elsewhere/kept", shared / "deep/way"):
        own(resident, path)
    # when it is removed
    assert await resident.exits("user-remove") == 0
    # then what lies in its own folders or at the top is gone, and nothing else is
    assert not single.exists()
    assert sorted(path.name for path in shared.rglob("*")) == ["deep", "others"]
    assert (victim / "elsewhere/kept").exists()
    assert (victim / "authorized_keys").exists()


@pytest.mark.usefixtures("alone")
async def test_no_shared_place_is_swept_while_something_is_mounted_below_it(
    resident: Customer, shared: Path, victim: Path
) -> None:
    # given a folder of the same file system mounted there, with a file of the customer's uid
    (victim / "thesis").write_text("a year's work")
    own(resident, victim / "thesis")
    mount = ["mount", "--bind", str(victim), str(shared / "deep")]
    done = subprocess.run(mount, check=False, capture_output=True, timeout=PATIENCE_S)
    if done.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {done.stderr.decode().strip()}")
    try:
        assert await resident.exits("user-remove") == 0
    finally:
        subprocess.run(["umount", str(shared / "deep")], check=True, timeout=PATIENCE_S)
    assert (victim / "thesis").exists()
    assert (shared / "own").exists()


@both_daemons
async def test_a_login_is_closed_by_the_removal(resident: Customer) -> None:
    await resident.exits("key-install")
    assert await resident.can_log_in()
    assert await resident.exits("user-remove") == 0
    assert not (HOMES / resident.user).exists()
    assert not await resident.can_log_in()
    ask = ["getent", "group", resident.user]
    groups = subprocess.run(ask, check=False, capture_output=True, timeout=PATIENCE_S)
    assert groups.returncode != 0
