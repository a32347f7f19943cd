"""Whether a customer could log in: what a real OpenSSH server would refuse is found by the probe and by key-install."""

import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import asyncssh
import pytest

from adapters.ssh.commands import Op, SshOutcome, probe_command, script
from tests.adapters.ssh.machines import Customer, OpenSsh, needs_root
from tests.adapters.ssh.test_scripts import NOBODY, run
from tests.patience import PATIENCE_S

Daemon = Callable[..., Awaitable[OpenSsh]]

# Settings of a daemon → what is said about them.
CLOSED: Final = {
    "AllowUsers root": "sshd's AllowUsers leave out am-",
    "AllowUsers root [a]m-* am-?": "sshd's AllowUsers leave out am-",
    "DenyUsers mallory am-*": "sshd's DenyUsers name am-",
    "AllowGroups root wheel": "sshd's AllowGroups leave out am-",
    "DenyGroups am-*": "sshd's DenyGroups name a group of am-",
    "Match User am-*\n    PubkeyAuthentication no": "sshd's PubkeyAuthentication is off",
    "Match User am-*\n    AuthenticationMethods publickey,publickey": "sshd's AuthenticationMethods are",
    "AuthorizedKeysFile /etc/ssh/keys/%u .ssh/other": "sshd's AuthorizedKeysFile is not .ssh/authorized_keys: /etc",
    "AuthorizedKeysFile none": "sshd's AuthorizedKeysFile is not .ssh/authorized_keys: none",
    "Match Address 127.0.0.1\n    DenyUsers am-*": "sshd's DenyUsers name am-",
    "Match User am-*\n    ForceCommand /usr/sbin/nologin": "sshd's ForceCommand is /usr/sbin/nologin",
}
OPEN: Final = (
    "AllowUsers root am-*",
    "AllowUsers root am-????????????????????????? am-*@127.0.0.*",
    "DenyUsers am-*@192.0.2.1 am-? mallory",
    "AllowGroups am-* root",
    "AuthorizedKeysFile /etc/ssh/keys/%u %h/.ssh/authorized_keys",
    "AuthorizedKeysFile /home/%u/.ssh/authorized_keys",
    "AuthenticationMethods publickey,password publickey",
    "Match User mallory\n    DenyUsers *",
    "Match Group nobody-is-in-it\n    PubkeyAuthentication no",
)


async def probed(machine: OpenSsh) -> SshOutcome:
    """A probe of this daemon."""
    return await machine.client.run("n1", machine.endpoint, probe_command(1), timeout_ms=20_000)


async def on(machine: OpenSsh, customer: Customer, op: Op) -> SshOutcome:
    """A step through this daemon instead of the customer's own."""
    customer.machine, usual = machine, customer.machine
    try:
        return await customer.step(op)
    finally:
        customer.machine = usual


def refuses(outcome: SshOutcome, words: str) -> bool:
    """Whether it failed for that reason."""
    assert (outcome.status, outcome.code, outcome.exit_status) == ("failed", "ssh_step_failed", 1), outcome
    assert f"amends: customers cannot log in: {words}" in outcome.message, outcome
    return True


@pytest.mark.parametrize("settings", CLOSED)
async def test_a_daemon_that_would_refuse_the_customer_is_found_out(daemon: Daemon, settings: str) -> None:
    # given a customer who can log in, and another daemon of the machine that does not let him
    usual, closed = await daemon(), await daemon(settings=settings)
    customer = Customer(usual)
    assert await customer.exits("user-create") == 0
    assert await customer.exits("key-install") == 0
    assert await customer.can_log_in()
    customer.machine = closed
    assert not await customer.can_log_in()
    # then a probe and a set-up through that one say so
    assert refuses(await probed(closed), CLOSED[settings])
    assert refuses(await customer.step("key-install"), CLOSED[settings])
    # and who is to leave leaves
    for op in ("user-lock", "user-remove"):
        assert await customer.exits(op) == 0


@pytest.mark.parametrize("settings", OPEN)
async def test_a_daemon_that_lets_the_customer_in_is_not_refused(daemon: Daemon, settings: str) -> None:
    machine = await daemon(settings=settings)
    assert (await probed(machine)).status == "done"
    customer = Customer(machine)
    assert await customer.exits("user-create") == 0
    assert await customer.exits("key-install") == 0
    assert await customer.can_log_in()


async def test_the_settings_are_those_of_today(daemon: Daemon) -> None:
    machine = await daemon()
    assert (await probed(machine)).status == "done"
    await machine.reconfigure("AllowUsers root")
    assert refuses(await probed(machine), "sshd's AllowUsers")
    await machine.reconfigure("")
    assert (await probed(machine)).status == "done"


async def test_a_key_of_a_type_that_the_daemon_does_not_take_is_refused(daemon: Daemon) -> None:
    machine = await daemon(
        settings="Match User am-*\n    PubkeyAcceptedAlgorithms rsa-sha2-256,rsa-sha2-512,ssh-ed25519"
    )
    for kind, words in (("ssh-rsa", ""), ("ssh-ed25519", ""), ("ecdsa-sha2-nistp256", "sshd's PubkeyAccepted")):
        customer = Customer(machine)
        if kind == "ssh-rsa":
            customer.key = asyncssh.generate_private_key(kind, key_size=3072)
        else:
            customer.key = asyncssh.generate_private_key(kind)
        customer.public = customer.key.export_public_key().decode().strip()
        assert await customer.exits("user-create") == 0
        outcome = await customer.step("key-install")
        assert refuses(outcome, words) if words else outcome.status == "done"
        assert await customer.can_log_in() == (not words)


WORLDS: Final = {
    "nologin while the machine goes down": (
        "mount -t tmpfs t /run; mkdir /run/sshd; touch /run/nologin", "there is /run/nologin",
    ),
    "homes that nobody but root can enter": ("mount -t tmpfs -o mode=700 t /home", "/home cannot be entered"),
    "homes that cannot be written to": ("mount -t tmpfs -o ro t /home", "/home is not a folder in which a home"),
}  # fmt: skip


@pytest.mark.parametrize("world", WORLDS)
async def test_a_machine_that_is_closed_to_customers_is_no_good_node(daemon: Daemon, world: str) -> None:
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True, timeout=PATIENCE_S).returncode:
        pytest.skip("mount namespaces are not permitted here")
    change, words = WORLDS[world]
    usual, closed = await daemon(), await daemon(world=change)
    assert refuses(await probed(closed), words)
    if "/run" in change:  # the user's home is there in both worlds
        customer = Customer(usual)
        assert await customer.exits("user-create") == 0
        assert refuses(await on(closed, customer, "key-install"), words)
        assert not await customer.can_log_in()


@needs_root
@pytest.mark.parametrize("place", ["/etc/nologin", "/run/nologin", "/var/run/nologin"])
def test_every_file_that_closes_logins_is_looked_for(tmp_path: Path, place: str) -> None:
    text = script("probe").replace(f" {place}", f" '{tmp_path}/nologin'")
    assert run(text, "probe", **NOBODY).returncode == 0
    (tmp_path / "nologin").write_text("until tomorrow\n")
    done = run(text, "probe", **NOBODY)
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"customers cannot log in: there is {tmp_path}/nologin".encode() in done.stderr


ACCOUNTS: Final = {
    "an account that has expired": (["chage", "-E", "2001-01-01"], "has expired", ()),
    "a password that must be changed": (["chage", "-d", "0"], "must change its password", ("UsePAM no",)),
    "a password that has expired": (["chage", "-d", "2001-01-01", "-M", "5"], "has expired", ("UsePAM no",)),
    "an account that somebody locked": (["usermod", "-L"], "is locked", ("UsePAM yes",)),
    "a shell that refuses": (["usermod", "-s", "/usr/sbin/nologin"], "the shell is /usr/sbin/nologin", ()),
    "a shell that is not there": (["usermod", "-s", "/bin/no-shell"], "/bin/no-shell cannot be executed", ()),
    "a home elsewhere": (["usermod", "-d", "/nowhere"], "the home of", ()),
}


@pytest.mark.parametrize("use_pam", [False, True], ids=["UsePAM no", "UsePAM yes"])
@pytest.mark.parametrize("account", ACCOUNTS)
async def test_an_account_that_a_policy_has_closed_is_not_handed_over(
    daemon: Daemon, account: str, use_pam: bool
) -> None:
    command, words, lets_in = ACCOUNTS[account]
    machine = await daemon(use_pam=use_pam)
    customer = Customer(machine)
    assert await customer.exits("user-create") == 0
    assert await customer.exits("key-install") == 0
    assert await customer.can_log_in()
    subprocess.run([*command, customer.user], check=True, capture_output=True, timeout=PATIENCE_S)
    # then it is refused, although not every daemon would
    outcome = await customer.step("key-install")
    assert (outcome.status, outcome.code) == ("failed", "ssh_step_failed")
    assert words in outcome.message
    if f"UsePAM {'yes' if use_pam else 'no'}" not in lets_in:
        assert not await customer.can_log_in()
    assert await customer.exits("user-remove") == 0


async def test_a_machines_defaults_for_accounts_close_none_of_a_customer(daemon: Daemon, tmp_path: Path) -> None:
    # given a machine on which new accounts expire at once and passwords every day
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True, timeout=PATIENCE_S).returncode:
        pytest.skip("mount namespaces are not permitted here")
    for name, words in (("default/useradd", "EXPIRE=2001-01-01\nINACTIVE=0\n"), ("login.defs", "PASS_MAX_DAYS 1\n")):
        (tmp_path / Path(name).name).write_text(Path("/etc", name).read_text() + words)
    world = (
        f"mount --bind '{tmp_path}/useradd' /etc/default/useradd; mount --bind '{tmp_path}/login.defs' /etc/login.defs"
    )
    machine = await daemon(use_pam=True, world=world)
    customer = Customer(machine)
    # then a customer's account stays open
    assert await customer.exits("user-create") == 0
    assert await customer.exits("key-install") == 0
    assert await customer.can_log_in()
    shadow = subprocess.run(["getent", "shadow", customer.user], check=True, capture_output=True, text=True)
    assert shadow.stdout.strip().split(":")[4:] in (["", "7", "", "", ""], ["-1", "7", "", "", ""])


@needs_root
@pytest.mark.parametrize("shell", [shell for shell in ("dash", "bash", "mksh") if shutil.which(shell)])
def test_where_no_openssh_serves_the_connection_the_rest_is_checked(shell: str) -> None:
    # given a script that no sshd has started
    text = script("probe").replace("*/sshd |", "*/no-sshd |")
    assert run(text, "probe", shell, **NOBODY).returncode == 0
    done = run(text.replace("/run/nologin", "/proc/self/stat"), "probe", shell, **NOBODY)
    assert b"there is /proc/self/stat" in done.stderr


PARSED: Final = {
    "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups\0\0": [],
    "sshd: /usr/sbin/sshd -D -f /etc/a b/c -o AllowUsers=root am-* -p 22 [listener] 0 of": [
        "-f", "/etc/a b/c", "-o", "AllowUsers=root am-*",
    ],
    "/usr/sbin/sshd\0-Def/x\0-E\0/log\0-o\0UsePAM=no\0-4p22\0-hkey\0": ["-f", "/x", "-o", "UsePAM=no", "-h", "key"],
    "sshd: root@notty": [],
    "sshd: /usr/sbin/sshd -D -f /* [listener] 0": ["-f", "/*"],
}  # fmt: skip


@pytest.mark.parametrize("shell", [shell for shell in ("dash", "bash", "mksh") if shutil.which(shell)])
@pytest.mark.parametrize("cmdline", PARSED)
def test_the_daemon_is_asked_with_its_own_arguments(tmp_path: Path, cmdline: str, shell: str) -> None:
    (tmp_path / "cmdline").write_bytes(cmdline.encode())
    (tmp_path / "exe").symlink_to("/usr/sbin/sshd")
    text = script("probe").replace("/proc/$daemon", str(tmp_path)).replace("timeout -k 1 5", "printf '%s\\n'")
    text = text.replace("amends_main </dev/null", "SSH_CONNECTION='10.0.0.1 5 10.0.0.2 22'; daemon=1; ask_daemon am-x")
    said = run(text, "probe", shell, **NOBODY).stdout.decode().splitlines()
    assert said[:4] == [f"{tmp_path}/exe", "-T", "-C", "user=am-x,host=10.0.0.1,addr=10.0.0.1,laddr=10.0.0.2,lport=22"]
    assert said[4:] == PARSED[cmdline]
