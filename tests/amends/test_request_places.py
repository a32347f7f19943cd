"""Places for requests: each caller has its own, and those who wait for a shared thing are served in turn."""

import asyncio

import pytest

from amends.ports.journal import KeptReply
from amends.runtime.identity import Identity
from amends.runtime.kept import KeptReplies
from amends.runtime.request_places import FairPlaces, Places, class_of
from amends.values.errors import Rejected, Unavailable

SMALL = Identity("small", ("acme",))
FRONT = Identity("front")
BOSS = Identity("boss", role="operator")


def test_the_requests_of_one_caller_take_no_place_of_anothers() -> None:
    places = Places({"command": (2, 4), "query": (1, 1), "operator": (1, 1)})
    for _ in range(2):
        places.enter("command", SMALL)
    with pytest.raises(Rejected) as met:
        places.enter("command", SMALL)
    assert (met.value.code, met.value.details["retry_after_ms"] > 0) == ("throttled", True)
    places.enter("command", FRONT)
    places.enter("query", SMALL)
    places.enter("operator", BOSS)
    assert len(places) == 5
    places.leave("command", SMALL)
    places.enter("command", SMALL)


def test_who_operates_has_the_operators_places_whatever_it_asks() -> None:
    assert class_of("reader", BOSS) == class_of("caller", BOSS) == class_of("operator", BOSS) == "operator"
    assert (class_of("reader", SMALL), class_of("caller", SMALL)) == ("query", "command")


async def test_those_who_wait_are_served_in_turn_by_name_and_nobody_has_more_than_its_share() -> None:
    places, served = FairPlaces(2), list[str]()

    async def ask(name: str) -> None:
        async with places.place(name, 1, 5):
            served.append(name)
            await asyncio.sleep(0.001)

    flood = [asyncio.create_task(ask("flood")) for _ in range(100)]
    await asyncio.sleep(0)
    others = [asyncio.create_task(ask(f"other{number}")) for number in range(5)]
    await asyncio.gather(*others)
    assert len([name for name in served if name == "flood"]) <= 10, "not behind a hundred of another's"
    await asyncio.gather(*flood)
    assert len(served) == 105


async def test_who_gives_up_waiting_leaves_no_place_taken() -> None:
    places = FairPlaces(1)
    async with places.place("one", 1, 5):
        with pytest.raises(TimeoutError):
            async with places.place("two", 1, 0.01):
                pytest.fail("there is one place")
    served = False
    async with places.place("two", 1, 1):
        served = True
    assert served


async def test_keys_that_come_together_are_looked_up_together() -> None:
    asked: list[list[str]] = []

    async def read(callers: list[str], keys: list[str]) -> list[KeptReply]:
        asked.append(keys)
        await asyncio.sleep(0.005)
        return [KeptReply("me", key, "", "", "", 200, key) for key in keys if key != "new"]

    kept = KeptReplies(read)
    found = await asyncio.gather(*(kept.find("me", f"k{number}") for number in range(500)), kept.find("me", "new"))
    assert [row.reply for row in found[:-1] if row is not None] == [f"k{number}" for number in range(500)]
    assert found[-1] is None
    assert len(asked) <= 3
    await kept.aclose()


async def test_a_look_up_that_fails_fails_for_those_who_asked_and_the_next_one_is_made() -> None:
    away = True

    async def read(callers: list[str], keys: list[str]) -> list[KeptReply]:
        if away:
            raise Unavailable("away")
        return []

    kept = KeptReplies(read)
    with pytest.raises(Unavailable):
        await kept.find("me", "k")
    away = False
    assert await kept.find("me", "k") is None
    await kept.aclose()
