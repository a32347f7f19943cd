"""What a failure left in the records: read from the SQL views, and held to the rules of traces.md at once."""

import json
import re
from typing import Any

from adapters.otel.verify import verify
from adapters.postgres.digests import verify_digests
from amends.domain.domain import covered
from supervisors.rental import RENTAL
from tests.acceptance.money import ledger_is_right
from tests.acceptance.world import World, until
from tests.patience import PATIENCE_S

REF = re.compile(r"[0-9a-f]{32}:[0-9a-f]{16}")
COMPENSATION = (
    "compensation_id", "recovery_trace_id", "sequence", "timestamp", "compensated_action_ref",
    "compensated_action_type", "compensation_type", "target_ref", "outcome", "duration_ms",
)  # fmt: skip


class Run:
    """One recovery run with everything that hangs on it."""

    def __init__(self, row: dict[str, Any], actions: list[Any], compensations: list[Any], failures: list[Any]) -> None:
        self.row, self.actions, self.compensations, self.failures = row, actions, compensations, failures

    @property
    def outcome(self) -> str | None:
        """`final_outcome`."""
        found: str | None = self.row["final_outcome"]
        return found

    def shape(self) -> list[str]:
        """Its compensations in order, as `type·action·target·outcome`."""
        return [
            "·".join((c["compensation_type"], c["compensated_action_type"], c["target_ref"], c["outcome"]))
            for c in self.compensations
        ]

    def kinds(self) -> list[str]:
        """Its actions in order, as `type·outcome`."""
        return [f"{action['action_type']}·{action['outcome']}" for action in self.actions]

    def supersedes(self) -> list[int | None]:
        """For each compensation the place (from 0) of the one it supersedes."""
        places = {c["compensation_id"]: place for place, c in enumerate(self.compensations)}
        return [places.get(c["metadata"].get("supersedes")) for c in self.compensations]


async def runs(world: World, entity: str, matrix_row: str = "") -> list[Run]:
    """The recovery runs of an entity, oldest first, each checked against the rules that hold for all."""
    async with world.sql.transaction(isolation="repeatable_read", readonly=True):
        return await _runs(world, entity, matrix_row)


async def check_trace(world: World, recovery_trace_id: str) -> None:
    """The run of that trace keeps every rule, and its spans mirror it."""
    query = "SELECT entity FROM public_v1.recovery_run WHERE recovery_trace_id = $1"
    await runs(world, (await world.one(query, recovery_trace_id))["entity"])


async def _runs(world: World, entity: str, matrix_row: str) -> list[Run]:
    rows = await world.rows(
        "SELECT * FROM public_v1.recovery_run WHERE entity = $1 AND ($2 = '' OR matrix_row = $2) "
        "ORDER BY started_at, recovery_id",
        entity, matrix_row,
    )  # fmt: skip
    found = []
    for row in rows:
        trace = row["recovery_trace_id"]
        query = "SELECT * FROM public_v1.{} WHERE recovery_trace_id = $1 ORDER BY {}"
        run = Run(
            row,
            await world.rows(query.format("recovery_action", "sequence"), trace),
            await world.rows(query.format("compensation", "sequence"), trace),
            await world.rows(query.format("failure", "failure_id"), trace),
        )
        check_run(run)
        await check_spans(world, run)
        found.append(run)
    return found


async def run_of(world: World, entity: str, matrix_row: str) -> Run:
    """The one run of that row."""
    found = await runs(world, entity, matrix_row)
    assert len(found) == 1, [run.row for run in found]
    return found[0]


async def ended_run(world: World, entity: str, matrix_row: str, timeout_s: float = PATIENCE_S) -> Run:
    """The one run of that row, once it has ended."""

    async def check() -> Any:
        query = "SELECT ended_at FROM public_v1.recovery_run WHERE entity = $1 AND matrix_row = $2"
        return any(row["ended_at"] for row in await world.rows(query, entity, matrix_row))

    await until(check, f"the run {matrix_row} of {entity} has ended", timeout_s)
    return await run_of(world, entity, matrix_row)


def check_run(run: Run) -> None:
    """The rules of every run (matrix.md, rules 6 and 8; traces.md)."""
    row = run.row
    assert re.fullmatch(r"[0-9a-f]{32}", row["recovery_trace_id"])
    assert re.fullmatch(r"[0-9a-f]{64}", row["matrix_sha256"])
    assert row["trigger_type"] in {"failure", "degradation", "timeout", "policy"}
    assert row["trigger_ref"], row
    assert row["original_trace_id"], row
    assert (row["ended_at"] is not None) == (row["final_outcome"] in {"recovered", "failed"}), row
    assert [action["sequence"] for action in run.actions] == list(range(1, len(run.actions) + 1))
    by_sequence = {action["sequence"]: action for action in run.actions}
    known: list[dict[str, Any]] = []
    for comp in run.compensations:
        action = by_sequence[comp["sequence"]]
        assert action["action_type"] == "compensation", action
        assert (action["target_ref"], action["outcome"]) == (comp["target_ref"], comp["outcome"])
        assert REF.fullmatch(comp["compensated_action_ref"]), comp
        earlier = comp["metadata"].get("supersedes")
        if earlier is not None and earlier not in {c["compensation_id"] for c in known}:
            assert row["trigger_type"] == "policy", "only an operator's run may supersede another run's record"
        known.append(comp)
    assert len(run.compensations) == sum(a["action_type"] == "compensation" for a in run.actions)


async def check_spans(world: World, run: Run) -> None:
    """The run's trace mirrors its records, field by field, and the failed trace points to it."""
    trace = run.row["recovery_trace_id"]
    spans = await world.rows("SELECT * FROM public_v1.span WHERE trace_id = $1", trace)
    ids = {span["span_id"] for span in spans}
    assert len(ids) == len(spans), "a span id twice in one trace"
    (root,) = [span for span in spans if span["parent_span_id"] is None]
    assert root["name"].startswith(f"recovery {run.row['matrix_row']} "), root["name"]
    assert all(span["parent_span_id"] in ids for span in spans if span is not root), "S2: a parent is missing"
    misplaced = [line for line in verify((), spans) if " before its parent " in line or " after its action " in line]
    assert misplaced == [], "S2: a child outside its parent"
    mirrored = {s["attributes"]["compensation.compensation_id"]: s for s in spans if _is_compensation(s)}
    assert set(mirrored) == {comp["compensation_id"] for comp in run.compensations}
    for comp in run.compensations:
        span = mirrored[comp["compensation_id"]]
        attributes = span["attributes"]
        assert span["name"].split(" ")[0] == comp["compensation_type"]
        assert {name: attributes.get(f"compensation.{name}") for name in COMPENSATION} == {
            name: comp[name] for name in COMPENSATION
        }
        assert _parsed(attributes["compensation.metadata"]) == comp["metadata"]
    actions = [span for span in spans if "recovery.action_id" in span["attributes"]]
    assert len(actions) == len(run.actions)
    ends = [span for span in spans if span["name"] == "recovery.ended"]
    assert [span["attributes"]["recovery.final_outcome"] for span in ends] == (
        [run.outcome] if run.row["ended_at"] is not None else []
    )
    started = await world.rows(
        "SELECT * FROM public_v1.span WHERE trace_id = $1 AND name = 'recovery.started'", run.row["original_trace_id"]
    )
    assert any(link["trace_id"] == trace for span in started for link in span["links"])


def _is_compensation(span: dict[str, Any]) -> bool:
    return "compensation.compensation_id" in span["attributes"]


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


async def audit(world: World, target_ref: str) -> list[str]:
    """The audited actions on a target, oldest first."""
    rows = await world.rows("SELECT action FROM public_v1.audit_log WHERE target_ref = $1 ORDER BY seq", target_ref)
    return [row["action"] for row in rows]


async def notifications(world: World, entity: str) -> list[dict[str, Any]]:
    """The notifications about an entity, oldest first."""
    query = "SELECT * FROM public_v1.notification WHERE entity = $1 ORDER BY created_us, notification_id"
    return await world.rows(query, entity)


async def events(world: World, entity: str) -> list[str]:
    """The names of an entity's events in the order of their sequence; the outbox must have drained."""

    async def check() -> Any:
        rows = await world.rows("SELECT state FROM public_v1.outbox WHERE entity = $1", entity)
        return rows and all(row["state"] == "published" for row in rows)

    await until(check, f"the events of {entity} are published")
    kind, _, identifier = entity.partition(":")
    prefix = f"amends.v1.evt.{kind}.{identifier}."
    stored = [m for m in await world.stored("AMENDS_EVT") if m["subject"].startswith(prefix)]
    numbers = [m["body"]["seq"] for m in stored]
    assert numbers == list(range(1, len(stored) + 1)), f"an event is missing, doubled or early: {numbers}"
    assert all(m["body"]["event_id"] == m["msg_id"] for m in stored)
    return [m["subject"].removeprefix(prefix) for m in stored]


async def cases(world: World, target_ref: str) -> list[dict[str, Any]]:
    """The operator cases of a target, oldest first."""
    return await world.rows("SELECT * FROM public_v1.ops_case WHERE target_ref = $1 ORDER BY opened_us", target_ref)


async def meters(world: World, allocation_id: str) -> list[dict[str, Any]]:
    """The meters of an allocation."""
    return await world.rows("SELECT * FROM public_v1.meter WHERE allocation_id = $1", allocation_id)


async def all_is_well(world: World) -> None:
    """What holds at any instant: no invariant is violated, the ledger is right, nothing set aside, rows as written."""
    assert await world.rows("SELECT * FROM public_v1.invariant_violation") == []
    await ledger_is_right(world)
    assert await world.rows("SELECT * FROM message_quarantine") == []
    dsn = world.endpoints["postgres_dsn"].replace("amends_reader", "postgres")
    findings = (await verify_digests(dsn, covered((RENTAL,)))).findings
    assert [each for each in findings if (each.table, each.key) not in world.planted] == []
