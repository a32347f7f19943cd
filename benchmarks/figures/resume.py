"""`python -m benchmarks.figures.resume`: 1 000 compensations are open when the runtime is killed, and it starts again.

The runtime's program with a Postgres and a nats-server of their own, and simulated machines in a process: real SSH
servers and agents. A thousand set-ups have failed at the customer's key (R02); each owes the removal of its user, which
is intended and has begun on some machines, where it hangs. The runtime is killed with -9, the machines are mended, and
its program is started again. Measured is from that start, Python's imports included, by the machine's clock:

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
ssh_step_timeout_ms = 600000
"""
OWED = "SELECT count(*) FROM step WHERE name = 'ssh.user-remove' AND state = 'intended'"
RUNS = "SELECT count(*) FROM recovery_run WHERE final_outcome = 'recovered'"
FIRST = "SELECT min(ended_us) FROM step WHERE name = 'ssh.user-remove'"
LAST = "SELECT max(ended_us) FROM recovery_run"


async def owing(it: Platform, count: int) -> None:
    """So many open compensations."""
    for name in it.fleet.nodes:
        await it.fleet.fault(name, "key-install", "exit")
        await it.fleet.fault(name, "user-remove", "hang")
    await it.all_of(it.rent() for _ in range(count))
    await it.until(OWED, count)


async def measure(report: Report, scale: float) -> None:
    """See above."""
    count = max(5, int(COUNT * scale))
    async with platform(count, TIMING) as it:
        say(f"{count} machines are in service")
        await owing(it, count)
        await it.kill()
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
