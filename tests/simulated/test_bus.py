"""What a bus may do to messages, through the real relay: each time the end that the matrix demands (R01, R07)."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from adapters.simulated import bus as module
from adapters.simulated.bus import LATE, POISON, Stored
from supervisors.invariants import committed
from supervisors.invariants.rest import at_rest, in_order
from supervisors.simulation.checks import published, records_of
from supervisors.simulation.points import Points
from supervisors.simulation.stories import STORIES, Story
from supervisors.simulation.sweep import wrong
from supervisors.simulation.world import Running, Tell, World

EVENTS, NOTICES = "AMENDS_EVT", "AMENDS_NTF"
BY_ROW = {story.row: story for story in STORIES}


def told(story: Story, tell: Tell, breaks: Callable[[World], None]) -> World:
    """The world after a story that ends as its row says, though something else broke."""
    story = msgspec.structs.replace(story, tell=tell, breaks=breaks)
    world = World(1)
    breaks(world)
    assert world.run(story.tell)
    assert wrong(story, world) == []
    return world


async def rented(running: Running, node_id: str = "n1", key: str = "rent") -> str:
    await running.account("acme")
    await running.node(node_id)
    allocation = await running.rent("acme", key)
    await running.until(lambda: running.state("allocation", allocation) == "active")
    return allocation


def outbox(world: World, **those: Any) -> list[dict[str, Any]]:
    """Its rows that have these values."""
    rows = world.database.tables.rows["outbox"].values()
    return [row for row in rows if all(row[name] == value for name, value in those.items())]


def ids(world: World, stream: str = EVENTS) -> list[str]:
    return [stored.message_id for stored in world.bus.streams[stream]]


def sound(world: World) -> bool:
    """Whether nothing is wrong with a world at rest, and every event is on the bus, each entity's in order."""
    records = records_of(world.database)
    assert [*committed(records), *at_rest(records), *in_order(published(world))] == []
    return {row["outbox_id"] for row in outbox(world)} == {name.partition(".")[0] for name in ids(world)}


# --- R01 -------------------------------------------------------------------------------------------------


def test_what_a_full_stream_refuses_goes_out_once_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell(running: Running) -> None:
        await rented(running)
        await running.until(lambda: len(running.world.bus.tried) > 6)
        assert outbox(running.world, state="parked") == []
        running.world.bus.full.clear()
        await running.quiet()

    world = told(BY_ROW["R01"], tell, lambda world: world.bus.full.add(EVENTS))
    assert sound(world)
    assert max(Counter(ids(world)).values()) == 1


def test_what_was_taken_and_not_acknowledged_is_sent_again_and_is_there_once() -> None:
    world = World(1)
    heard = Counter[str]()

    def unheard(message: Stored) -> bool:
        heard[message.message_id] += 1
        return heard[message.message_id] <= 2

    async def tell(running: Running) -> None:
        await rented(running)
        await running.quiet()

    world.bus.unheard = unheard
    assert world.run(tell)
    assert sound(world)
    assert max(Counter(ids(world)).values()) == 1
    assert len(world.bus.tried) >= 3 * len(ids(world))
    assert {row["final_outcome"] for row in world.database.tables.rows["recovery_run"].values()} == {"recovered"}


def test_past_the_window_it_may_stand_twice_and_never_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DUPLICATE_WINDOW_S", 0.0)
    world = World(1)
    chance = random.Random(1)
    world.bus.unheard = lambda message: chance.random() < 0.3

    async def tell(running: Running) -> None:
        await rented(running)
        await running.quiet()

    assert world.run(tell)
    assert sound(world)
    assert max(Counter(ids(world)).values()) > 1


def test_entities_overtake_one_another_and_none_overtakes_itself() -> None:
    world, chance = World(1), random.Random(3)
    world.bus.way_s = lambda message_id: chance.choice((0.0, 0.01, 0.3))
    world.bus.together = False  # together they go as they were committed

    async def tell(running: Running) -> None:
        await asyncio.gather(*(rented(running, f"n{each}", f"rent-{each}") for each in range(4)))
        await running.quiet()

    assert world.run(tell)
    assert sound(world)
    committed_in_order = [row["outbox_id"] for row in sorted(outbox(world), key=lambda row: row["jseq"])]
    assert ids(world) != committed_in_order


@pytest.mark.parametrize("lost", [3, 1000])
def test_what_a_stream_has_lost_after_acknowledging_comes_back_by_a_republish(lost: int) -> None:
    async def tell(running: Running) -> None:
        bus = running.world.bus
        await rented(running)
        await running.quiet()
        if not running.world.told.get("lost"):
            running.world.told["lost"] = "yes"
            bus.lose(EVENTS, min(lost, len(bus.streams[EVENTS])))
        said = await running.ask("ops.outbox.republish", "again", since_us=0, reason="the disk was lost")
        assert said["complete"]
        await running.quiet()

    # given a republish in which no runtime dies, and one for each publish of it at which one does
    world, points = World(1), Points()
    assert world.run(tell, points)
    assert sound(world)
    whole = [point for point in points.seen if point.what.startswith("publish")]
    for point in whole[-len(outbox(world)) :: 2]:
        world = World(1)
        assert not world.run(tell, Points(point.number, "lost"))
        assert world.run(tell)
        assert sound(world)


def test_a_message_that_the_broker_refuses_for_itself_is_parked_until_a_person_has_it_tried_again() -> None:
    world = World(1)
    refused: list[str] = []

    def poison(message: Stored) -> Any:
        if "requested" in message.subject and (not refused or message.message_id == refused[0]) and not mended:
            refused.append(message.message_id)
            return POISON
        return None

    mended: list[bool] = []

    async def tell(running: Running) -> None:
        allocation = await rented(running)
        await running.until(lambda: bool(outbox(world, state="parked")))
        # then its entity's later events wait behind it, with a case, and others go on
        await running.account("other")
        await running.until(lambda: "account:other" in {entity for entity, _ in published(world)})
        assert f"allocation:{allocation}" not in {entity for entity, _ in published(world)}
        assert [row["kind"] for row in world.database.tables.rows["ops_case"].values()] == ["outbox_poison"]
        mended.append(True)
        await running.ask("ops.outbox.redispatch", "again", outbox_id=refused[0], reason="the limit was raised")
        await running.quiet()

    world.bus.refuses = poison
    assert world.run(tell)
    assert sound(world)
    assert len(set(refused)) == 1


def test_who_alone_is_refused_waits_alone_and_goes_out_when_it_is_taken() -> None:
    world = World(1)
    trouble = [True]
    world.bus.refuses = lambda message: LATE if trouble and ".evt.allocation." in message.subject else None

    async def tell(running: Running) -> None:
        allocation = await rented(running)
        await running.until(lambda: running.world.database.tables.rows["ops_case"] != {})
        await running.account("other")
        await running.until(lambda: "account:other" in {entity for entity, _ in published(world)})
        assert f"allocation:{allocation}" not in {entity for entity, _ in published(world)}
        trouble.clear()
        await running.quiet()

    assert world.run(tell)
    assert sound(world)
    rows = world.database.tables.rows
    assert {row["state"] for row in rows["ops_case"].values()} == {"resolved"}
    assert {(row["matrix_row"], row["final_outcome"]) for row in rows["recovery_run"].values()} == {
        ("R01", "recovered")
    }
    (undone,) = rows["compensation"].values()
    assert (undone["compensation_type"], undone["outcome"]) == ("compensate", "success")


# --- R07 -------------------------------------------------------------------------------------------------


def test_a_notification_that_a_full_stream_refuses_is_parked_and_goes_out_once_and_late() -> None:
    async def tell(running: Running) -> None:
        await rented(running)
        sent = [name for (kind, name), _ in running.world.database.tables.states.items() if kind == "notification"]
        await running.until(lambda: any(running.state("notification", name) == "parked" for name in sent))
        running.world.bus.full.clear()
        await running.until(lambda: all(running.state("notification", name) == "sent" for name in sent))
        await running.quiet()

    world = told(BY_ROW["R07"], tell, lambda world: world.bus.full.add(NOTICES))
    assert max(Counter(ids(world, NOTICES)).values()) == 1
    assert any(msgspec.json.decode(stored.payload)["late"] for stored in world.bus.streams[NOTICES])


def test_a_notification_that_was_taken_and_not_acknowledged_is_there_once() -> None:
    def breaks(world: World) -> None:
        world.bus.unheard = lambda message: world.bus.tried.count(message.message_id) <= 4

    def all_sent(running: Running) -> bool:
        known = [name for kind, name in running.world.database.tables.states if kind == "notification"]
        return all(running.state("notification", name) == "sent" for name in known)

    async def tell(running: Running) -> None:
        await rented(running)
        await running.until(lambda: not running.owed() and all_sent(running))

    world = World(1)
    breaks(world)
    assert world.run(tell)
    assert sound(world)
    assert max(Counter(ids(world, NOTICES)).values()) == 1
    runs = [row for row in world.database.tables.rows["recovery_run"].values() if row["matrix_row"] == "R07"]
    assert {row["final_outcome"] for row in runs} == {"recovered"}
