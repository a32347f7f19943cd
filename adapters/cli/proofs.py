"""`amends ledger verify` and `amends policy backtest`: all pages of them, with progress on the way."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from adapters.cli import tables
from adapters.cli.client import Api
from adapters.cli.money import amount

MOST: Final = 200  # differences that are shown
WRONG: Final = ("target_ref", "what", "key", "wanted_minor", "found_minor", "detail")
CHANGES: Final = ("meter_id", "account_id", "rule_id", "net_minor", "would_be_minor", "difference_minor")
TOTALS: Final = (
    "meters", "charged_minor", "credited_minor", "would_charge_minor", "would_credit_minor", "not_comparable",
)  # fmt: skip
Json = dict[str, Any]
Say = Callable[[str], None]


def say(line: str) -> None:
    """Progress, for a person who waits."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


async def verified(api: Api, subject: str, data: Json, tell: Say = say) -> Json:
    """All pages of a verification; `valid` where nothing is wrong."""
    checked, wrong, count = Counter[str](), list[Json](), 0
    cursor: str | None = ""
    while cursor is not None:
        page = await api.ask(subject, {**data, "cursor": cursor} if cursor else data)
        checked.update(page["checked"])
        wrong, count, cursor = (wrong + page["wrong"])[:MOST], count + page["wrong_count"], page["cursor"]
        tell(f"{', '.join(f'{checked[name]} {name}' for name in ('meters', 'payments', 'accounts'))}; {count} wrong")
    tell("")
    return {"valid": not count, "checked": dict(checked), "wrong_count": count, "wrong": wrong}


async def backtested(api: Api, subject: str, data: Json, tell: Say = say) -> Json:
    """All pages of a backtest: totals, by rule, and the rentals that would differ most."""
    totals, rules, changes = Counter[str](), dict[str, Counter[str]](), list[Json]()
    cursor: str | None = ""
    page: Json = {}
    while cursor is not None:
        page = await api.ask(subject, {**data, "cursor": cursor} if cursor else data)
        totals.update({name: page[name] for name in TOTALS})
        for rule, counts in page["rules"].items():
            rules.setdefault(rule, Counter()).update(counts)
        changes = sorted(changes + page["changes"], key=lambda row: -abs(row["difference_minor"]))[:MOST]
        cursor = page["cursor"]
        tell(f"{totals['meters']} rentals")
    tell("")
    named = {name: page.get(name) for name in ("policy_version", "policy_sha256")}
    return {
        **named, **{name: totals[name] for name in TOTALS},
        "rules": [{"rule_id": rule, **counts} for rule, counts in sorted(rules.items())], "changes": changes,
    }  # fmt: skip


def verdict_page(answer: Mapping[str, Any], width: int | None) -> str:
    """What was checked, and what is wrong."""
    head = tables.record({"valid": answer["valid"], **answer["checked"], "wrong": answer["wrong_count"]})
    return f"{head}\n\n{tables.table(answer['wrong'], WRONG, width)}" if answer["wrong"] else head


def backtest_page(answer: Mapping[str, Any], width: int | None) -> str:
    """What was, what would have been, by which rules, and for whom it differs."""
    was = answer["charged_minor"] - answer["credited_minor"]
    would = answer["would_charge_minor"] - answer["would_credit_minor"]
    head = tables.record({
        "policy": answer["policy_version"], "sha256": answer["policy_sha256"], "rentals": answer["meters"],
        "not comparable": answer["not_comparable"],
        "charged": f"{amount(answer['charged_minor'], None)} → {amount(answer['would_charge_minor'], None)}",
        "given back": f"{amount(answer['credited_minor'], None)} → {amount(answer['would_credit_minor'], None)}",
        "net": f"{was} → {would} ({would - was:+d} minor units)",
    })  # fmt: skip
    parts = [head, "", "By rule", tables.table(answer["rules"], ("rule_id", "meters", "credited_minor"), width)]
    if answer["changes"]:
        parts += ["", "What would differ most", tables.table(answer["changes"], CHANGES, width)]
    return "\n".join(parts)
