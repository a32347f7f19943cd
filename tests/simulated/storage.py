"""What the tests of storage in the simulated world share: a world after its story, and what it came to."""

from collections.abc import Callable
from typing import Any

import msgspec

from adapters.simulated.journal import Database
from amends.ports.journal import Commit
from supervisors.invariants import committed
from supervisors.invariants.records import Violation
from supervisors.invariants.rest import at_rest
from supervisors.rental import RENTAL
from supervisors.simulation.checks import records_of, stored
from supervisors.simulation.storage_stories import QUOTA, holds
from supervisors.simulation.world import Running, Tell, World


class Watched(Database):
    """A database of which every committed instant is looked at."""

    def __init__(self) -> None:
        super().__init__((RENTAL,))
        self.seen: list[Violation] = []

    def write(self, commit: Commit) -> None:
        super().write(commit)
        self.seen += committed(records_of(self))


def play(tell: Tell, breaks: Callable[[World], object] = lambda world: None, **limits: Any) -> World:
    """A world after its story, in which nothing was wrong at any instant, and all is as its attachments say."""
    world = World(1, **limits)
    world.database = watched = Watched()
    breaks(world)
    assert world.run(tell)
    assert [*watched.seen, *at_rest(records_of(watched)), *world.broken, *stored(world)] == []
    return world


def undone(world: World, row: str) -> list[tuple[str, str, str]]:
    """(type·what, outcome, kind of the target) of the row's records, in their order."""
    tables = world.database.tables.rows
    traces = {run["recovery_trace_id"] for run in tables["recovery_run"].values() if run["matrix_row"] == row}
    found = [each for each in tables["compensation"].values() if each["recovery_trace_id"] in traces]
    found.sort(key=lambda each: (each["at_us"], each["sequence"]))
    return [
        (f"{each['compensation_type']}·{each['compensated_action_type']}", each["target_ref"].partition(":")[0],
         each["outcome"]) for each in found
    ]  # fmt: skip


def access_of(world: World) -> list[tuple[str, str]]:
    """(namespace, address) of all who may mount something."""
    return sorted(world.provider().access)


def access(running: Running) -> list[tuple[str, str]]:
    return access_of(running.world)


def outcomes(world: World, row: str) -> list[str | None]:
    """Of the row's runs; None for one that is open or degraded."""
    runs = world.database.tables.rows["recovery_run"].values()
    return [run["final_outcome"] for run in runs if run["matrix_row"] == row]


def cases(world: World, kind: str) -> list[str]:
    """States of the cases of a kind."""
    return [case["state"] for case in world.database.tables.rows["ops_case"].values() if case["kind"] == kind]


def bodies(world: World, kind: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(write.body) for (of, _), write in world.database.tables.states.items() if of == kind]


async def once_active(running: Running, key: str, node_id: str) -> str:
    """A second rental, on its node."""
    await running.node(node_id)
    allocation = await running.rent("acme", key)
    await running.until(lambda: running.state("allocation", allocation) == "active")
    return allocation


async def namespace(running: Running, name: str, **more: Any) -> None:
    holds(running.world, name)
    said = {"namespace_id": name, "account_id": "acme", "provider_id": "p1", "quota_bytes": QUOTA}
    await running.once("cmd.namespace.create", f"namespace-{name}", **{**said, **more})
