"""The step scripts themselves, as they are sent: their form, their refusals, and what they keep."""

import grp
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import cast

import pytest

from adapters.ssh import commands
from adapters.ssh.commands import OPS, Op, SshCommand, command_line, packed, probe_command, script
from tests.adapters.ssh.machines import needs_root, new_suffix
from tests.patience import PATIENCE_S

SUFFIX = new_suffix()
GOOD = {
    "AMENDS_USER": f"am-{SUFFIX}",
    "AMENDS_ALLOCATION": f"alloc_{SUFFIX}",
    "AMENDS_ATTEMPT": "attempt_1",
    "AMENDS_EPOCH": "1",
    "AMENDS_NONCE": "0123456789abcdef",
}
NONCE = GOOD["AMENDS_NONCE"]
OPERATE = "  (operate; exit 0) >/dev/null || exit\n"  # what a test puts something else in the place of
NOBODY = {"AMENDS_USER": "-", "AMENDS_ALLOCATION": "-", "AMENDS_ATTEMPT": "-"}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(commands, "STATE_ROOT", str(tmp_path / "state"))
    return tmp_path / "state"


def settings(op: str, **values: str) -> list[str]:
    return [f"{name}={value}" for name, value in {"AMENDS_OP": op, **GOOD, **values}.items()]


def run(text: str, op: str, shell: str = "sh", **values: str) -> subprocess.CompletedProcess[bytes]:
    command = ["env", *settings(op, **values), shell, "-s"]
    return subprocess.run(command, input=text.encode(), capture_output=True, check=False, timeout=PATIENCE_S)


# A linter of the system, no package of the pinned set: a newcomer may do without, and CI installs it.
@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed; .ci/run installs it")
@pytest.mark.parametrize("op", OPS)
def test_shellcheck_finds_nothing_in_what_is_sent(op: Op) -> None:
    text = script(op, "restrict,pty ssh-ed25519 AAAA" if op == "key-install" else "")
    found = subprocess.run(
        ["shellcheck", "--norc", "--shell=sh", "--enable=check-unassigned-uppercase", "-"],
        input=text, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("op", OPS)
def test_a_script_that_arrives_cut_off_does_nothing(op: Op, state: Path) -> None:
    text = packed(script(op), "restrict ssh-ed25519 AAAA" if op == "key-install" else "")
    for cut in [*range(0, len(text) - 4, 499), *range(len(text) - 8, len(text) - 2)]:
        run(text[:cut], op)
        assert not state.exists(), f"cut at {cut}"


@pytest.mark.parametrize("op", OPS)
def test_a_script_that_has_lost_its_beginning_does_nothing_and_says_nothing_of_being_done(op: Op, state: Path) -> None:
    # given a start file of the login shell that has read some of it
    text = packed(script(op), "restrict ssh-ed25519 AAAA" if op == "key-install" else "")
    begun = text.index("eval ")
    for cut in [
        *range(begun + 1, begun + 40),
        *range(begun + 40, len(text) - 20, 499),
        *range(len(text) - 20, len(text) - 1),
    ]:
        done = run(text[cut:], op, **(NOBODY if op == "probe" else {}))
        assert not state.exists(), f"cut at {cut}"
        assert b"amends-done" not in done.stdout, f"cut at {cut}"
        assert done.returncode != 0, f"cut at {cut}"


@needs_root
@pytest.mark.parametrize("shell", [shell for shell in ("sh", "dash", "bash", "mksh") if shutil.which(shell)])
def test_a_packed_script_is_the_script(shell: str, state: Path) -> None:
    text = 'printf "%s\\n" "a b" \'$c\' `echo d` # e\nf=\'\\0101\\n(;|&<>)\'\nprintf "%s" "$f%"' + "\n"
    for form in (text, packed(text)):
        assert run(form, "probe", shell).stdout == b"a b\n$c\nd\n\\0101\\n(;|&<>)%"
    done = run(packed(script("user-remove")), "user-remove", shell)
    assert (done.returncode, done.stdout) == (0, f"\namends-done user-remove {NONCE}\n".encode())


@needs_root
@pytest.mark.parametrize("op", ["probe", "user-remove"])
def test_the_last_act_of_a_script_is_its_line_and_nothing_it_runs_can_print_another(op: Op, state: Path) -> None:
    values = NOBODY if op == "probe" else {}
    done = run(script(op), op, **values)
    assert (done.returncode, done.stdout) == (0, f"\namends-done {op} {NONCE}\n".encode())
    # whatever is printed inside of it, by root's tools or with a customer's rights, goes nowhere
    printing = '  echo from a tool; uid=12345; gid=12345; as_customer sh -c "echo from a customer; env" || exit 3\n'
    noisy = script(op).replace("\noperate() {\n", f"\noperate() {{\n{printing}")
    done = run(noisy, op, **values)
    assert (done.returncode, done.stdout) == (0, f"\namends-done {op} {NONCE}\n".encode())
    failing = script(op).replace("\noperate() {\n", "\noperate() {\n  fail 'no such luck'\n")
    done = run(failing, op, **values)
    assert (done.returncode, done.stdout) == (1, b"")


def test_the_key_line_is_one_word_whatever_stands_in_it() -> None:
    line = """command="echo 'a' $(id) `id` \\ ;" ssh-ed25519 AAAA"""
    text = script("key-install", line)
    definition = text[: text.index("state_root=")]
    text = f'{definition}\nprintf %s "$AMENDS_KEY_LINE"\n'
    shown = subprocess.run(["sh", "-s"], input=text, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert shown.stdout == line
    for bad in ("a\nb", "a\0b", "ä"):
        with pytest.raises(ValueError, match="one line"):
            script("key-install", bad)


BAD_VALUES = {
    "another op": {"AMENDS_OP": "user-create"},
    "no user": {"AMENDS_USER": ""},
    "root": {"AMENDS_USER": "root"},
    "a short user": {"AMENDS_USER": f"am-{SUFFIX[1:]}"},
    "a long user": {"AMENDS_USER": f"am-{SUFFIX}0"},
    "an upper-case user": {"AMENDS_USER": f"am-{SUFFIX[1:]}A"},
    "a user with a slash": {"AMENDS_USER": f"am-{SUFFIX[1:]}/"},
    "a user with a newline": {"AMENDS_USER": f"am-{SUFFIX[1:]}\n"},
    "another allocation": {"AMENDS_ALLOCATION": f"alloc_{SUFFIX[1:]}0"},
    "a path for an allocation": {"AMENDS_ALLOCATION": "../../etc"},
    "no attempt": {"AMENDS_ATTEMPT": ""},
    "a dash for an attempt": {"AMENDS_ATTEMPT": "-"},
    "a path for an attempt": {"AMENDS_ATTEMPT": "a/../b"},
    "a long attempt": {"AMENDS_ATTEMPT": "a" * 65},
    "no epoch": {"AMENDS_EPOCH": ""},
    "an octal epoch": {"AMENDS_EPOCH": "010"},
    "a negative epoch": {"AMENDS_EPOCH": "-1"},
    "a huge epoch": {"AMENDS_EPOCH": "9" * 19},
    "arithmetic for an epoch": {"AMENDS_EPOCH": "1+1"},
    "no nonce": {"AMENDS_NONCE": ""},
    "a short nonce": {"AMENDS_NONCE": NONCE[1:]},
    "a long nonce": {"AMENDS_NONCE": NONCE + "0"},
    "an upper-case nonce": {"AMENDS_NONCE": NONCE.upper()},
}


@pytest.mark.parametrize("values", BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_a_malformed_argument_is_refused_before_anything_is_touched(values: dict[str, str], state: Path) -> None:
    done = run(script("user-remove"), **{"op": "user-remove", **values})
    assert done.returncode == 1
    assert done.stderr.startswith(b"amends: AMENDS_")
    assert not state.exists()


def test_a_probe_names_nobody(state: Path) -> None:
    assert run(script("probe"), "probe").returncode == 1


@pytest.mark.parametrize(
    "command",
    [
        SshCommand("user-create", "root", f"alloc_{SUFFIX}", "a", 1),
        SshCommand("user-create", f"am-{SUFFIX}\n", f"alloc_{SUFFIX}", "a", 1),
        SshCommand("user-create", f"am-{SUFFIX}", "alloc_" + "0" * 26, "a", 1),
        SshCommand("user-create", f"am-{SUFFIX}", f"alloc_{SUFFIX}", "a b", 1),
        SshCommand("user-create", f"am-{SUFFIX}", f"alloc_{SUFFIX}", "-", 1),
        SshCommand("user-create", f"am-{SUFFIX}", f"alloc_{SUFFIX}", "a", -1),
        SshCommand("user-create", f"am-{SUFFIX}", f"alloc_{SUFFIX}", "a", 10**18),
        SshCommand("user-create", f"am-{SUFFIX}", f"alloc_{SUFFIX}", "a", 1, "ssh-ed25519 AAAA"),
        SshCommand("key-install", f"am-{SUFFIX}", f"alloc_{SUFFIX}", "a", 1),
        SshCommand("probe", f"am-{SUFFIX}", "-", "-", 1),
        SshCommand(cast("Op", "rm"), "-", "-", "-", 1),
    ],
)
def test_a_command_that_a_node_would_refuse_is_not_even_rendered(command: SshCommand) -> None:
    with pytest.raises(ValueError, match=r"."):
        command_line(command, NONCE)


@pytest.mark.parametrize("nonce", ["", NONCE[1:], NONCE + "0", NONCE.upper(), NONCE[1:] + "\n", NONCE[1:] + ";"])
def test_a_command_without_a_proper_nonce_is_not_even_rendered(nonce: str) -> None:
    with pytest.raises(ValueError, match="nonce"):
        command_line(probe_command(1), nonce)


def test_the_command_line_is_the_contracts() -> None:
    command = SshCommand("user-create", f"am-{SUFFIX}", f"alloc_{SUFFIX}", "attempt_1", 7)
    assert command_line(command, NONCE) == (
        f"env AMENDS_OP=user-create AMENDS_USER=am-{SUFFIX} AMENDS_ALLOCATION=alloc_{SUFFIX} "
        "AMENDS_ATTEMPT=attempt_1 AMENDS_EPOCH=7 AMENDS_NONCE=0123456789abcdef sh -s"
    )
    assert command_line(probe_command(7), NONCE) == (
        "env AMENDS_OP=probe AMENDS_USER=- AMENDS_ALLOCATION=- AMENDS_ATTEMPT=- AMENDS_EPOCH=7 "
        "AMENDS_NONCE=0123456789abcdef sh -s"
    )


@needs_root
@pytest.mark.parametrize("shell", [shell for shell in ("sh", "dash", "bash", "mksh") if shutil.which(shell)])
def test_other_shells_read_the_scripts_alike(shell: str, state: Path) -> None:
    assert run(script("user-remove"), "user-remove", shell).returncode == 0
    assert (state / GOOD["AMENDS_ALLOCATION"] / "undone-attempt_1").exists()


@needs_root
def test_what_a_node_remembers_is_roots_alone(state: Path) -> None:
    assert run(script("user-remove"), "user-remove", AMENDS_EPOCH="5").returncode == 0
    memory = state / GOOD["AMENDS_ALLOCATION"]
    assert sorted(path.name for path in memory.iterdir()) == ["epoch", "undone-attempt_1"]
    assert (memory / "epoch").read_text() == "5\n"
    for path in (state, memory, memory / "epoch"):
        assert path.stat().st_mode & 0o077 == 0


@needs_root
def test_the_memory_of_old_allocations_is_pruned_after_seven_days_if_their_user_is_gone(state: Path) -> None:
    ages = {"old": 7.1, "young": 6.9}
    for name, days in ages.items():
        folder = state / f"alloc_{name.ljust(26, '0')}"
        folder.mkdir(parents=True)
        when = time.time() - days * 86_400
        os.utime(folder, (when, when))
    unrelated = state / "kept"
    unrelated.mkdir()
    os.utime(unrelated, (0, 0))
    assert run(script("user-remove"), "user-remove").returncode == 0
    left = sorted(path.name for path in state.iterdir() if path.is_dir())
    assert left == sorted([f"alloc_{'young'.ljust(26, '0')}", GOOD["AMENDS_ALLOCATION"], "kept"])


@needs_root
def test_a_lock_that_is_held_is_waited_for_and_then_left_for_later(state: Path) -> None:
    text = script("user-remove").replace("lock_tries=100", "lock_tries=2")
    state.mkdir()
    hold = ["flock", str(state / "lock"), "sh", "-c", "echo held; read -r _"]
    with subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        done = run(text, "user-remove")
        assert done.returncode == 74
        assert b"holds the lock" in done.stderr
        assert not (state / GOOD["AMENDS_ALLOCATION"]).exists()
        holder.communicate(timeout=PATIENCE_S)
    assert run(text, "user-remove").returncode == 0


@needs_root
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_step_that_was_killed_leaves_no_lock_behind(state: Path, how: signal.Signals) -> None:
    # given a step that is killed while it holds the lock
    never = state.parent / "never"
    os.mkfifo(never)  # nobody writes to it, so whoever opens it waits
    text = script("user-remove").replace(OPERATE, f"  echo held; read -r _ <'{never}'\n")
    step = ["env", *settings("user-remove"), "sh", "-s"]
    with subprocess.Popen(step, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdin is not None
        assert held.stdout is not None
        held.stdin.write(text.encode())
        held.stdin.close()
        assert held.stdout.readline() == b"held\n"
        held.send_signal(how)
        held.wait(PATIENCE_S)
    # then the next one has it at once, and nothing stands for it on the disk but the file
    assert run(script("user-remove").replace("lock_tries=100", "lock_tries=0"), "user-remove").returncode == 0
    assert sorted(path.name for path in state.iterdir()) == [GOOD["AMENDS_ALLOCATION"], "lock"]


@needs_root
@pytest.mark.parametrize("op", ["probe", "user-remove"])
def test_a_node_without_flock_is_refused_with_its_name(op: Op, state: Path) -> None:
    text = script(op).replace("have() {", 'have() { [ "$1" != flock ] &&')
    done = run(text, op, **(NOBODY if op == "probe" else {}))
    assert done.returncode == 1
    assert b"missing on the node: flock" in done.stderr


def uid_given(state: Path, **login_defs: str) -> tuple[int, str]:
    """Give the next uid with these values of /etc/login.defs; or 0, and what was said."""
    given = script("user-create").replace("/etc/login.defs", str(state / "login.defs"))
    given = given.replace(OPERATE, '  give_uid\n  echo "$new_uid"\n')
    state.mkdir(exist_ok=True)
    (state / "login.defs").write_text("".join(f"{name}\t\t {value}\n" for name, value in login_defs.items()))
    done = run(given, "user-create")
    return int(done.stdout.partition(b"\n")[0] or b"0"), done.stderr.decode()


@needs_root
def test_uids_are_given_upwards_in_the_nodes_own_range_past_those_in_use(state: Path) -> None:
    # given ranges of the node's, one of them with the users and groups of this machine in it
    used = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    free = [uid for uid in range(1, 65_536 + 9) if uid not in used and not 60_001 <= uid <= 65_535]
    # then each is the next free one, and never one of the system's
    assert uid_given(state, UID_MIN="1", UID_MAX="70000")[0] == next(uid for uid in free if uid >= 500)
    assert uid_given(state, UID_MIN="2000", UID_MAX="70000")[0] == next(uid for uid in free if uid >= 2000)
    assert uid_given(state, UID_MIN="1000")[0] == next(uid for uid in free if uid >= 2001)
    (state / "last-uid").write_text("60000\n")
    assert uid_given(state, UID_MAX="70000")[0] == next(uid for uid in free if uid >= 65_536)


@needs_root
def test_a_uid_or_gid_in_use_is_passed_over(state: Path) -> None:
    # given a user with the first uid of the range, and a group with the second
    state.mkdir()
    text = script("user-create").replace('getent "$base" "$1"', 'fake_getent "$base" "$1"')
    fake = 'fake_getent() { case $* in "passwd 1000" | "group 1001") ;; *) return 2 ;; esac; }\n'
    text = text.replace(OPERATE, '  give_uid\n  echo "$new_uid"\n').replace("operation=", fake + "operation=", 1)
    assert run(text, "user-create").stdout.startswith(b"1002\n")
    # and a directory service that does not answer stops it
    assert run(text.replace("return 2", "return 3"), "user-create").returncode == 74


@needs_root
def test_the_highest_uid_given_outlives_the_memory_of_every_allocation(state: Path) -> None:
    first, _ = uid_given(state)
    old = state / f"alloc_{'old'.ljust(26, '0')}"
    old.mkdir()
    os.utime(old, (0, 0))
    assert run(script("user-remove"), "user-remove").returncode == 0
    assert not old.exists()
    assert (state / "last-uid").read_text() == f"{first}\n"
    assert uid_given(state)[0] > first


@needs_root
def test_no_uid_is_given_when_the_range_is_used_up_or_the_count_is_damaged(state: Path) -> None:
    state.mkdir()
    for last, why in (("60000", "no uid is left: raise UID_MAX (60000)"), ("70000", "no uid is left"),
                      ("59999", ""), ("", "damaged"), ("1e3", "damaged"), ("-1", "damaged"),
                      ("010", "damaged"), ("9" * 11, "damaged")):  # fmt: skip
        (state / "last-uid").write_text(f"{last}\n")
        uid, said = uid_given(state)
        assert why in said
        assert bool(uid) == (not why)
        # and a probe says so too, before anybody is promised the node
        if why:
            done = run(script("probe"), "probe", **NOBODY)
            assert (done.returncode, why.encode() in done.stderr) == (1, True)


@needs_root
def test_a_damaged_epoch_blocks_nothing(state: Path) -> None:
    memory = state / GOOD["AMENDS_ALLOCATION"]
    memory.mkdir(parents=True)
    for damage in ("", "12;id", "\0\0"):
        (memory / "epoch").write_text(damage)
        assert run(script("user-remove"), "user-remove").returncode == 0
        assert (memory / "epoch").read_text() == "1\n"


@needs_root
def test_the_customers_at_jobs_go_and_nobody_elses(tmp_path: Path, state: Path) -> None:
    # given a spool with jobs of two uids, and things that are no jobs
    spool = tmp_path / "spool"
    (spool / "folder").mkdir(parents=True)
    (spool / "link").symlink_to("/etc/passwd")
    for path, uid in ((spool / "job", 12_345), (spool / "other", 12_346), (spool / "folder/job", 12_345)):
        path.write_text("rm -rf ~")
        os.chown(path, uid, uid)
    os.lchown(spool / "link", 12_345, 12_345)
    # when the schedules of the first are forgotten
    text = script("user-remove").replace("/var/spool/at ", f"'{spool}' ")
    assert run(text.replace(OPERATE, "  uid=12345; forget_schedules\n"), "user-remove").returncode == 0
    # then its job is gone
    assert sorted(path.name for path in spool.iterdir()) == ["folder", "link", "other"]
    assert (spool / "folder/job").exists()


@needs_root
@pytest.mark.usefixtures("alone")
def test_a_home_below_names_with_blanks_and_backslashes_is_found_in_the_mount_table(tmp_path: Path) -> None:
    homes = tmp_path / "the homes\\of\ttwo"
    place = homes / GOOD["AMENDS_USER"] / "mnt"
    place.mkdir(parents=True)
    check = (
        script("user-remove")
        .replace("homes=/home", f"homes='{homes}'")
        .replace("amends_main </dev/null", "refuse_mounted")
    )
    assert run(check, "user-remove").returncode == 0
    mount = ["mount", "-t", "tmpfs", "amends-test", str(place)]
    mounted = subprocess.run(mount, check=False, capture_output=True, timeout=PATIENCE_S)
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.decode().strip()}")
    try:
        assert run(check, "user-remove").returncode == 74
        sibling = check.replace("refuse_mounted\n", "AMENDS_USER=${AMENDS_USER%?}; refuse_mounted\n")
        assert run(sibling, "user-remove").returncode == 0
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=PATIENCE_S)
