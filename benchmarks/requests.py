"""What stands before a turn: matching by label, and the look-up of kept replies over a slow way to Postgres."""

import asyncio
import time

from amends.ports.journal import KeptReply
from amends.runtime.kept import KeptReplies
from supervisors.free_nodes import FreeNodes, WaitingRequests, Wanted

FREE, SITES = 100_000, 100
WAY_S = 0.001  # to Postgres and back


def matching(asked: int, count: int = FREE) -> list[float]:
    """Microseconds for a request that wants two labels of so many free nodes, and for a node among as many requests."""
    free: FreeNodes[int] = FreeNodes()
    waiting: WaitingRequests[int] = WaitingRequests()
    for number in range(count):
        labels = {"site": f"s{number % SITES}", "gpu": "h100" if number == count - 1 else "none", "host": str(number)}
        free.add(f"n{number}", labels, number)
        waiting.add(f"a{number}", Wanted(frozenset({("site", "elsewhere"), ("slot", str(number))})), number)
    wanted = Wanted(frozenset({("gpu", "h100"), ("site", f"s{(count - 1) % SITES}")}))
    began = time.perf_counter()
    for _ in range(asked):
        assert free.first(wanted) == f"n{count - 1}"
    by_request = (time.perf_counter() - began) / asked
    began = time.perf_counter()
    for _ in range(asked):
        assert waiting.first("n1", {"site": "s1", "slot": "77"}) is None
    return [by_request * 1e6, (time.perf_counter() - began) / asked * 1e6]


async def kept_replies(total: int, in_flight: int = 512) -> float:
    """Keys looked up a second, each query a millisecond away."""

    async def read(callers: list[str], keys: list[str]) -> list[KeptReply]:
        await asyncio.sleep(WAY_S)
        return []

    kept = KeptReplies(read)
    numbers = iter(range(total))

    async def ask() -> None:
        for number in numbers:
            await kept.find("caller", str(number))

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(in_flight)))
    return total / (time.perf_counter() - began)
