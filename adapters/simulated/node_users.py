"""The users of one simulated machine, and the rules that a real one's step scripts keep.

Knows no connection: `apply` takes a parsed command and returns an exit status and a line of standard error.
"""

from pathlib import Path
from typing import Final

import msgspec

DONE: Final = 0
FAILED: Final = 1
RETRYABLE: Final = 74
LATE: Final = 75
FIRST_UID: Final = 1000
LAST_UID: Final = 60_000


class NodeCommand(msgspec.Struct, frozen=True):
    """A step as it arrives at a node. `key_line` is the line for authorized_keys, options included."""

    op: str
    user: str
    allocation: str
    attempt: str
    epoch: int
    key_line: str = ""


class User(msgspec.Struct):
    """An account of the machine. `allocation` is empty for one that Amends did not make."""

    allocation: str
    key_line: str = ""
    locked: bool = False
    processes: int = 0
    uid: int = 0


class Memory(msgspec.Struct):
    """What the machine remembers of an allocation, after its user is gone as well."""

    epoch: int = 0
    undone: list[str] = []


class _Machine(msgspec.Struct):
    users: dict[str, User] = {}
    memories: dict[str, Memory] = {}
    last_uid: int = FIRST_UID - 1


class UserTable:
    """The accounts of one machine, kept in `file` over restarts of the process if one is given."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._machine = _Machine()
        self.mounted: set[str] = set()  # users with something mounted below their home
        self.closed = ""  # why no customer may log in, as `AllowUsers root` or a file `nologin` would have it
        if file is not None and file.exists():
            self._machine = msgspec.json.decode(file.read_bytes(), type=_Machine)

    @property
    def users(self) -> dict[str, User]:
        """The accounts by name."""
        return self._machine.users

    def key_of(self, user: str) -> str:
        """Give the key line that lets this user in, or nothing."""
        found = self.users.get(user)
        return "" if found is None or found.locked or self.closed else found.key_line

    def add_foreign(self, user: str) -> None:
        """Add an account that Amends did not make and must not touch."""
        self.users[user] = User(allocation="")
        self._save()

    def use_up_uids(self) -> None:
        """Leave no uid for any further account."""
        self._machine.last_uid = LAST_UID
        self._save()

    def apply(self, command: NodeCommand) -> tuple[int, str]:
        """Do one step. Returns the exit status and what stands on standard error."""
        if command.op == "probe":
            if self._machine.last_uid >= LAST_UID:
                return FAILED, "amends: no uid is left"
            return (FAILED, f"amends: customers cannot log in: {self.closed}") if self.closed else (DONE, "")
        memory = self._machine.memories.setdefault(command.allocation, Memory())
        if command.epoch < memory.epoch:
            return LATE, f"amends: stale epoch {command.epoch}, highest seen {memory.epoch}"
        memory.epoch = command.epoch
        if command.op in {"user-create", "key-install"}:
            if command.attempt in memory.undone:
                return LATE, f"amends: attempt {command.attempt} was undone"
        elif command.attempt not in memory.undone:
            memory.undone.append(command.attempt)
        answer = self._act(command)
        self._save()
        return answer

    def _act(self, command: NodeCommand) -> tuple[int, str]:
        user = self.users.get(command.user)
        if user is not None and user.allocation != command.allocation:
            return FAILED, f"amends: the user {command.user} was not made by this allocation"
        if command.op == "user-create":
            if user is None:
                return self._create(command)
        elif user is None:
            if command.op == "key-install":
                return FAILED, f"amends: there is no {command.user}"
        elif command.op == "key-install":
            if self.closed:
                return FAILED, f"amends: customers cannot log in: {self.closed}"
            user.key_line = command.key_line
        else:
            user.locked = True
            user.processes = 0
            if command.op == "user-lock":
                user.key_line = ""
            elif command.user in self.mounted:
                return RETRYABLE, "amends: mounted below the home"
            else:
                del self.users[command.user]
        return DONE, ""

    def _create(self, command: NodeCommand) -> tuple[int, str]:
        if self._machine.last_uid >= LAST_UID:
            return FAILED, "amends: no uid is left"
        self._machine.last_uid += 1  # none is given twice, whoever had it is gone or not
        self.users[command.user] = User(command.allocation, uid=self._machine.last_uid)
        return DONE, ""

    def _save(self) -> None:
        if self._file is not None:
            part = self._file.with_suffix(".new")
            part.write_bytes(msgspec.json.format(msgspec.json.encode(self._machine)))
            part.replace(self._file)
