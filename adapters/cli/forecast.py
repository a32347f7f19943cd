"""What would happen, on a screen: `amends whatif …`. Tables of what the records would say, then what was assumed."""

from collections.abc import Mapping
from typing import Any, Final

from adapters.cli import tables
from adapters.cli.money import GIVES, amount
from amends.values.text import printable

# List of the answer → its heading and columns; the ledger has a part of its own.
PARTS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "transitions": ("Changes", ("entity", "from", "to", "cause")),
    "failures": ("Failures", ("code", "failure_type", "severity", "ref", "component", "propagation_hop")),
    "compensations": (
        "Compensated", ("matrix_row", "compensation_type", "compensated_action_type", "target_ref", "outcome", "entity")
    ),
    "runs": ("Recovery runs", ("matrix_row", "entity", "begun", "final_outcome")),
    "notifications": ("Told", ("kind", "audience", "account_id", "entity", "cause")),
    "cases": ("Cases", ("kind", "target_ref", "state", "commands")),
    "steps": ("Done on nodes and at providers", ("name", "target", "entity")),
    "held": ("Paused, and told nothing until their case is resolved", ("entity", "messages")),
    "waiting": ("Not foretold, or owed until the node is back", ("name", "target", "entity")),
}  # fmt: skip


def page(answer: Mapping[str, Any], width: int | None) -> str:
    """The whole of it; of a list that is empty nothing."""
    parts = [f"As of {tables.moment(answer['as_of_us'])}. Nothing was written, and nobody was told."]
    if answer["refused"] is not None:
        refused = answer["refused"]
        parts += ["", printable(f"It would be refused: {refused['code']}: {refused['message']}")]
    if answer["reply"]:
        parts += ["", "The answer would be", tables.record(answer["reply"])]
    for name in ("transitions", "failures", "compensations", "runs"):
        parts += _part(name, answer, width)
    parts += _money(answer, width)
    for name in ("notifications", "cases", "steps", "waiting", "held"):
        parts += _part(name, answer, width)
    parts += ["", "Assumed", *(f"  {printable(each)}" for each in answer["assumptions"])]
    return "\n".join(parts)


def _part(name: str, answer: Mapping[str, Any], width: int | None) -> list[str]:
    heading, columns = PARTS[name]
    return ["", heading, tables.table(answer[name], columns, width)] if answer[name] else []


def _money(answer: Mapping[str, Any], width: int | None) -> list[str]:
    """Every entry with its formula, then what that comes to for each account."""
    if not answer["ledger"]:
        return []
    rows = []
    for entry in answer["ledger"]:
        sign = 1 if entry["entry_type"] in GIVES else -1
        shown = f"{amount(sign * entry['amount_minor'], entry['minor_unit_exponent'])} {entry['currency']}"
        rows.append({**entry, "amount": shown})
    parts = [
        "",
        "Ledger",
        tables.table(rows, ("entry_type", "amount", "amount_minor", "rule_id", "idempotency_key"), width),
    ]
    for entry in answer["ledger"]:
        parts += [printable(f"  {entry['idempotency_key']}"), *(f"    {printable(line)}" for line in entry["formula"])]
    columns = ("account_id", "debited_minor", "credited_minor", "balance_minor", "balance_after_minor", "currency")
    return [*parts, "", "Accounts, in minor units", tables.table(answer["accounts"], columns, width)]
