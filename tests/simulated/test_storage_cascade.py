"""A thousand attachments on a hundred nodes, and sixty of the nodes lost at once."""

import asyncio
from collections import Counter

import pytest

from supervisors.simulation.world import Running
from tests.simulated.storage import access, access_of, cases, namespace, outcomes, play

NODES, LOST, OWN, SHARED = 100, 60, 5, 5  # of each rental: namespaces that it writes alone, and reads with all others
WISHES = [*(("rw", number) for number in range(OWN)), *(("ro", number) for number in range(SHARED))]


def holders(running: Running) -> Counter[str]:
    """How many may mount something, by address; an address is its node's name here."""
    return Counter(address for _, address in access(running))


def checksums(running: Running) -> dict[str, str]:
    """Of what each namespace holds."""
    return {name: stored.checksum() for name, stored in running.world.provider().namespaces.items()}


async def attached(running: Running, rentals: list[str]) -> list[str]:
    """Ten attachments of each rental; their ids."""
    own = [f"own-{rental}-{number}" for rental in range(NODES) for number in range(OWN)]
    shared = [f"shared-{number}" for number in range(SHARED)]
    await asyncio.gather(*(namespace(running, name) for name in (*own, *shared)))

    async def one(rental: int, mode: str, number: int) -> str:
        asked = await running.ask(
            "cmd.attachment.attach", f"attach-{rental}-{mode}-{number}", allocation_id=rentals[rental], mode=mode,
            namespace_id=f"own-{rental}-{number}" if mode == "rw" else f"shared-{number}",
            mount_path=f"/mnt/{mode}{number}",
        )  # fmt: skip
        return str(asked["attachment"]["attachment_id"])

    ids = await asyncio.gather(*(one(rental, *wish) for rental in range(NODES) for wish in WISHES))
    await running.until(lambda: all(running.state("attachment", each) == "attached" for each in ids))
    return ids


@pytest.mark.slow  # some eight seconds of CPU
def test_a_thousand_attachments_of_which_six_hundred_lose_their_node_at_once() -> None:
    async def tell(running: Running) -> None:
        await running.account("acme")
        names = [f"n{number}" for number in range(NODES)]
        await asyncio.gather(*(running.node(name, site="a") for name in names))
        rentals = await asyncio.gather(*(running.rent("acme", f"rent-{name}") for name in names))
        await running.until(lambda: all(running.state("allocation", each) == "active" for each in rentals))
        ids = await attached(running, rentals)
        contents = checksums(running)
        node_of = {each: running.body("attachment", each)["node_id"] for each in ids}
        assert holders(running) == dict.fromkeys(names, OWN + SHARED)
        # when sixty nodes are gone: nothing is concluded of it before an operator says so
        lost = set(names[:LOST])
        for name in lost:
            running.world.machine(name).up = False
        await running.until(lambda: cases(running.world, "mass_offline") == ["open"])
        await asyncio.sleep(5)
        assert holders(running) == dict.fromkeys(names, OWN + SHARED)
        await running.ask("ops.detector.confirm", "confirm", domain="a", reason="the hall has no power")
        # then their access is gone and they are detached, and nobody else is touched
        await running.until(
            lambda: all(running.state("attachment", each) == "detached" for each in ids if node_of[each] in lost)
        )
        assert holders(running) == dict.fromkeys(names[LOST:], OWN + SHARED)
        assert {running.state("attachment", each) for each in ids if node_of[each] not in lost} == {"attached"}
        # and when they are back, each gives up its mounts, all others keep theirs
        for name in lost:
            running.world.machine(name).up = True
        await running.until(lambda: all(running.state("node", name) == "ready" for name in lost))
        assert Counter({name: len(running.world.machine(name).mounts.mounted) for name in names}) == Counter(
            {name: 0 if name in lost else OWN + SHARED for name in names}
        )
        assert checksums(running) == contents
        await running.until(lambda: cases(running.world, "mass_offline") == ["resolved"])
        await running.quiet()

    world = play(tell, quota_interval_ms=60_000)
    assert len(access_of(world)) == (NODES - LOST) * (OWN + SHARED)
    each = 1 + 1 + OWN + SHARED  # of the node, its rental, its attachments: a run of their own, joined by their cause
    assert outcomes(world, "R08") == ["recovered"] * LOST * each
