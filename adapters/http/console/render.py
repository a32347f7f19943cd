"""Templates, and how values are shown in them. Everything is escaped; nothing of a page's content is ever code."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

# The page of what an id is: by its prefix, or by the kind in front of it.
PAGES = {
    "allocation": "allocations", "alloc": "allocations", "attachment": "attachments", "attach": "attachments",
    "node": "nodes", "account": "accounts", "namespace": "namespaces", "case": "cases", "notification": "notifications",
    "ntf": "notifications", "outbox": "outbox", "evt": "outbox", "meter": "meters", "payment": "payments",
}  # fmt: skip
LINKED = {
    "allocation_id", "node_id", "account_id", "attachment_id", "namespace_id", "case_id", "meter_id", "entity",
    "target_ref", "allocated_to", "reserved_by", "notification_id", "payment_id", "outbox_id",
}  # fmt: skip
NAMED = {"node_id": "nodes", "account_id": "accounts", "namespace_id": "namespaces", "payment_id": "payments"}
LONGEST = 2_000


def moment(us: Any) -> Markup:
    """Microseconds since 1970 as a time in UTC; "–" for none."""
    try:
        at = datetime.fromtimestamp(int(us) / 1e6, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return escape("–" if us is None else us)
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3])


def money(minor: Any, exponent: int | None) -> str:
    """Minor units as people write them; as they are where nobody knows how many digits they have (None)."""
    if not isinstance(minor, int):
        return "–"
    if exponent is None:
        return f"{minor:,} minor units of"
    return f"{minor / 10**exponent:,.{exponent}f}"


def href(kind_or_column: str, name: str) -> str:
    """Where the page of that is, "" where there is none."""
    if kind_or_column in NAMED:
        return f"/{NAMED[kind_or_column]}/{_quoted(name)}"
    kind, found, rest = name.partition(":")
    if found:
        return f"/{PAGES[kind]}/{_quoted(rest.partition('/')[0])}" if kind in PAGES else ""
    prefix = name.partition("_")[0]
    return f"/{PAGES[prefix]}/{_quoted(name)}" if "_" in name and prefix in PAGES else ""


def cell(row: Mapping[str, Any], column: str) -> Markup:
    """A value of a row as its column's name says it is meant."""
    value = row.get(column)
    if value is None or value == "":
        return escape("–")
    if column.endswith(("_us", "timestamp")) and isinstance(value, int):
        return moment(value)
    if column in LINKED and isinstance(value, str) and (where := href(column, value)):
        return Markup('<a href="{}">{}</a>').format(where, plain(value))
    if column == "rate_uminor_per_hour" and isinstance(value, int):
        whole, rest = divmod(value, 1_000_000)
        return escape(f"{whole:,}.{rest // 10_000:02} minor units an hour")
    if column == "recovery_trace_id":
        return Markup('<a href="/runs/{0}">{0}</a>').format(value)
    if column in ("state", "outcome", "final_outcome"):
        return Markup('<span class="s s-{}">{}</span>').format(_word(str(value)), value)
    return escape(plain(value))


def plain(value: Any) -> str:
    """A value as text, of a bounded length."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return "".join(one if one.isprintable() or one in "\n\t" else "?" for one in shown)  # nothing turns a line around


def heading(column: str) -> str:
    """A column's name as words."""
    for end in ("_us", "_minor", "_uminor_per_hour"):
        column = column.removesuffix(end)
    return column.replace("_", " ")


def searched(entity: str) -> str:
    """The query by which Jaeger finds all traces of an entity."""
    return urlencode({"service": "amends", "tags": json.dumps({"amends.entity": entity})})


def _word(text: str) -> str:
    return "".join(one for one in text if one.isascii() and (one.isalnum() or one in "-_"))


def _quoted(text: str) -> str:
    return quote(text, safe="")


def environment(jaeger_url: str = "") -> Environment:
    """The templates of this package; `jaeger_url`: where traces are shown, "" for nowhere."""
    made = Environment(
        loader=PackageLoader("adapters.http.console"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    made.filters |= {"moment": moment, "money": money, "plain": plain, "heading": heading, "urlpart": _quoted}
    made.globals |= {"cell": cell, "href": href, "jaeger": jaeger_url.rstrip("/"), "searched": searched}
    return made
