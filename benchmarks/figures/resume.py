"""`python -m benchmarks.figures.resume`: 1 000 compensations are open when the runtime is killed, and it starts again.

The runtime's program with a Postgres and a nats-server of their own, and simulated machines in a process: real SSH
servers and agents. A thousand set-ups have failed at the customer's key (R02), and so has the removal of the user; each
run is open, and its next try is intended, for some time within ten minutes. The runtime is killed with -9, the machines
are mended, and its program is started again when all these tries are due: their rows say so then, instead of waiting.
Measured is from that start, Python's imports included, by the machine's clock:

- `resume_first_s`: to the end of the first removal, committed.
- `resume_all_s`: to the end of the last recovery run, every user removed and every run `recovered`.
"""

import time

from benchmarks.figures.platform import Platform, platform
from benchmarks.figures.printing import Report, main, say

NAMES: tuple[str, ...] = ("resume_first_s", "resume_all_s")
COUNT = 1000
TIMING = """setup_fail_limit = 1000000
allocation_deadline_ms = 600000
cleanup_tries = 1000000
cleanup_backoff_ms = [600000, 600000]
"""
OWED = "SELECT count(*) FROM debts WHERE settled_us IS NULL"
OPEN = "SELECT count(*) FROM recovery_run WHERE ended_us IS NULL"
OVER = "UPDATE step_open SET next_attempt_us = NULL"
RUNS = "SELECT count(*) FROM recovery_run WHERE final_outcome = 'recovered'"
FIRST = "SELECT min(ended_us) FROM step WHERE name = 'ssh.user-remove' AND state = 'done'"
LAST = "SELECT max(ended_us) FROM recovery_run"


async def owing(it: Platform, count: int) -> None:
    """So many open compensations."""
    for name in it.fleet.nodes:
        await it.fleet.fault(name, "key-install", "exit")
        await it.fleet.fault(name, "user-remove", "exit", times=1000)
    await it.all_of(it.rent() for _ in range(count))
    await it.until(OWED, count)


async def measure(report: Report, scale: float) -> None:
    """See above."""
    count = max(5, int(COUNT * scale))
    async with platform(count, TIMING) as it:
        say(f"{count} machines are in service")
        await owing(it, count)
        await it.kill()
        assert await it.sql.fetchval(OPEN) == count
        await it.changed(OVER)
        say(f"killed, with {count} compensations open")
        for name in it.fleet.nodes:
            await it.fleet.clear_faults(name)
        began_us = time.time_ns() // 1000
        await it.begin()
        await it.ready()
        say("it is ready again")
        await it.until(RUNS, count)
        assert await it.sql.fetchval("SELECT count(*) FROM recovery_run") == count
        report("resume_first_s", [(await it.sql.fetchval(FIRST) - began_us) / 1e6], "s")
        report("resume_all_s", [(await it.sql.fetchval(LAST) - began_us) / 1e6], "s")


if __name__ == "__main__":
    main(measure)
