"""The mounts of one simulated machine, and what its agent does about them.

The rules are those of `adapters/nats/agent_mounting.py`: a mount belongs to an attempt, an attempt that was unmounted
is not mounted again, what the agent has not mounted is never touched.
"""

from typing import Any, Final

from msgspec import Struct

from amends.ports.steps import Outcome
from amends.values.mount_path import inside

HOLDER: Final = "process 1 (sh): cwd"
# Faults of a mount that are more than an error: kind → code, and whether it happens all the same.
FAULTS: Final = {
    "mount": {"fail": ("mount_failed", False), "fail_mounted": ("mount_failed", True)},
    "unmount": {"fail": ("unmount_failed", False), "busy": ("busy", False), "fail_unmounted": ("unmount_failed", True)},
    "probe_mount": {"fail": ("stale", False), "stale": ("stale", False), "ro": ("ro", False)},
}


class SimulatedMount(Struct):
    """A mount of the agent's record. `holders` keep it busy."""

    attempt_id: str
    path: str
    mode: str
    source: dict[str, Any]
    holders: list[str] = []


class MachineMounts:
    """What is mounted by attachment, what was undone, and what is not the agent's. A reboot leaves the undone ones.

    `contents`: what lies in each source, by its text; shared by all machines, and kept by none of their faults.
    """

    def __init__(self, contents: dict[str, dict[str, bytes]]) -> None:
        self.mounted: dict[str, SimulatedMount] = {}
        self.undone: set[tuple[str, str]] = set()
        self.foreign: set[str] = set()
        self._contents = contents

    def reboot(self) -> None:
        """Nothing is mounted any more, whoever did it."""
        self.mounted.clear()
        self.foreign.clear()

    def write(self, path: str, name: str, data: bytes) -> None:
        """A customer writes through a mount. Raises FileNotFoundError, PermissionError as a machine would."""
        found = next((each for each in self.mounted.values() if each.path == path), None)
        if found is None:
            raise FileNotFoundError(path)
        if found.mode == "ro":
            raise PermissionError(path)
        self._contents.setdefault(source_text(found.source), {})[name] = data

    def act(self, op: str, args: dict[str, Any], fault: str) -> Outcome:
        """Do a task on a mount, or what the fault makes of it."""
        key, attempt = args["attachment_id"], args["attempt_id"]
        if op == "unmount" and key not in self.mounted:
            fault = ""  # what is not there cannot be in use
        code, happens = FAULTS[op].get(fault, ("", True))
        if op == "unmount":
            self.undone.add((key, attempt))
        if fault == "missing":  # somebody else has unmounted it
            self.mounted.pop(key, None)
        done = (
            {"mount": self._mount, "unmount": self._unmount, "probe_mount": self._probe}[op](args) if happens else None
        )
        if code and (done is None or done.kind == "done"):
            return self._error(key, code, "fault injected", [HOLDER] if code == "busy" else ())
        assert done is not None
        return done

    def take_away(self, expected: list[str]) -> None:
        """Unmount what is not expected and can be."""
        for key in [key for key in self.mounted if key not in expected]:
            self.undone.add((key, self.mounted[key].attempt_id))
            if not self.mounted[key].holders:
                del self.mounted[key]

    def _mount(self, args: dict[str, Any]) -> Outcome:
        key, attempt, path = args["attachment_id"], args["attempt_id"], args["mount_path"]
        held = self.mounted.get(key)
        if (key, attempt) in self.undone:
            return self._error(key, "undone", f"attempt {attempt} was unmounted")
        if held is not None:
            if (held.attempt_id, held.path, held.mode, held.source) != (attempt, path, args["mode"], args["source"]):
                return self._error(key, "attempt_taken", f"attempt {held.attempt_id} is mounted at {held.path}")
            return self._done(key)
        used = {other.path for other in self.mounted.values()}
        if path in self.foreign or any(inside(path, other) or inside(other, path) for other in used):
            return self._error(key, "path_taken", "something else is mounted there")
        self.mounted[key] = SimulatedMount(attempt, path, args["mode"], args["source"])
        return self._done(key)

    def _unmount(self, args: dict[str, Any]) -> Outcome:
        key = args["attachment_id"]
        held = self.mounted.get(key)
        if held is None or held.attempt_id != args["attempt_id"]:
            return Outcome("done", data={"noop": True, "observed": {"mounted": False}})
        if held.holders:
            return self._error(key, "busy", "target is busy", held.holders)
        del self.mounted[key]
        return self._done(key)

    def _probe(self, args: dict[str, Any]) -> Outcome:
        key = args["attachment_id"]
        held = self.mounted.get(key)
        if held is None or held.attempt_id != args["attempt_id"]:
            return self._error(key, "missing", "it is not mounted")
        if held.mode != args["mode"]:
            return self._error(key, "ro" if held.mode == "ro" else "missing", f"it is mounted {held.mode}")
        return self._done(key)

    def _seen(self, key: str) -> dict[str, Any]:
        held = self.mounted.get(key)
        return {"mounted": True, "mode": held.mode} if held is not None else {"mounted": False}

    def _done(self, key: str) -> Outcome:
        return Outcome("done", data={"observed": self._seen(key)})

    def _error(self, key: str, code: str, message: str, holders: list[str] | tuple[str, ...] = ()) -> Outcome:
        return Outcome("failed", code, message, data={"observed": self._seen(key), "holders": list(holders)})


def source_text(source: dict[str, Any]) -> str:
    """One name of a source: its server and path."""
    return f"{source.get('server', '')}:{source.get('export', source.get('path', ''))}"
