"""Whose processor time it was: of this process, of the servers beside it, by what they are for."""

import os
from collections.abc import Mapping
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def used_s(pids: Mapping[str, int]) -> dict[str, float]:
    """Seconds that each has used by now; those of a Postgres with all its sessions, which end with it."""
    return {name: _of(pid) + sum(map(_of, _children(pid) if name == "postgres" else ())) for name, pid in pids.items()}


def _of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def child_that_runs(module: str) -> int:
    """The process of ours that runs a module; 0 for none."""
    for child in _children(os.getpid()):
        if module in Path(f"/proc/{child}/cmdline").read_text():
            return child
    return 0
