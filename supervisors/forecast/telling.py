"""What was committed on a stage, told as the records say it: in their order, without ids that name nothing."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from actors.money.explanation import Unexplained, explain
from actors.money.metering import Usage
from actors.tables import LedgerRow, MeterRow
from amends.turn.notify import PUBLISH_NOTIFICATION, Notification
from amends.values.records import (
    ActionRow,
    AuditRow,
    CaseRow,
    CompensationRow,
    FailureRow,
    RunEndRow,
    RunRow,
    StepRow,
)
from supervisors.balances import signed
from supervisors.forecast.rehearsal import Rehearsal

EVALUATED: Final = "billing.credit.evaluated"
NO_ENTITY: Final = ("case", "notification")  # told in lists of their own
LISTS: Final = (
    "transitions", "failures", "compensations", "runs", "ledger", "accounts", "notifications", "cases", "steps",
    "waiting", "held",
)  # fmt: skip
Row = dict[str, Any]


def nothing() -> Row:
    """Of a command that would be refused."""
    return {name: [] for name in LISTS}


def told(on: Rehearsal) -> Row:
    """Every list of the answer."""
    runs = _runs(on)
    return {
        "transitions": _transitions(on), "failures": _failures(on), "compensations": _compensations(on, runs),
        "runs": [run for run in runs.values() if run.pop("touched")],
        "ledger": _ledger(on), "accounts": _accounts(on), "notifications": _notifications(on), "cases": _cases(on),
        "steps": _steps(on.stage.done), "waiting": _steps(on.stage.left), "held": _held(on),
    }  # fmt: skip


def _transitions(on: Rehearsal) -> list[Row]:
    found = []
    for row in on.stage.rows(AuditRow):
        if row.to_state is not None and row.target_ref.partition(":")[0] not in NO_ENTITY:
            cause = msgspec.json.decode(row.details).get("cause") or row.reason or None
            found.append({"entity": row.target_ref, "from": row.from_state, "to": row.to_state, "cause": cause})
    return found


def _failures(on: Rehearsal) -> list[Row]:
    return [
        {"code": row.code, "failure_type": row.failure_type, "severity": row.severity, "ref": row.ref,
         "component": row.component, "propagation_hop": row.propagation_hop, "message": row.message}
        for row in on.stage.rows(FailureRow)
    ]  # fmt: skip


def _runs(on: Rehearsal) -> dict[str, Row]:
    """By trace: those that were open before, and those that begin; only what is touched is told."""
    found: dict[str, Row] = {}
    traces: dict[str, str] = {}  # recovery id → trace
    for ref, state in on.lent.items():
        for run in state.runs.values():
            traces[run.recovery_id] = run.trace_id
            found[run.trace_id] = {"matrix_row": run.row, "entity": ref, "begun": False,
                                   "final_outcome": run.outcome or None, "touched": False}  # fmt: skip
    for begun in on.stage.rows(RunRow):
        traces[begun.recovery_id] = begun.recovery_trace_id
        found[begun.recovery_trace_id] = {"matrix_row": begun.matrix_row, "entity": begun.entity, "begun": True,
                                          "final_outcome": None, "touched": True}  # fmt: skip
    for ended in on.stage.rows(RunEndRow):
        if ended.recovery_id in traces:
            found[traces[ended.recovery_id]] |= {"final_outcome": ended.final_outcome, "touched": True}
    return found


def _compensations(on: Rehearsal, runs: Mapping[str, Row]) -> list[Row]:
    what = {row.action_id: row.what for row in on.stage.rows(ActionRow)}
    return [
        {"matrix_row": row.matrix_row, "entity": runs.get(row.recovery_trace_id, {}).get("entity"),
         "compensation_type": row.compensation_type, "compensated_action_type": row.compensated_action_type,
         "what": what[row.action_id], "target_ref": row.target_ref, "outcome": row.outcome}
        for row in on.stage.rows(CompensationRow)
    ]  # fmt: skip


def _ledger(on: Rehearsal) -> list[Row]:
    """Each entry with its rule and its formula, as `qry.ledger_entry.explain` would tell it afterwards."""
    meters = {row.meter_id: row for row in on.stage.rows(MeterRow)}
    evaluations: dict[str, list[Row]] = {}
    for audit in on.stage.rows(AuditRow):
        if audit.action == EVALUATED:
            evaluations.setdefault(audit.target_ref, []).append(msgspec.json.decode(audit.details))
    found = []
    for row in on.stage.rows(LedgerRow):
        made_by = evaluations.get(f"meter:{row.meter_id}", [])
        rule_id, formula, digits = _formula(on, row, meters.get(row.meter_id or ""), made_by)
        found.append({
            "account_id": row.account_id, "meter_id": row.meter_id, "entry_type": row.entry_type,
            "amount_minor": row.amount_minor, "currency": row.currency, "idempotency_key": row.idempotency_key,
            "rule_id": row.rule_id or rule_id, "formula": formula, "minor_unit_exponent": digits,
        })  # fmt: skip
    return found


def _formula(
    on: Rehearsal, row: LedgerRow, meter: MeterRow | None, evaluations: list[Row]
) -> tuple[str | None, list[str], int | None]:
    """By which rule the meter was stopped where that made the entry, the lines, the digits of the currency."""
    if meter is None:
        return None, [], None
    policy = on.pool.policy_of(meter.policy_sha256)
    usage = Usage(meter.rate_uminor_per_hour, meter.started_us, policy.time.unit_us)
    try:
        found = explain(row.idempotency_key, usage, policy, evaluations)
    except Unexplained as error:
        return None, [str(error)], policy.minor_unit_exponent
    rule_id = found.evaluation["rule_id"] if found.evaluation is not None else None
    return rule_id, list(found.lines), policy.minor_unit_exponent


def _accounts(on: Rehearsal) -> list[Row]:
    """What each account is charged and given by all these entries, and what it has before and after them."""
    given, taken = Counter[str](), Counter[str]()
    currencies: dict[str, str] = {}
    for row in on.stage.rows(LedgerRow):
        currencies[row.account_id] = row.currency
        (given if signed(row) > 0 else taken)[row.account_id] += row.amount_minor
    return [
        {"account_id": account_id, "currency": currency, "debited_minor": taken[account_id],
         "credited_minor": given[account_id],
         "balance_minor": on.pool.balance_minor(account_id) - given[account_id] + taken[account_id],
         "balance_after_minor": on.pool.balance_minor(account_id)}
        for account_id, currency in currencies.items()
    ]  # fmt: skip


def _notifications(on: Rehearsal) -> list[Row]:
    """Those that are born there; who is told, of what, and why."""
    born = [write for write in on.stage.paper.states if write.kind == "notification" and write.version == 1]
    found = []
    for write in born:
        state = msgspec.json.decode(write.body, type=Notification)
        found.append({"kind": state.kind, "audience": state.audience, "account_id": state.account_id,
                      "entity": state.entity, "cause": state.body.get("cause")})  # fmt: skip
    return found


def _cases(on: Rehearsal) -> list[Row]:
    """Each as it stands in the end; of one that is resolved the entity it was of."""
    newest: dict[str, Row] = {}
    for row in on.stage.rows(CaseRow):
        before = newest.get(row.case_id, {})
        newest[row.case_id] = {"kind": row.kind, "target_ref": row.target_ref or before.get("target_ref") or row.entity,
                               "state": row.state, "commands": msgspec.json.decode(row.commands)}  # fmt: skip
    return list(newest.values())


def _held(on: Rehearsal) -> list[Row]:
    """Paused entities that would not take in what they are told until their case is resolved."""
    holding = on.stage.engine.policy.holding
    return [{"entity": f"{kind}:{name}", "messages": count} for (kind, name), count in holding.items()]


def _steps(rows: Iterable[StepRow]) -> list[Row]:
    """But for those that publish what is told of as notifications."""
    return [
        {"name": row.name, "entity": row.entity, "target": row.target}
        for row in rows
        if row.name != PUBLISH_NOTIFICATION
    ]
