"""What each page shows: a template and its values, asked for in the operator's name."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from adapters.http.console.ports import Desk, Runtime
from adapters.http.console.waterfall import waterfall
from amends.values.errors import Rejected
from amends.values.text import command_line

OPEN: Final = ("open", "retrying")
LIST: Final = 100
MOST: Final = 20_000  # nodes on a page; of a larger fleet those that are well are only counted
WELL: Final = ("ready", "rented")
SLICE: Final = 2_000
FLEET: Final = {"rented": {"allocated_to!": "null"}}  # what the fleet shows that is no state of a node
# Page → entity, columns of its list, the filters that are offered, and the words of its command line.
LISTS: Final[dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]] = {
    "allocations": (
        "allocation", ("allocation_id", "state", "account_id", "node_id", "failure_code", "cleanup_pending",
                       "requested_us", "ended_us"), ("state", "account_id", "node_id", "failure_code"),
    ),
    "attachments": (
        "attachment", ("attachment_id", "state", "allocation_id", "namespace_id", "node_id", "mode", "mount_path",
                       "reason"), ("state", "account_id", "namespace_id", "node_id"),
    ),
    "accounts": ("account", ("account_id", "currency", "stripe_customer_id", "created_us"), ()),
    "namespaces": (
        "namespace", ("namespace_id", "account_id", "provider_id", "state", "quota_bytes", "used_bytes", "quota_flag"),
        ("account_id",),
    ),
    "payments": ("payment", ("payment_id", "account_id", "state", "amount_minor", "currency"), ("state", "account_id")),
    "notifications": (
        "notification", ("notification_id", "kind", "entity", "state", "attempts", "created_us", "sent_us"),
        ("state", "account_id"),
    ),
    "outbox": ("outbox", ("outbox_id", "entity", "subject", "state", "attempts", "created_us"), ("state",)),
    "meters": (
        "meter", ("meter_id", "allocation_id", "account_id", "state", "started_us", "stopped_us", "stop_cause"),
        ("state", "account_id"),
    ),
}  # fmt: skip
# Entity → the commands that its page offers, by its state; a field of them names the entity.
COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "node": ("ops.node.drain", "ops.node.undrain", "ops.node.quarantine", "ops.node.return_to_service",
             "ops.node.retire"),
    "allocation": ("ops.allocation.force_release", "ops.cleanup.retry"),
    "attachment": ("ops.attachment.retry_detach", "ops.attachment.acknowledge_node_lost"),
    "notification": ("ops.notification.redispatch", "ops.notification.cancel"),
    "outbox": ("ops.outbox.redispatch", "ops.outbox.skip"),
}  # fmt: skip


class Asked(Struct):
    """A request for a page: whom to ask, what stands in its address."""

    desk: Desk
    runtime: Runtime
    query: Mapping[str, str]
    name: str = ""


class Page(Struct):
    """A template, its values, the line that shows the same at a terminal, and whether it is shown anew by itself."""

    template: str
    title: str
    values: dict[str, Any]
    line: str = ""
    follows: bool = True


Make = Callable[[Asked], Awaitable[Page]]


async def now(asked: Asked) -> Page:
    """What is open or wrong, and the last hour."""
    cases = await _cases(asked, *OPEN)
    runs = await asked.runtime.ask("qry.recovery_run.list", {"final_outcome": None, "limit": LIST, "order": "newest"})
    values = {"cases": cases, "runs": runs["items"], **asked.desk.now()}
    return Page("now.html", "Now", values, command_line("case", "list"))


async def cases(asked: Asked) -> Page:
    """Those of a state, the open ones at first."""
    state = asked.query.get("state", "")
    found = await _cases(asked, *([state] if state else OPEN))
    return Page("cases.html", "Cases", {"cases": found, "state": state},
                command_line("case", "list", where={"state": state} if state else {}))  # fmt: skip


async def _cases(asked: Asked, *states: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for state in states:
        question = {"state": state, "limit": LIST, "order": "newest"}
        found += (await asked.runtime.ask("ops.case.list", question))["items"]
    return sorted(found, key=lambda case: int(case["opened_us"]), reverse=True)


async def case(asked: Asked) -> Page:
    """One, its evidence, its runbook, and what may settle it."""
    shown = await asked.runtime.ask("ops.case.show", {"case_id": asked.name})
    forms = await asked.runtime.settling(shown["case"])
    desks = [
        asked.desk.form(subject, {"case_id": asked.name}) for subject in ("ops.case.acknowledge", "ops.case.resolve")
    ]
    offered = {form.subject: form for form in [*forms, *filter(None, desks)]}
    closed = shown["case"]["state"] == "resolved"
    values = {"case": shown["case"], "runbook": shown["runbook"], "forms": [] if closed else list(offered.values())}
    return Page("case.html", f"{shown['case']['kind']} {asked.name}", values,
                command_line("case", "show", asked.name))  # fmt: skip


async def runs(asked: Asked) -> Page:
    """The newest recovery runs, of a row or an outcome."""
    row, outcome = asked.query.get("matrix_row", ""), asked.query.get("final_outcome", "")
    question: dict[str, Any] = {"limit": LIST, "order": "newest"}
    given = {name: value for name, value in (("matrix_row", row), ("final_outcome", outcome)) if value}
    question |= {**given, "final_outcome": None} if outcome == "open" else given
    found = await asked.runtime.ask("qry.recovery_run.list", question)
    values = {"runs": found["items"], "row": row, "outcome": outcome}
    typed = {**given, "final_outcome": "null"} if outcome == "open" else given
    return Page("runs.html", "Recovery", values, command_line("recovery-run", "list", where=typed))


async def run(asked: Asked) -> Page:
    """One run as a waterfall, and the others that one failure has begun."""
    found = await _of_run(asked, "recovery_run")
    if not found:
        raise Rejected("not_found", f"there is no recovery run of the trace {asked.name!r}")
    (this,) = found[:1]
    records = {kind: await _of_run(asked, kind) for kind in ("failure", "recovery_action", "compensation")}
    others = []
    if this.get("original_trace_id"):
        question = {"original_trace_id": this["original_trace_id"], "limit": LIST}
        others = (await asked.runtime.ask("qry.recovery_run.list", question))["items"]
    listed = (await asked.runtime.ask("ops.case.list", {"recovery_trace_id": asked.name, "limit": LIST}))["items"]
    values = {
        "run": this, **records, "cases": listed, "others": [each for each in others if each != this],
        "bars": waterfall(this, records["failure"], records["recovery_action"], records["compensation"]),
    }  # fmt: skip
    title = f"Recovery {this.get('matrix_row')} of {this.get('entity')}"
    return Page("run.html", title, values, command_line("why", asked.name))


async def _of_run(asked: Asked, entity: str) -> list[dict[str, Any]]:
    question = {"recovery_trace_id": asked.name, "limit": 500}
    return list((await asked.runtime.ask(f"qry.{entity}.list", question))["items"])


async def fleet(asked: Asked) -> Page:
    """Every node, by site and state."""
    await asked.runtime.ask("qry.node.list", {"limit": 1})  # whoever may not ask for nodes sees none
    state, sites = asked.query.get("state", ""), dict[str, list[Mapping[str, Any]]]()
    counts: dict[str, int] = {}
    nodes, left_out, shown = await asked.desk.fleet(), 0, 0
    for place, node in enumerate(nodes, 1):
        if place % SLICE == 0:
            await asyncio.sleep(0)  # others have the loop between two parts of a large fleet
        name = "rented" if node["held"] and node["state"] in ("ready", "draining") else str(node["state"])
        counts[name] = counts.get(name, 0) + 1
        if state not in ("", name):
            continue
        if shown >= MOST or (not state and len(nodes) > MOST and name in WELL and not node["dirty"]):
            left_out += 1
            continue
        shown += 1
        sites.setdefault(node["site"] or "no site", []).append({**node, "shown": name})
    values = {"sites": dict(sorted(sites.items())), "counts": dict(sorted(counts.items())), "state": state,
              "left_out": left_out}  # fmt: skip
    where = FLEET.get(state) or ({"state": state} if state else {})
    return Page("fleet.html", "Fleet", values, command_line("node", "list", where=where))


def listed(page: str) -> Make:
    """The list of a kind of entity, newest first where ids say so."""
    entity, columns, filters = LISTS[page]

    async def make(asked: Asked) -> Page:
        given = {name: asked.query[name] for name in filters if asked.query.get(name)}
        question: dict[str, Any] = {**given, "limit": LIST, "order": "newest"}
        if cursor := asked.query.get("cursor"):
            question["cursor"] = cursor
        found = await asked.runtime.ask(f"qry.{entity}.list", question)
        values = {
            "rows": found["items"], "columns": columns, "filters": {name: given.get(name, "") for name in filters},
            "page": page, "more": {**given, "cursor": found["cursor"]} if found.get("cursor") else None,
        }  # fmt: skip
        line = command_line(entity.replace("_", "-"), "list", where=given)
        return Page("list.html", page.capitalize(), values, line)

    return make


def shown(page: str) -> Make:
    """One entity: its story, its money, and what may be done about it."""
    entity = "node" if page == "nodes" else LISTS[page][0]

    async def make(asked: Asked) -> Page:
        story = await asked.runtime.story(f"{entity}:{asked.name}")
        if story is None:
            raise Rejected("not_found", f"there is no {entity} {asked.name!r}")
        known = {f"{entity}_id": asked.name}
        forms = [form for subject in COMMANDS.get(entity, ()) if (form := asked.desk.form(subject, known)) is not None]
        question = {"target_ref": f"{entity}:{asked.name}", "limit": LIST, "order": "newest"}
        audits = await asked.runtime.ask("qry.audit_log.list", question)
        values = {"story": story, "forms": forms, "audits": audits["items"], "entity": entity, "name": asked.name,
                  "money": await _money(asked, entity, story.state)}  # fmt: skip
        return Page("entity.html", f"{entity} {asked.name}", values,
                    command_line("why", f"{entity}:{asked.name}"))  # fmt: skip

    return make


async def lost(asked: Asked) -> Page:
    """What it would come to if a node were lost now."""
    found = await asked.runtime.ask("ops.whatif.node_loss", {"node_id": asked.name})
    title = f"If {asked.name} were lost"
    return Page("lost.html", title, {"forecast": found, "name": asked.name},
                command_line("whatif", "node-loss", asked.name), follows=False)  # fmt: skip


async def _money(asked: Asked, entity: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Meters and entries of an allocation, or the statement of an account."""
    if entity == "account":
        statement = await asked.runtime.ask("qry.account.statement", {"account_id": asked.name})
        exponent = statement["minor_unit_exponent"]
        return {"statement": statement, "meters": [], "entries": statement["entries"], "exponent": exponent}
    if entity not in ("allocation", "meter"):
        return {}
    meters = (await asked.runtime.ask("qry.meter.list", {f"{entity}_id": asked.name, "limit": 10}))["items"]
    entries: list[dict[str, Any]] = []
    for meter in meters:
        question = {"meter_id": meter["meter_id"], "limit": 500}
        entries += (await asked.runtime.ask("qry.ledger_entry.list", question))["items"]
    return {"statement": None, "meters": meters, "entries": entries, "exponent": None}


async def matrix(asked: Asked) -> Page:
    """The fourteen rows, with what has come of them."""
    found = await asked.runtime.ask("ops.matrix.show", {})
    return Page("matrix.html", "Matrix", {"matrix": found}, command_line("matrix"))


async def audit(asked: Asked) -> Page:
    """The log, newest first, of an actor, an action or a target."""
    fields = ("actor", "action", "target_ref", "request_id")
    given = {name: asked.query[name] for name in fields if asked.query.get(name)}
    question: dict[str, Any] = {**given, "limit": LIST, "order": "newest"}
    if cursor := asked.query.get("cursor"):
        question["cursor"] = cursor
    found = await asked.runtime.ask("qry.audit_log.list", question)
    verdict = await asked.runtime.ask("ops.audit.verify", {}) if asked.query.get("verify") else None
    values = {
        "rows": found["items"], "filters": {name: given.get(name, "") for name in fields}, "verdict": verdict,
        "more": {**given, "cursor": found["cursor"]} if found.get("cursor") else None,
    }  # fmt: skip
    line = command_line("audit", "verify") if verdict else command_line("audit-log", "list", where=given)
    return Page("audit.html", "Audit", values, line, follows=verdict is None)


async def system(asked: Asked) -> Page:
    """The supervision tree and every figure."""
    tree = await asked.runtime.ask("ops.tree.show", {})
    values = {"tree": tree["tree"], "figures": asked.desk.figures(), **asked.desk.now()}
    return Page("system.html", "System", values, command_line("tree"))


PAGES: Final[dict[str, Make]] = {
    "/": now,
    "/cases": cases,
    "/cases/{name}": case,
    "/runs": runs,
    "/runs/{name}": run,
    "/fleet": fleet,
    "/nodes/{name}": shown("nodes"),
    "/lost/{name}": lost,
    **{f"/{page}": listed(page) for page in LISTS},
    **{f"/{page}/{{name}}": shown(page) for page in LISTS},
    "/matrix": matrix,
    "/audit": audit,
    "/system": system,
}


async def place_of(runtime: Runtime, text: str, href: Callable[[str, str], str]) -> str:
    """The address of the page of whatever was looked for."""
    if text.startswith("case_"):
        return href("", text)
    if re.fullmatch(r"[0-9a-f]{32}", text):
        found = await runtime.ask("qry.recovery_run.list", {"recovery_trace_id": text, "limit": 1})
        if found["items"]:
            return f"/runs/{text}"
    story = await runtime.story(text)
    where = href("", story.ref) if story is not None else ""
    if not where:
        raise Rejected("not_found", f"nothing is known by {text!r}: an id, a name, or kind:id")
    return where
