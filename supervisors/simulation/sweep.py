"""The crash sweep: a story is told, and the process dies at one point of it; the next runtime tells it to its end."""

from collections import Counter

import msgspec
from msgspec import Struct

from supervisors.invariants import committed
from supervisors.invariants.records import Records, Row, Violation
from supervisors.invariants.rest import at_rest, hashed, in_order
from supervisors.simulation.checks import (
    cases_audited,
    inhabited,
    mirrored,
    paused,
    published,
    reckoned,
    records_of,
    sent_once,
    stopped,
    stored,
)
from supervisors.simulation.points import Point, Points
from supervisors.simulation.stories import Story
from supervisors.simulation.world import Terms, World

TRIES = 5  # runtimes that one crash may take until a story has ended


class Told(Struct):
    """A world after its story, and the point it died at, if any."""

    world: World
    points: list[Point]
    crashed: Point | None


def tell(
    story: Story, crash_at: int = 0, mode: str = "before", again_at: int = 0, seed: int = 1, terms: Terms | None = None
) -> Told:
    """Tell it, dying once at `crash_at` and, if that is given, once more at a point of the recovery."""
    world = World(seed, terms, **story.limits)
    story.breaks(world)
    first = Points(crash_at, mode)
    done = world.run(story.tell, first)
    assert done == (first.struck is None)
    if not done and again_at:
        second = Points(again_at, mode)
        done = world.run(story.tell, second)
    for _ in range(TRIES):
        if done:
            break
        done = world.run(story.tell)
    assert done, "the story does not end"
    return Told(world, first.seen, first.struck)


def wrong(story: Story, world: World) -> list[Violation]:
    """What does not hold of a world after its story."""
    return [*unsound(world), *_as_told(story, world, records_of(world.database))]


def unsound(world: World) -> list[Violation]:
    """What does not hold of a world in which nothing is owed any more, whatever has happened there."""
    records = records_of(world.database)
    return [
        *committed(records),
        *at_rest(records),
        *hashed(records),
        *in_order(published(world)),
        *world.broken,
        *sent_once(world),
        *stopped(records),
        *cases_audited(records),
        *reckoned(world, records),
        *mirrored(world),
        *stored(world),
        *inhabited(world, records),
        *paused(records),
    ]


def _as_told(story: Story, world: World, records: Records) -> list[Violation]:
    """How this row must end: once, whatever happened on the way."""
    found = []
    states = [write for (kind, _), write in world.database.tables.states.items() if kind == "allocation"]
    if [write.state for write in states] != ([story.state] if story.state else []):
        found.append(Violation("A2", story.row, f"allocations: {[write.state for write in states]}"))
    own, seen = _undone(story, records)
    if not own or {row["final_outcome"] for row in own} != set(story.outcomes):
        found.append(Violation("C6", story.row, f"runs: {[(row['matrix_row'], row['final_outcome']) for row in own]}"))
    if seen != list(story.compensations):
        found.append(Violation("C2", story.row, f"compensations: {seen}"))
    if len(records.of("meters")) != story.meters:
        found.append(Violation("B1", story.row, f"{len(records.of('meters'))} meters"))
    paid = {row["idempotency_key"]: row["amount_minor"] for row in records.of("ledger_entries") if not row["meter_id"]}
    if paid != story.payments:
        found.append(Violation("B7", story.row, f"payments {paid}"))
    wanted = [f"am-{write.id.removeprefix('alloc_')}" for write in states if write.state == "active"]
    for machine in world.machines.machines.values():
        if machine.customers() != wanted:
            found.append(Violation("A4", machine.node_id, f"customers {machine.customers()}, wanted {wanted}"))
        created = [op for op, _ in machine.calls if op == "user-create"]
        if not created:
            found.append(Violation("A6", machine.node_id, "nobody ever was there"))
    return found


def _undone(story: Story, records: Records) -> tuple[list[Row], list[tuple[str, str]]]:
    """The row's runs, and (type·what, outcome) of what they undid, in its order."""
    own = [row for row in records.of("recovery_run") if row["matrix_row"] == story.row]
    traces = {row["recovery_trace_id"] for row in own}
    undone = sorted((row for row in records.of("compensation") if row["recovery_trace_id"] in traces),
                     key=lambda row: (row["at_us"], row["sequence"]))  # fmt: skip
    seen = [(f"{row['compensation_type']}·{row['compensated_action_type']}", row["outcome"]) for row in undone]
    if story.row in ("R01", "R06", "R07", "R08"):  # of each event, notification, delivery or credit that met it
        seen = [each for each, count in Counter(seen).items() if count]
    return own, seen


def ended(story: Story, world: World) -> Story:
    """The same story, which must end as it has ended in this world: by another policy money may go another way."""
    return msgspec.structs.replace(story, compensations=tuple(_undone(story, records_of(world.database))[1]))
