"""What must hold of attachments and of access to namespaces at every committed instant (R10 to R13)."""

from collections.abc import Iterator

from supervisors.invariants.records import Records, Row, Violation, grouped

COMING = ("validated", "granted", "mounting")
ON_ITS_WAY = ("requested", *COMING, "detaching")
HOLDING = (*COMING, "attached", "detaching", "detach_failed")
STANDING = ("intended", "granted")  # of access; what drifted is flagged, and blocks


def written(records: Records) -> Iterator[Violation]:
    """A namespace has one writer (T1), and nobody else may write to it meanwhile (T3)."""
    writers = grouped(records.actors("attachment"), lambda row: row["body"].get("rw_holder"))
    for namespace_id, rows in writers.items():
        if namespace_id is not None and len(rows) > 1:
            yield Violation("T1", f"namespace:{namespace_id}", "several writers")
    for grant in _standing(records):
        others = [row for row in writers[grant["namespace_id"]] if row["body"].get("node_id") != grant["node_id"]]
        if grant["mode"] == "rw" and any(row["state"] in ("granted", "mounting", "attached") for row in others):
            yield Violation("T3", f"provider_grant:{grant['grant_id']}", "another node has a writer")


def held(records: Records) -> Iterator[Violation]:
    """Access stands only while an attachment of its pair does, or is being taken back (T3)."""
    pairs = {_pair(row["body"]) for row in records.actors("attachment", *HOLDING)}
    for grant in _standing(records):
        if _pair(grant) not in pairs and f"grant:{_pair(grant)}" not in records.moving:
            yield Violation("T3", f"provider_grant:{grant['grant_id']}", "it stands, and no attachment holds it")


def outlived(records: Records) -> Iterator[Violation]:
    """Nothing is attached, or comes to be, once its allocation is over (T2, T4)."""
    for row in records.actors("attachment", *COMING, "attached"):
        allocation, ref = records.allocation(row["body"]["allocation_id"]), f"attachment:{row['id']}"
        over = allocation is None or allocation["state"] not in ("active", "releasing")
        if over and not _moves(records, row):
            attached = row["state"] == "attached"
            what = "it is attached" if attached else "it is being attached"
            yield Violation("T4" if attached else "T2", ref, f"{what} and its allocation is over")


def moved(records: Records) -> Iterator[Violation]:
    """What is not at rest is moved on: by itself, by its access or by its namespace's provider (A3)."""
    for row in records.actors("attachment", *ON_ITS_WAY):
        if row["due_us"] is None and not _moves(records, row):
            yield Violation("A3", f"attachment:{row['id']}", "nothing moves it on")


def _standing(records: Records) -> list[Row]:
    return [row for row in records.of("provider_grants") if row["state"] in STANDING]


def _pair(row: Row) -> str:
    return f"{row['namespace_id']}.{row.get('node_id') or ''}"


def _moves(records: Records, row: Row) -> bool:
    ref = f"attachment:{row['id']}"
    grant, namespace = f"grant:{_pair(row['body'])}", f"namespace:{row['body']['namespace_id']}"
    return ref in records.with_open_case or not records.moving.isdisjoint((ref, grant, namespace))
