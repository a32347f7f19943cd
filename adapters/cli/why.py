"""`amends why ID`: what happened to one entity, on one screen, and which commands settle what is still owed.

State row, steps, failures, then each recovery run with its actions and compensations, then debts and cases.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

from adapters.cli import tables
from adapters.cli.client import PAGE, Api
from adapters.cli.verbs import Verb
from amends.values.text import printable

RUNS: Final = 10
STEPS: Final = 200
CASES: Final = 20
SAID: Final = 10  # of so many of the newest steps that did not go well, what was said is shown whole
TRACE: Final = re.compile(r"[0-9a-f]{32}")
# Prefix of an id → the entity that it is …
PREFIXES: Final = {
    "alloc": "allocation", "attach": "attachment", "ntf": "notification", "evt": "outbox", "meter": "meter",
}  # fmt: skip
# … or the entity whose row names the one concerned, and the columns that do so.
POINTERS: Final = {
    "case": ("ops_case", ("target_ref",)),
    "step": ("step", ("entity",)),
    "recov": ("recovery_run", ("entity",)),
    "debt": ("debt", ("attachment_id", "allocation_id")),
    "grant": ("provider_grant", ("namespace_id",)),
    "fail": ("failure", ("recovery_trace_id",)),
    "act": ("recovery_action", ("recovery_trace_id",)),
    "comp": ("compensation", ("recovery_trace_id",)),
}
LEADING: Final = frozenset(entity for entity, _ in POINTERS.values())  # `step:step_…` is what `step_…` is
# An entity → the request field that names it in the commands of its cases.
FIELD_OF: Final = {
    "allocation": "allocation_id", "node": "node_id", "notification": "notification_id", "outbox": "outbox_id",
    "domain": "domain", "account": "account_id", "payment": "payment_id",
    "attachment": "attachment_id", "namespace": "namespace_id",
}  # fmt: skip

# What cases are about that is no entity of a table: a stream of the bus, nodes of one label.
ROWLESS: Final = ("stream", "domain")
# Cases about what is on an entity, by its kind: their targets begin with it.
PARTS: Final = {
    "node": ("restored_unknown", "world_difference"), "namespace": ("world_difference",),
    "account": ("world_difference",),
}  # fmt: skip

# Options beside the required ones without which a case's command would be refused: of an update, and of giving a node
# up that still owes something. `{…}` stands in the case's evidence.
QUOTED: Final = '"…"'
UPDATE: Final = "--host {host} --port {port} --host-key @NEW_HOST_KEY.pub"
LOST: Final = "--acknowledge-lost"
CUSTOMER: Final = "--stripe-customer {customer}"
DOMAIN: Final = "--domain {domain}"


class Story(Struct):
    """What is known of an entity: all that is open, and the newest of the rest.

    `runs` hold their failures, actions and compensations; `earlier` counts what is left out, by field.
    """

    ref: str
    state: dict[str, Any]
    steps: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    debts: list[dict[str, Any]] = []
    cases: list[dict[str, Any]] = []
    settle: list[str] = []
    earlier: dict[str, int] = {}


async def tell(api: Api, identifier: str, verbs: Iterable[Verb]) -> Story | None:
    """The story of what `identifier` names; None if nothing is known by that name. `verbs` may settle a case."""
    found = await find(api, identifier)
    if found is None:
        return None
    kind, name, row = found
    ref = f"{kind}:{name}"
    story = Story(ref, row)
    steps, more_steps = await api.newest("step", STEPS, lambda step: step["state"] == "intended", entity=ref)
    runs, more_runs = await api.newest("recovery_run", RUNS, lambda run: not run["ended_us"], entity=ref)
    on_it, more_cases = await api.newest("ops_case", CASES, lambda case: case["state"] != "resolved", target_ref=ref)
    story.earlier = {"steps": more_steps, "runs": more_runs, "cases": more_cases}
    story.steps = _by(steps, "started_us")
    cases = {case["case_id"]: case for case in on_it}
    if kind == "stream":  # its runs and cases are those of its events
        runs = [run for run in await api.rows("recovery_run", limit=PAGE, matrix_row="R01") if not run["ended_us"]]
        poisoned = await api.rows("ops_case", limit=PAGE, kind="outbox_poison")
        cases = {case["case_id"]: case for case in poisoned if case["state"] != "resolved"}
    for run in _by(runs, "started_at"):
        story.runs.append(await _told(api, run))
        of = await api.rows("ops_case", recovery_trace_id=run["recovery_trace_id"])
        cases |= {case["case_id"]: case for case in of}
    if kind in ("allocation", "node", "attachment"):
        story.debts = await api.rows("debt", limit=STEPS, **{f"{kind}_id": name})
    for of_parts in PARTS.get(kind, ()):
        found_there = await api.rows("ops_case", limit=PAGE, kind=of_parts)
        here = [case for case in found_there if str(case["target_ref"]).startswith(f"{ref}/")]
        cases |= {case["case_id"]: case for case in here if case["state"] != "resolved"}
    if kind == "node":
        owing = [debt.get("attachment_id") or debt.get("allocation_id") for debt in story.debts]
        story.settle = [f"amends why {each}" for each in owing if each]
    story.cases = _by(list(cases.values()), "opened_us")
    story.settle += [line for case in story.cases for line in settle_lines(case, row, verbs)]
    return story


async def _told(api: Api, run: dict[str, Any]) -> dict[str, Any]:
    """The run with what hangs on it, `earlier` counting what is left out."""
    told: dict[str, Any] = {**run, "earlier": {}}
    for name, table, order in (
        ("failures", "failure", "timestamp"),
        ("actions", "recovery_action", "sequence"),
        ("compensations", "compensation", "sequence"),
    ):
        rows, told["earlier"][name] = await api.newest(
            table, STEPS, lambda _: False, recovery_trace_id=run["recovery_trace_id"]
        )
        told[name] = _by(rows, order)
    return told


async def find(api: Api, identifier: str) -> tuple[str, str, dict[str, Any]] | None:
    """Kind, name and row of the entity that an id, a name or `kind:id` means."""
    kind, found, name = identifier.partition(":")
    if found and kind in LEADING:
        return await find(api, name)
    if found and kind == "stripe_event":
        row = await api.row(kind, name)
        return await _existing(api, ("payment",), str(row["payment_id"])) if row is not None else None
    if found and kind in ROWLESS:
        return kind, name, await _stream(api) if kind == "stream" else {}
    if found:
        return await _existing(api, (kind,), _whole(kind, name))
    if TRACE.fullmatch(identifier):
        return await _of_run(api, identifier)
    prefix, made, _ = identifier.partition("_")
    if made and prefix in POINTERS:
        entity, columns = POINTERS[prefix]
        row = await api.row(entity, identifier)
        if row is not None:
            target = next((str(row[one]) for one in columns if row.get(one)), "")
            return await find(api, target) if target else None
    # People name nodes and accounts, and may have chosen what begins like one of our ids.
    minted = (PREFIXES[prefix],) if made and prefix in PREFIXES else ()
    if minted:
        identifier = await api.named(minted[0], identifier)
    return await _existing(api, (*minted, "node", "account", "namespace"), identifier)


async def _stream(api: Api) -> dict[str, Any]:
    """What is known of the stream of events: what waits for it, and what an operator is called for."""
    waiting = {
        f"events_{state}": len(await api.rows("outbox", limit=PAGE, state=state)) for state in ("pending", "parked")
    }
    return {name: f"{count} and more" if count == PAGE else count for name, count in waiting.items()}


async def _existing(api: Api, kinds: Iterable[str], name: str) -> tuple[str, str, dict[str, Any]] | None:
    for kind in kinds:
        row = await api.row(kind, name)
        if row is not None:
            return kind, name, row
    return None


async def _of_run(api: Api, trace_id: str) -> tuple[str, str, dict[str, Any]] | None:
    runs = await api.rows("recovery_run", recovery_trace_id=trace_id, limit=1)
    return await find(api, str(runs[0]["entity"])) if runs else None


async def target(api: Api, case: Mapping[str, Any]) -> dict[str, Any]:
    """The row of the entity that a case is about, {} if there is none to be asked for."""
    kind, name = _of(case)
    return (await api.row(kind, name) or {}) if kind in FIELD_OF and kind not in ROWLESS else {}


def _of(case: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and name of what a case is about; of what is on a node the node's."""
    kind, _, name = str(case.get("target_ref", "")).partition(":")
    return kind, _whole(kind, name)


def _whole(kind: str, name: str) -> str:
    """The name of an entity without what is on it; a label's value is what it is."""
    return name.partition("/")[0] if kind in PARTS else name


class Settling(Struct):
    """A command that may settle a case: its verb (None: this client knows none), and what is known of its fields."""

    subject: str
    verb: Verb | None
    known: Mapping[str, str]
    beside: str = ""

    def line(self) -> str:
        """As it is typed."""
        return command_line(self.verb, self.known, self.beside) if self.verb is not None else self.subject


def settle_lines(case: Mapping[str, Any], row: Mapping[str, Any], verbs: Iterable[Verb]) -> list[str]:
    """The command lines that may settle an open case, ids filled in as far as they are known."""
    return [each.line() for each in settling(case, row, verbs)]


def settling(case: Mapping[str, Any], row: Mapping[str, Any], verbs: Iterable[Verb]) -> list[Settling]:
    """The commands that may settle an open case; `row` is of the entity that it is about."""
    if case.get("state") == "resolved":
        return []
    kind, name = _of(case)
    known = {FIELD_OF.get(kind, ""): name, "case_id": str(case["case_id"])}
    evidence = _plain(case.get("evidence"))
    if isinstance(evidence, dict) and evidence.get("payment"):
        known["payment_id"] = str(evidence["payment"])
    for source in (row, evidence if isinstance(evidence, dict) else {}):
        fields = ("node_id", "host", "port", "account_id", "currency", "customer", "namespace_id")
        known |= {field: str(source[field]) for field in fields if source.get(field) and field not in known}
    subjects = [str(subject) for subject in _plain(case.get("commands")) or []]
    owes = kind != "node" or row.get("dirty")
    if kind == "node" and owes:
        # Refused until its debts are settled: those say how, and a person may acknowledge them by a word of its own.
        subjects = [subject for subject in subjects if subject != "ops.node.return_to_service"]
    beside = {"ops.node.update": UPDATE, "ops.node.retire": LOST if owes else "", "ops.detector.confirm": DOMAIN}
    if known.get("customer"):
        beside["cmd.account.create"] = CUSTOMER
    senders = {verb.subject: verb for verb in verbs}
    return [
        Settling(subject, senders.get(subject), _of_command(subject, known), beside.get(subject, ""))
        for subject in subjects
    ]


def _of_command(subject: str, known: Mapping[str, str]) -> Mapping[str, str]:
    """What of it the command is about: whose a payment is only the operator knows."""
    return {key: known[key] for key in known if (subject, key) != ("ops.payment.assign", "account_id")}


def command_line(verb: Verb, known: Mapping[str, str], beside: str) -> str:
    """The command line of a verb, with what is known of its fields."""
    words = ["amends", verb.words]
    for field in verb.fields:
        if not field.option:
            words.append(_typed(known.get(field.name, "")) or field.name.upper())
        elif field.required:
            words.append(f"{field.option} {_typed(known.get(field.name, '')) or QUOTED}")
    if beside:
        given = {name: _typed(value) or QUOTED for name, value in known.items()}
        words.append(beside.format_map({"host": "HOST", "port": "22", **given}))
    return " ".join(words)


def _typed(value: str) -> str:
    """A value as a shell takes it, "" for what cannot be typed."""
    return shlex.quote(value) if value and value.isprintable() else ""


def screen(story: Story, width: int | None) -> str:
    """The story as text."""
    parts = [f"{story.ref}", tables.record({k: v for k, v in story.state.items() if v not in (None, "", [])})]
    step_columns = ("started_us", "name", "attempt", "state", "code", "step_id")
    parts += ["", "Steps" + _left_out(story.earlier, "steps"), tables.table(story.steps, step_columns, width)]
    parts += _next_tries(story.steps)
    parts += _said(story.steps)
    if story.earlier.get("runs"):
        parts += ["", "Recoveries" + _left_out(story.earlier, "runs")]
    if not story.runs:
        parts += ["", "No failure and no recovery run."]
    for run in story.runs:
        parts += ["", *_run(run, width)]
    if story.debts:
        columns = ("debt_id", "node_id", "kind", "target_ref", "attempts", "since_us")
        parts += ["", "Owed", tables.table(story.debts, columns, width)]
    if story.cases:
        listed = ("case_id", "kind", "target_ref", "state", "opened_us")
        parts += ["", "Cases" + _left_out(story.earlier, "cases"), tables.table(story.cases, listed, width)]
    if story.settle:
        parts += ["", "What settles it", *(f"  {printable(line)}" for line in dict.fromkeys(story.settle))]
    return "\n".join(parts)


def _next_tries(steps: list[dict[str, Any]]) -> list[str]:
    """When what waits is tried again; a retry command has it tried at once."""
    lines = [
        f"  {step.get('name')}, try {step.get('attempt')}: {tables.moment(step['next_attempt_us'])}"
        for step in steps
        if step.get("state") == "intended" and step.get("next_attempt_us")
    ]
    return ["", "Next try due", *map(printable, lines)] if lines else []


def _said(steps: list[dict[str, Any]]) -> list[str]:
    """The words of steps that did not go well, as a table would cut them: a failed probe has no other record."""
    bad = [step for step in steps if step.get("state") in ("failed", "unknown") and step.get("message")]
    lines = [
        f"  {tables.shown('started_us', step.get('started_us'))}  {step.get('name')}  {step.get('code') or '-'}: "
        f"{step['message']}"
        for step in bad[-SAID:]
    ]
    more = f" (the newest {SAID} of {len(bad)})" if len(bad) > SAID else ""
    return ["", f"What failed steps said{more}", *map(printable, lines)] if lines else []


def _run(run: Mapping[str, Any], width: int | None) -> list[str]:
    outcome = run.get("final_outcome") or "open"
    head = f"Recovery {run.get('matrix_row')}: {outcome}, trace {run.get('recovery_trace_id')}"
    lines = [printable(head)]
    if run["failures"]:
        columns = ("timestamp", "failure_type", "code", "component", "message")
        lines += ["Failures" + _left_out(run["earlier"], "failures"), tables.table(run["failures"], columns, width)]
    doings = ("sequence", "action_type", "target_ref", "outcome", "duration_ms")
    lines += ["Actions" + _left_out(run["earlier"], "actions"), tables.table(run["actions"], doings, width)]
    if run["compensations"]:
        undone = ("sequence", "compensation_type", "compensated_action_type", "target_ref", "outcome")
        lines += [
            "Compensations" + _left_out(run["earlier"], "compensations"),
            tables.table(run["compensations"], undone, width),
        ]
    return lines


def _left_out(earlier: Mapping[str, int], what: str) -> str:
    """Behind a heading: how many there are beside those that follow."""
    count = earlier.get(what, 0)
    return f" ({count} earlier {what} left out)" if count else ""


def _by(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row.get(column) is None, row.get(column) or 0))


def _plain(value: Any) -> Any:
    """JSON columns come as objects or as their text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
