"""A stand-in for exportfs: the export table is a file beside it. `fault` there says what the next calls do wrong.

Lines of `fault`: OPTION KIND, such as `-u hang`; each is used up by one call. `calls` is what it was called with.
"""

import fcntl
import os
import signal
import sys
import time
from pathlib import Path

HOME = Path(sys.argv[1])
ARGUMENTS = sys.argv[2:]
LATE_S = 0.6  # longer than the 300 ms for which a caller of the contract waits: done, and said too late
TABLE, FAULT, CALLS = HOME / "etab", HOME / "fault", HOME / "calls"


def fault() -> str:
    lines = FAULT.read_text().splitlines() if FAULT.exists() else []
    for line in lines:
        option, kind = line.split()
        if option in ARGUMENTS:
            lines.remove(line)
            FAULT.write_text("".join(f"{each}\n" for each in lines))
            return kind
    return ""


def main() -> int:
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with CALLS.open("a") as calls:
            calls.write(" ".join(ARGUMENTS) + "\n")
        kind = fault()
    if kind == "hang":
        (HOME / "pid").write_text(f"{os.getpid()}\n")
        signal.pause()  # until somebody ends it: that is the fault
    if kind == "fail":
        sys.stderr.write("exportfs: it does not work today\n")
        return 1
    if kind == "slow":
        time.sleep(LATE_S)  # that is the fault: it is done, and later than who asked for it waits
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return change(kind)


def change(kind: str) -> int:
    table = dict(line.split("\t") for line in TABLE.read_text().splitlines()) if TABLE.exists() else {}
    if ARGUMENTS == ["-v"]:
        for key, options in table.items():
            path, client = key.split("|")
            sys.stdout.write(
                f"{path}\n\t\t{client}({options})\n" if len(path) > 14 else f"{path}\t{client}({options})\n"
            )
        return 0
    if ARGUMENTS == ["-f"]:
        return 0
    client, _, path = ARGUMENTS[-1].rpartition(":")
    key = f"{path}|{client.strip('[]')}"
    if ARGUMENTS[:2] == ["-i", "-o"]:
        mode, _, options = ARGUMENTS[2].partition(",")
        shown = {"narrow": "ro"}.get(kind, mode)
        if kind != "lie":
            table[key] = f"sync,wdelay,hide,{options},sec=sys,{shown},secure,root_squash,no_all_squash"
    elif ARGUMENTS[0] == "-u" and kind != "lie":
        table.pop(key, None)
    TABLE.write_text("".join(f"{each}\t{options}\n" for each, options in table.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
