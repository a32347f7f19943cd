"""The crash sweep: a story is told, and the process dies at one point of it; the next runtime tells it to its end."""

from collections import Counter
from typing import Any

import msgspec
from msgspec import Struct

from adapters.simulated.journal import Database
from supervisors.invariants import committed
from supervisors.invariants.records import Records, Violation
from supervisors.invariants.rest import at_rest, hashed, in_order
from supervisors.simulation.points import Point, Points
from supervisors.simulation.stories import Story
from supervisors.simulation.world import World

TRIES = 5  # runtimes that one crash may take until a story has ended


class Told(Struct):
    """A world after its story, and the point it died at, if any."""

    world: World
    points: list[Point]
    crashed: Point | None


def tell(story: Story, crash_at: int = 0, mode: str = "before", again_at: int = 0, seed: int = 1) -> Told:
    """Tell it, dying once at `crash_at` and, if that is given, once more at a point of the recovery."""
    world = World(seed, **story.limits)
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


def simulated_rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    """All its rows by table, those of states as one."""
    states = [
        {"kind": write.kind, "id": write.id, "state": write.state, "due_us": write.due_us,
         "body": msgspec.json.decode(write.body)}
        for write in database.tables.states.values()
    ]  # fmt: skip
    rows = {name: list(table.values()) for name, table in database.tables.rows.items()}
    return {**rows, "state": states, "journal_head": [msgspec.structs.asdict(database.head)]}


def records_of(database: Database) -> Records:
    """The same, as the checks read them."""
    return Records(simulated_rows(database))


def wrong(story: Story, world: World) -> list[Violation]:
    """What does not hold of a world after its story."""
    records = records_of(world.database)
    found = [*committed(records), *at_rest(records), *hashed(records), *in_order(published(world))]
    return [
        *found,
        *world.broken,
        *_sent_once(world),
        *mirrored(world),
        *stored(world),
        *_as_told(story, world, records),
    ]


def mirrored(world: World) -> list[Violation]:
    """Stripe has each policy and overrun credit of an account with a customer once, and no other (B5)."""
    rows = world.database.tables.rows["ledger_entries"].values()
    found = []
    for (kind, account_id), write in world.database.tables.states.items():
        customer = msgspec.json.decode(write.body).get("stripe_customer_id") if kind == "account" else None
        if customer is not None:
            wanted = {
                row["idempotency_key"]: [(row["amount_minor"], row["currency"])] for row in rows
                if row["account_id"] == account_id and row["entry_type"] == "credit" and row["meter_id"]
            }  # fmt: skip
            there = {key: [each[1:] for each in made] for key, made in world.stripe.mirrored(customer).items()}
            if wanted != there:
                found.append(Violation("B5", f"account:{account_id}", f"ledger {wanted}, Stripe {there}"))
    return found


def stored(world: World) -> list[Violation]:
    """What is mounted and granted is what the attachments say, and nothing else (A7)."""
    known = {name: msgspec.json.decode(write.body) for (kind, name), write in world.database.tables.states.items()
             if kind == "attachment"}  # fmt: skip
    may = {name for name, body in known.items() if body["state"] in ("attached", "detach_failed")}
    must = {name for name in may if known[name]["state"] == "attached"}
    found = []
    mounts = {name for machine in world.machines.machines.values() for name in machine.mounts.mounted}
    if not must <= mounts <= may:
        found.append(Violation("A7", "mounts", f"there {sorted(mounts)}, attached {sorted(must)}, may {sorted(may)}"))
    pairs = set(world.provider().access)  # a machine's address is its name
    for name, stored in world.provider().namespaces.items():
        if stored.files != {"letter": b"dear customer"}:
            found.append(Violation("A7", f"namespace:{name}", f"holds {sorted(stored.files)}"))
    wanted = {(known[name]["namespace_id"], known[name]["node_id"]) for name in may}
    if pairs != wanted:
        found.append(Violation("A7", "grants", f"there {sorted(pairs)}, wanted {sorted(wanted)}"))
    return found


def published(world: World) -> list[tuple[str, int]]:
    told = [msgspec.json.decode(stored.payload) for stored in world.bus.streams["AMENDS_EVT"]]
    return [(event["entity"], event["seq"]) for event in told]


def _sent_once(world: World) -> list[Violation]:
    """The bus knows a repeat by its id: a notification stands in its stream once."""
    told = [msgspec.json.decode(stored.payload)["notification_id"] for stored in world.bus.streams["AMENDS_NTF"]]
    return [Violation("C2", each, "sent twice") for each, count in Counter(told).items() if count > 1]


def _as_told(story: Story, world: World, records: Records) -> list[Violation]:
    """How this row must end: once, whatever happened on the way."""
    found = []
    states = [write for (kind, _), write in world.database.tables.states.items() if kind == "allocation"]
    if [write.state for write in states] != ([story.state] if story.state else []):
        found.append(Violation("A2", story.row, f"allocations: {[write.state for write in states]}"))
    own = [row for row in records.of("recovery_run") if row["matrix_row"] == story.row]
    traces = {row["recovery_trace_id"] for row in own}
    if not own or {row["final_outcome"] for row in own} != set(story.outcomes):
        found.append(Violation("C6", story.row, f"runs: {[(row['matrix_row'], row['final_outcome']) for row in own]}"))
    undone = sorted((row for row in records.of("compensation") if row["recovery_trace_id"] in traces),
                     key=lambda row: (row["at_us"], row["sequence"]))  # fmt: skip
    seen = [(f"{row['compensation_type']}·{row['compensated_action_type']}", row["outcome"]) for row in undone]
    if story.row in ("R01", "R06", "R07", "R08"):  # of each event, notification, delivery or credit that met it
        seen = [each for each, count in Counter(seen).items() if count]
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
