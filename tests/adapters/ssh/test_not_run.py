"""What answers in a script's place on a real OpenSSH server: an exit status of 0 without the script's last line."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from adapters.ssh.commands import OPS, Op, SshCommand, SshOutcome, probe_command
from tests.adapters.ssh.machines import HOMES, Customer, OpenSsh

Daemon = Callable[..., Awaitable[OpenSsh]]
START_FILE = "SetEnv HOME={home}"  # bash reads .bashrc there, also for the one command of a connection

# What stands in the way → settings of the runtime's own login, the start file, and whether it ends with 0.
SWALLOWS: Final = {
    "a forced command that says something": ('ForceCommand echo "This machine is managed by others."', "", True),
    "a forced command that reads": ("ForceCommand cat", "", True),
    "a forced command that shows what was asked": ('ForceCommand echo "$SSH_ORIGINAL_COMMAND"', "", True),
    "a start file that ends the shell": (START_FILE, "echo hello\nexit\n", True),
    "a start file that reads": (START_FILE, "cat >/dev/null\n", True),
    "a start file that reads the script's beginning": (START_FILE, "head -c 3000 >/dev/null\n", False),
    "a restricted shell": ('ForceCommand PATH=/nowhere /bin/rbash -c "$SSH_ORIGINAL_COMMAND"', "", False),
    "a shell that refuses": ("ForceCommand /usr/sbin/nologin", "", False),
    "a shell that refuses without a word": ("ForceCommand /bin/true", "", True),
    "files only": ("ForceCommand internal-sftp", "", False),
}


async def run(machine: OpenSsh, customer: Customer, op: Op) -> SshOutcome:
    """One step on this daemon."""
    if op == "probe":
        return await machine.client.run("n1", machine.endpoint, probe_command(1), timeout_ms=20_000)
    line = customer.public if op == "key-install" else ""
    command = SshCommand(op, customer.user, customer.allocation, "attempt_1", 1, line)
    return await machine.client.run("n1", machine.endpoint, command, timeout_ms=20_000)


@pytest.mark.parametrize("obstacle", SWALLOWS)
async def test_no_step_is_done_where_something_swallows_its_script(
    daemon: Daemon, tmp_path: Path, obstacle: str
) -> None:
    # given a customer who is on the machine, and another login to it that something stands in the way of
    for_root, start_file, ends_well = SWALLOWS[obstacle]
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").write_text(start_file)
    good, bad = await daemon(), await daemon(for_root=for_root.format(home=home))
    customer = Customer(good)
    # then no step of a set-up is done there, and each says why
    set_up: tuple[Op, ...] = ("probe", "user-create")
    for op in set_up:
        outcome = await run(bad, customer, op)
        assert outcome.status == ("failed" if op == "probe" or not ends_well else "unknown"), outcome
        assert outcome.code == ("ssh_not_run" if ends_well else "ssh_step_failed"), outcome
        assert outcome.may_have_run
        assert not customer.exists
    assert await customer.exits("user-create") == 0
    outcome = await run(bad, customer, "key-install")
    assert (outcome.status, outcome.code) != ("done", "")
    assert not await customer.can_log_in()
    # and no step of an undoing either: whoever is there stays, and nobody takes the node for clean
    assert await customer.exits("key-install") == 0
    undoing: tuple[Op, ...] = ("user-lock", "user-remove")
    for op in undoing:
        outcome = await run(bad, customer, op)
        assert outcome.status == ("unknown" if ends_well else "failed"), outcome
        assert outcome.exit_status == 0 or not ends_well
        assert await customer.can_log_in()


async def test_what_the_obstacle_said_stands_in_the_message(daemon: Daemon) -> None:
    machine = await daemon(for_root='ForceCommand for n in 1 2 3; do echo "managed by others"; done')
    outcome = await run(machine, Customer(machine), "probe")
    assert outcome.message.startswith("exit status 0, but the script did not run")
    assert outcome.message.endswith("It said: managed by others; managed by others; managed by others")


@pytest.mark.parametrize(
    "for_root",
    [
        'ForceCommand sh -c "$SSH_ORIGINAL_COMMAND"',
        'ForceCommand echo Welcome; printf "no end of this line"; eval "$SSH_ORIGINAL_COMMAND"; echo Goodbye',
        'ForceCommand yes "a long banner" | head -n 200000; exec $SSH_ORIGINAL_COMMAND',
    ],
)
async def test_a_forced_command_that_lets_the_script_run_is_no_obstacle(daemon: Daemon, for_root: str) -> None:
    machine = await daemon(for_root=for_root)
    customer = Customer(machine)
    for op in OPS:
        assert (await run(machine, customer, op)).status == "done"
        if op == "key-install":
            assert await customer.can_log_in()
    assert not customer.exists
    assert not (HOMES / customer.user).exists()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("amends-done $AMENDS_OP $AMENDS_NONCE", "done"),
        ("amends-done $AMENDS_OP ${AMENDS_NONCE%?}0$AMENDS_NONCE", "unknown"),
        ("amends-done $AMENDS_OP 0123456789abcdef", "unknown"),
        ("amends-done key-install $AMENDS_NONCE", "unknown"),
        ("amends-done $AMENDS_OP $AMENDS_NONCE ", "unknown"),
        (" amends-done $AMENDS_OP $AMENDS_NONCE", "unknown"),
        ("Amends-done $AMENDS_OP $AMENDS_NONCE", "unknown"),
        ("$AMENDS_NONCE", "unknown"),
    ],
)
async def test_a_forced_command_may_take_the_scripts_place_if_it_says_exactly_the_line(
    daemon: Daemon, tmp_path: Path, line: str, status: str
) -> None:
    program = tmp_path / "node-control"
    program.write_text(f"""#!/bin/sh
cat >/dev/null
for word in $SSH_ORIGINAL_COMMAND; do
  case $word in AMENDS_*=*) export "$word" ;; esac
done
echo "doing $AMENDS_OP"
echo "{line}"
""")
    program.chmod(0o755)
    machine = await daemon(for_root=f"ForceCommand {program}")
    assert (await run(machine, Customer(machine), "user-create")).status == status


async def test_no_two_runs_have_the_same_nonce(daemon: Daemon, tmp_path: Path) -> None:
    machine = await daemon(for_root=f'ForceCommand echo "$SSH_ORIGINAL_COMMAND" >>"{tmp_path}/asked"; cat >/dev/null')
    customer = Customer(machine)
    for _ in range(5):
        await run(machine, customer, "user-create")
    nonces = [line.split(" AMENDS_NONCE=")[1].split(" ")[0] for line in (tmp_path / "asked").read_text().splitlines()]
    assert len(set(nonces)) == 5
