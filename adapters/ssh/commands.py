"""What goes to a node and what comes back: endpoint, command, outcome, and the two texts that are sent.

Knows no connection. The command line is the one of the contract, literally; the script on standard input is
the prelude, what the step shares with others, the step's own file, and one last line that calls it, packed so that
any part of it that is missing leaves nothing that a shell could run.
"""

import re
import shlex
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, Literal

import msgspec

Op = Literal["probe", "user-create", "key-install", "user-lock", "user-remove"]

OPS: Final[tuple[Op, ...]] = ("probe", "user-create", "key-install", "user-lock", "user-remove")
NOBODY: Final = "-"  # a probe's user, allocation and attempt

STATE_ROOT: Final = "/var/lib/amends"  # where a node remembers epochs and undone attempts
EXIT_RETRYABLE: Final = 74
EXIT_STALE: Final = 75

_SCRIPTS: Final = Path(__file__).with_name("scripts")
_SHARED: Final[dict[str, tuple[str, ...]]] = {"probe": ("login",), "key-install": ("login",)}
_CALL: Final = "amends_main </dev/null\n"  # no child may read the rest of the script
_USER: Final = re.compile(r"am-([0-9a-z]{26})")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_NONCE: Final = re.compile(r"[0-9a-f]{16}")
_PLAIN: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 _-./:=,"
_ESCAPED: Final = {code: f"\\0{code:03o}" for code in range(128) if chr(code) not in _PLAIN}
_MAX_EPOCH: Final = 10**18  # the scripts compare in 64 bits

Status = Literal["done", "failed", "unknown"]
Code = Literal[
    "",
    "ssh_connect_failed",
    "ssh_auth_failed",
    "ssh_host_key_mismatch",
    "ssh_timeout",
    "ssh_step_failed",
    "ssh_not_run",  # exit status 0 without the script's last line: something else answered in its place
    "ssh_retryable",
    "ssh_stale_epoch",
]


class SshEndpoint(msgspec.Struct, frozen=True):
    """Where a node listens, as whom to log in, and the one host key it may show (OpenSSH public key line)."""

    host: str
    port: int
    user: str
    host_key: str


class SshCommand(msgspec.Struct, frozen=True):
    """One step on a node. `key_line`: the customer's public key without options, for `key-install` alone."""

    op: Op
    user: str
    allocation: str
    attempt: str
    epoch: int
    key_line: str = ""


class SshOutcome(msgspec.Struct, frozen=True):
    """How a step ended. `may_have_run` is False only if the command cannot have reached the node's shell."""

    status: Status
    code: Code
    message: str
    exit_status: int | None
    may_have_run: bool
    duration_us: int


def probe_command(epoch: int) -> SshCommand:
    """Build the command that asks a node whether it can carry the others."""
    return SshCommand(op="probe", user=NOBODY, allocation=NOBODY, attempt=NOBODY, epoch=epoch)


def command_line(command: SshCommand, nonce: str) -> str:
    """Render the remote command. Raises ValueError for values that the node's script would refuse.

    `nonce`: 16 hexadecimal digits that no other run has; only this run's script can print them (`done_line`).
    """
    _check(command)
    if _NONCE.fullmatch(nonce) is None:
        raise ValueError(f"not a nonce: {nonce!r}")
    return (
        f"env AMENDS_OP={command.op} AMENDS_USER={command.user} AMENDS_ALLOCATION={command.allocation} "
        f"AMENDS_ATTEMPT={command.attempt} AMENDS_EPOCH={command.epoch} "
        f"AMENDS_NONCE={nonce} sh -s"
    )


def done_line(op: Op, nonce: str) -> str:
    """Give the line that a script prints as its last act; without it an exit status of 0 proves nothing."""
    return f"amends-done {op} {nonce}"


def script(op: Op, key_line: str = "") -> str:
    """Render the whole script of a step. `key_line` is the line for authorized_keys, options included."""
    if any(not " " <= character <= "~" for character in key_line):
        raise ValueError("a key line is one line of printable ASCII")
    prelude = _file("prelude").replace("@STATE_ROOT@", STATE_ROOT)
    shared = "".join(map(_file, _SHARED.get(op, ())))
    return prelude.replace("@KEY_LINE@", shlex.quote(key_line)) + shared + _file(op) + _CALL


def packed(text: str, key_line: str = "") -> str:
    """Render a script for standard input: a plain line with the key, for whoever takes its place, and the script.

    The script is one line without a character that a shell obeys. Cut off at its end it is no complete command; and
    where a start file of the login shell has read its beginning, the quote that ends it begins one that nothing ends.
    Either way a shell runs none of it, where a script of many lines would go on in the middle of a function, as root.
    """
    key = shlex.quote(key_line)
    body = key.translate(_ESCAPED).join(map(_escaped, text.split(key)))  # all but the key is the same every time
    return f"AMENDS_KEY_LINE={key}\neval \"$(printf '%b' '{body}')\"\n"


@lru_cache(maxsize=256)
def _escaped(text: str) -> str:
    return text.translate(_ESCAPED)


@cache
def _file(name: str) -> str:
    return (_SCRIPTS / f"{name}.sh").read_text(encoding="ascii")


def _check(command: SshCommand) -> None:
    if command.op not in OPS:
        raise ValueError(f"no such op: {command.op!r}")
    if not 0 <= command.epoch < _MAX_EPOCH:
        raise ValueError(f"not an epoch: {command.epoch!r}")
    if command.op == "probe":
        if (command.user, command.allocation, command.attempt) != (NOBODY, NOBODY, NOBODY):
            raise ValueError("a probe names nobody")
        return
    user = _USER.fullmatch(command.user)
    if user is None:
        raise ValueError(f"not a customer's user: {command.user!r}")
    if command.allocation != f"alloc_{user[1]}":
        raise ValueError(f"not the allocation of {command.user}: {command.allocation!r}")
    if _NAME.fullmatch(command.attempt) is None:
        raise ValueError(f"not an attempt: {command.attempt!r}")
    if (command.op == "key-install") != bool(command.key_line):
        raise ValueError("a key line belongs to key-install, and to nothing else")
