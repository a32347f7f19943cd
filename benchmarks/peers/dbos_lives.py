"""Three-step lives as workflows of DBOS: a program for DBOS's own environment, which imports nothing of ours.

`python dbos_lives.py DSN WORKER`. A line of JSON comes in, `{"lives": 768, "in_flight": 256, "doomed": false}`, and one
goes out when they have ended, `{"latencies_ms": [...]}`. It ends with its input. Only DBOS's documented calls are used.
"""
# Its library is in that environment only, never in ours: to the type checkers it is not there, what comes of it is Any.
# mypy: disable-error-code="import-not-found,untyped-decorator"
# pyright: reportMissingImports=false

import json
import sys
import threading
import time

from dbos import DBOS

# Without a bound every workflow takes a thread, and the process spends its time changing between them. These numbers
# were the best of those tried, though not by much: a life costs as much work with 4 threads or 16.
THREADS = 8  # that run workflows
BEGINNERS = 4  # callers that record a new workflow at the same time
CONFIG = {
    "name": "peer-lives",
    "application_version": "1",
    "log_level": "WARNING",
    "max_executor_threads": THREADS,
    "sys_db_pool_size": THREADS + BEGINNERS + 4,  # and a few for DBOS's own threads
}


class Failed(Exception):
    """What the third step of a doomed life fails with."""


@DBOS.step()
def act(number: int) -> int:
    """One step that does nothing."""
    return number


@DBOS.step()
def fail(number: int) -> int:
    """The step that fails. It is not tried again: DBOS does so only when asked to."""
    raise Failed(f"step {number} was to fail")


@DBOS.step()
def undo(number: int) -> int:
    """What undoes a step."""
    return number


@DBOS.workflow()
def life(doomed: bool) -> str:
    """Three steps; where the third fails, those before are undone, the last one first."""
    acted = []
    try:
        for number in (1, 2, 3):
            (fail if doomed and number == 3 else act)(number)
            acted.append(number)
    except Failed:
        for number in reversed(acted):
            undo(number)
        return "undone"
    return "done"


def run(lives: int, in_flight: int, *, doomed: bool) -> list[float]:
    """Keep `in_flight` lives going until so many have ended; how long each took, in milliseconds."""
    left, taking, beginning = iter(range(lives)), threading.Lock(), threading.Semaphore(BEGINNERS)
    latencies: list[float] = []

    def keep_one_going() -> None:
        while True:
            with taking:
                if next(left, None) is None:
                    return
            with beginning:
                began = time.perf_counter()
                handle = DBOS.start_workflow(life, doomed)
            if handle.get_result() == ("undone" if doomed else "done"):
                latencies.append((time.perf_counter() - began) * 1000)

    threads = [threading.Thread(target=keep_one_going) for _ in range(min(in_flight, lives))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies


def main() -> None:
    """Launch, say so, and do what each line asks for."""
    dsn, worker = sys.argv[1:]
    DBOS(config={**CONFIG, "system_database_url": dsn, "executor_id": worker})
    DBOS.launch()
    print(json.dumps({"ready": worker}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        latencies = run(asked["lives"], asked["in_flight"], doomed=asked["doomed"])
        print(json.dumps({"latencies_ms": latencies}), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    main()
