"""What a random world came to: as plain data, and as a page for people."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from supervisors.matrix import ROWS
from supervisors.simulation.fault_kinds import BY_NAME
from supervisors.simulation.random_world import Found

OUTCOMES: Final = ("recovered", "failed", "degraded", "open")
WIDE: Final = 44


def summary(found: Found) -> dict[str, Any]:
    """All of it as data: counts, minor units of the policy's currency, simulated hours, seconds of a core."""
    wish, rows = found.wish, found.world.database.tables.rows
    runs: dict[str, Counter[str]] = {}
    for run in rows["recovery_run"].values():
        outcome = run["final_outcome"] or "open"
        runs.setdefault(run["matrix_row"], Counter())[outcome if run["ended_us"] is not None else "open"] += 1
    entries = list(rows["ledger_entries"].values())
    of_meters = [row for row in entries if row["meter_id"]]
    credits_by_rule = Counter[str]()
    for row in of_meters:
        if row["entry_type"] == "credit":
            overrun = ":overrun:" in row["idempotency_key"]
            credits_by_rule["overrun" if overrun else row["rule_id"] or "none"] += row["amount_minor"]
    cases = Counter(row["kind"] for row in rows["ops_case"].values() if row["state"] != "resolved")
    return {
        "seed": wish.seed, "nodes": wish.nodes, "hours": round(found.simulated_s / 3600, 3),
        "customers": found.customers, "runtimes": found.runtimes, "crashes": found.crashes, "events": found.events,
        "digest": found.digest, "rows": {row: dict(runs[row]) for row in sorted(runs)},
        "faults": dict(sorted(found.faults.items())),
        "currency": found.world.policy.currency,
        "debits_minor": sum(row["amount_minor"] for row in of_meters if row["entry_type"] == "debit"),
        "credits_minor": dict(sorted(credits_by_rule.items())),
        "open_debts": sum(row["settled_us"] is None for row in rows["debts"].values()),
        "open_cases": dict(sorted(cases.items())), "rests": found.rests, "checks": found.checks,
        "violations": [msgspec.structs.asdict(each) for each in found.violations],
        "seconds": round(found.took_s, 3),
        "hours_per_s": round(found.simulated_s / 3600 / found.took_s, 3) if found.took_s else 0,
    }  # fmt: skip


def page(said: dict[str, Any]) -> str:
    """The same for people."""
    names = {row.id: row.name for row in ROWS}
    lines = [
        f"seed {said['seed']}: {said['hours']:g} simulated hours, {said['nodes']} nodes, {said['customers']} customers",
        f"{said['runtimes']} runtimes, {said['crashes']} crashes, {said['events']} events",
        f"digest {said['digest']}",
        "",
        _line("what failed", ("runs", *OUTCOMES)),
    ]
    for row, counts in said["rows"].items():
        cells = [sum(counts.values()), *(counts.get(outcome, 0) for outcome in OUTCOMES)]
        lines.append(_line(f"{row} {names[row]}", cells))
    fired = sum(said["faults"].values())
    lines += ["", f"faults: {fired} of {sum(count > 0 for count in said['faults'].values())} kinds"]
    lines += [f"{count:7d}  {name}: {BY_NAME[name].what}" for name, count in said["faults"].items()]
    given = ", ".join(f"{rule} {amount}" for rule, amount in said["credits_minor"].items()) or "nothing"
    open_cases = ", ".join(f"{count} {kind}" for kind, count in said["open_cases"].items()) or "none"
    lines += [
        "",
        f"debits   {said['debits_minor']} minor units of {said['currency']}",
        f"credits  {given}",
        f"open     debts: {said['open_debts']}; cases: {open_cases}",
        *_verdict(said),
        f"{said['hours_per_s']:g} simulated hours a second of a core ({said['seconds']:.1f} s)",
    ]
    return "\n".join(lines)


def _line(name: str, cells: Sequence[object]) -> str:
    return f"{name:<{WIDE}}" + "".join(f"{cell!s:>11}" for cell in cells)


def _verdict(said: dict[str, Any]) -> list[str]:
    broken = said["violations"]
    if not broken:
        return [f"invariants: none broken, at {said['rests']} rests and {said['checks']} other moments"]
    return [f"BROKEN   {each['name']} {each['ref']}: {each['what']}" for each in broken] + [
        f"what led to it: amends simulate … --replay {said['seed']}, with the same other options"
    ]
