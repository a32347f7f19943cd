"""What plain records do not say of a simulated world: its bus, its machines, its storage provider, its Stripe."""

from collections import Counter
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec

from actors.money.proof import differences, entries_of
from adapters.simulated.journal import Database
from supervisors.invariants.records import Records, Violation
from supervisors.simulation.world import World


@lru_cache(maxsize=8192)
def _decoded(body: str) -> dict[str, Any]:
    """A stored body, decoded once however many instants are looked at: whoever looks changes nothing."""
    found: dict[str, Any] = msgspec.json.decode(body)
    return found


def simulated_rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    """All its rows by table, those of states as one."""
    states = [
        {"kind": write.kind, "id": write.id, "state": write.state, "due_us": write.due_us,
         "body": _decoded(write.body)}
        for write in database.tables.states.values()
    ]  # fmt: skip
    rows = {name: list(table.values()) for name, table in database.tables.rows.items()}
    return {**rows, "state": states, "journal_head": [msgspec.structs.asdict(database.head)]}


def records_of(database: Database) -> Records:
    """The same, as the checks read them."""
    return Records(simulated_rows(database))


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
    """Entity and number of the events that stand on the bus, in their order."""
    told = [msgspec.json.decode(stored.payload) for stored in world.bus.streams["AMENDS_EVT"]]
    return [(event["entity"], event["seq"]) for event in told]


def sent_once(world: World) -> list[Violation]:
    """The bus knows a repeat by its id: a notification stands in its stream once."""
    told = [msgspec.json.decode(stored.payload)["notification_id"] for stored in world.bus.streams["AMENDS_NTF"]]
    return [Violation("C2", each, "sent twice") for each, count in Counter(told).items() if count > 1]


def reckoned(world: World, records: Records) -> list[Violation]:
    """Each meter's entries are, to the unit, what its rate, the policy and its end come to (B1, B4)."""
    evaluations: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(records.of("audit_log"), key=lambda each: each["seq"]):
        if row["action"] == "billing.credit.evaluated":
            evaluations.setdefault(row["target_ref"], []).append(msgspec.json.decode(row["details"]))
    found: dict[str, dict[str, int]] = {}
    for row in records.of("ledger_entries"):
        found.setdefault(row["meter_id"] or "", {})[row["idempotency_key"]] = row["amount_minor"]
    return [
        Violation("B1", f"meter:{meter['meter_id']}", f"{each.key}: {each.found_minor}, not {each.wanted_minor}")
        for meter in records.of("meters")
        for each in differences(
            entries_of(meter, world.policy, evaluations.get(f"meter:{meter['meter_id']}", [])),
            found.get(meter["meter_id"], {}),
        )
    ]


def inhabited(world: World, records: Records) -> list[Violation]:
    """On each machine there are the users of the rentals that live on it, and nobody else (A4, A6)."""
    wanted: dict[str, list[str]] = {name: [] for name in world.machines.machines}
    for row in records.actors("allocation", "active"):
        wanted[row["body"]["node_id"]].append(f"am-{row['id'].removeprefix('alloc_')}")
    return [
        Violation("A4", f"node:{name}", f"customers {machine.customers()}, wanted {sorted(wanted[name])}")
        for name, machine in world.machines.machines.items()
        if machine.customers() != sorted(wanted[name])
    ]


def paused(records: Records) -> list[Violation]:
    """No decision raises: an actor that is paused by one has met an error of the program."""
    return [
        Violation("A3", row["target_ref"], f"it is paused: {row['evidence']}")
        for row in records.of("ops_case")
        if row["kind"] in ("actor_quarantined", "unknown_step")
    ]


def stopped(records: Records) -> list[Violation]:
    """No meter stops later than when that was decided, and a later word only lowers its stop (B6)."""
    found, last_us = [], dict[str, int]()
    for row in sorted(records.of("audit_log"), key=itemgetter("seq")):
        if row["action"] == "billing.credit.evaluated":
            stop_us, ref = msgspec.json.decode(row["details"])["stop_us"], row["target_ref"]
            if stop_us > row["at_us"] or stop_us >= last_us.get(ref, stop_us + 1):
                found.append(Violation("B6", ref, f"a stop at {stop_us}, decided at {row['at_us']}"))
            last_us[ref] = stop_us
    return found


def cases_audited(records: Records) -> list[Violation]:
    """The last entry that has changed a case says the state that it is in (U2); an acknowledgement changes none."""
    changes = [row for row in records.of("audit_log") if row["to_state"] is not None]
    told = {row["target_ref"]: row["to_state"] for row in sorted(changes, key=itemgetter("seq"))}
    return [
        Violation("U2", f"case:{row['case_id']}", f"it is {row['state']}, its last entry says otherwise")
        for row in records.of("ops_case")
        if told.get(f"case:{row['case_id']}") != row["state"]
    ]
