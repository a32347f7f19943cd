"""Timers in memory: what is put off again and again leaves no entries behind, and still fires once, when it is due."""

import asyncio

from amends.runtime.timers import SPARE, Timers


async def _room() -> None:
    """The journal keeps up."""


async def test_deadlines_that_are_taken_back_do_not_pile_up_and_those_that_stand_fire_once() -> None:
    # given some timers that stand, and many that are armed far ahead and taken back
    now, fired = [0], list[str]()
    timers = Timers(lambda: now[0], lambda kind, identifier: fired.append(identifier), _room, lambda: 0)
    for number in range(10):
        timers.arm("life", f"stays-{number}", 1_000 + number)
    for number in range(20 * SPARE):
        timers.arm("life", f"goes-{number}", 10**12)
        timers.arm("life", f"goes-{number}", None)
    # then the heap has not grown with them
    assert (len(timers), timers.entries <= 2 * 10 + SPARE + 1) == (10, True)
    # and when their time has come, those that stand fire in their order, each once
    now[0] = 2_000
    running = asyncio.create_task(timers.run())
    while len(fired) < 10:
        await asyncio.sleep(0)
    running.cancel()
    assert fired == [f"stays-{number}" for number in range(10)]
