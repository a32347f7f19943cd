"""Money on a screen: the statement of an account with its running balance, and how one entry came about."""

from collections.abc import Mapping
from typing import Any, Final

from adapters.cli import tables
from adapters.cli.client import Api
from amends.values.text import printable

GIVES: Final = frozenset(("topup", "credit"))  # what adds to a balance; the other entries take from it
COLUMNS: Final = ("created_us", "entry_type", "amount", "balance", "rule_id", "idempotency_key")
INPUTS: Final = (
    "cause", "reason", "started_us", "stop_us", "was_us", "posted_through_us", "prior_credits", "at_us", "audit_id",
)  # fmt: skip
Json = dict[str, Any]


def amount(minor: int, exponent: int | None) -> str:
    """In the currency's own unit where it is known how many minor units that has; else in minor units."""
    if not exponent:
        return str(minor)
    whole, part = divmod(abs(minor), 10**exponent)
    return f"{'-' if minor < 0 else ''}{whole}.{part:0{exponent}d}"


async def statement(api: Api, subject: str, data: Json) -> Json:
    """All pages of it, each entry with the balance after it."""
    answer = await api.ask(subject, data)
    entries: list[Json] = list(answer.get("entries", []))
    cursor = answer.pop("cursor", None)
    while cursor:
        page = await api.ask(subject, {**data, "cursor": cursor})
        entries += page.get("entries", [])
        cursor = page.get("cursor")
    running = answer.get("opening_minor") or 0
    for entry in entries:
        running += entry["amount_minor"] * (1 if entry["entry_type"] in GIVES else -1)
        entry["balance_after_minor"] = running
    return {**answer, "entries": entries, "closing_minor": running}


def statement_page(answer: Mapping[str, Any], width: int | None) -> str:
    """Its entries as a table, debits and refunds with a minus, between the balances before and after them."""
    exponent, currency = answer.get("minor_unit_exponent"), answer.get("currency") or "-"
    rows = []
    for entry in answer.get("entries", []):
        signed = entry["amount_minor"] * (1 if entry["entry_type"] in GIVES else -1)
        after = amount(entry["balance_after_minor"], exponent)
        rows.append({**entry, "amount": amount(signed, exponent), "balance": after})
    unit = currency if exponent is not None else f"minor units of {currency}"
    balances = {
        "balance before": f"{amount(answer.get('opening_minor') or 0, exponent)} {unit}",
        "balance after": f"{amount(answer['closing_minor'], exponent)} {unit}",
        "balance now": f"{amount(answer.get('balance_minor') or 0, exponent)} {unit}",
    }
    return f"{tables.table(rows, COLUMNS, width)}\n\n{tables.record(balances)}"


def explanation_page(answer: Mapping[str, Any]) -> str:
    """One entry: itself, its meter, the evaluation and the rule, the formula with its numbers, whose policy, traces."""
    entry, meter, policy = answer["entry"], answer.get("meter"), answer.get("policy") or {}
    exponent = answer.get("minor_unit_exponent", policy.get("minor_unit_exponent"))
    said = f"{amount(entry['amount_minor'], exponent)} {entry['currency']}"
    head = {"entry": entry["idempotency_key"], "amount": f"{said} ({entry['entry_type']})", "what": answer.get("what")}
    shown = ("entry_id", "account_id", "window_start_us", "created_us", "payload_hash")
    parts = [tables.record({**head, **{name: entry[name] for name in shown if entry.get(name) is not None}})]
    parts += _part("Meter", meter)
    parts += _part("Payment", answer.get("payment"))
    evaluation = answer.get("evaluation") or {}
    parts += _part("Evaluated", {name: evaluation[name] for name in INPUTS if evaluation.get(name) not in (None, "")})
    parts += _part("Rule", answer.get("rule"))
    if answer.get("formula"):
        parts += ["", "Formula", *(f"  {printable(line)}" for line in answer["formula"])]
        reckoned = f"  {answer['reckoned_minor']} minor units"
        parts.append(f"{reckoned}, as the entry has it" if answer["agrees"] else f"{reckoned}: THE ENTRY DIFFERS")
    parts += _part("Policy", policy)
    parts += _part("Traces", answer.get("traces"))
    if answer.get("problem"):
        parts += ["", printable(f"Not explained: {answer['problem']}")]
    return "\n".join(parts)


def _part(heading: str, values: Mapping[str, Any] | None) -> list[str]:
    return ["", heading, tables.record(values)] if values else []
