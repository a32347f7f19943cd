"""The outsiders' views: their columns, and of which type these are, without a database."""

import re
from typing import Final

from adapters.postgres import statements

BOOLEANS: Final = frozenset(("cleanup_pending", "dirty", "exported", "rw_blocked"))
INTEGERS: Final = frozenset((
    "attempt", "attempts", "cleanup_attempts", "epoch", "flap_count", "jseq", "propagation_hop", "seq", "sequence",
    "version",
))  # fmt: skip
JSON: Final = frozenset(("booked", "waiting",
    "access", "attributes", "commands", "details", "drift", "events", "evidence", "labels", "links", "metadata", "net",
    "quarantine_reasons", "resource",
))  # fmt: skip
VIEW: Final = re.compile(r"CREATE (?:OR REPLACE )?VIEW public_v1\.(\w+) AS\s+SELECT\s(.*?);", re.DOTALL)


def _items(text: str) -> list[str]:
    """The parts of a SELECT's list: split at commas of its own, up to its FROM."""
    parts, depth, start = [], 0, 0
    for found in re.finditer(r"[(),]|'[^']*'|\bFROM\b|\bCASE\b|\bEND\b", text):
        token = found[0]
        depth += {"(": 1, ")": -1, "CASE": 1, "END": -1}.get(token, 0)
        if depth == 0 and token in (",", "FROM"):
            parts.append(text[start : found.start()])
            start = found.end()
            if token == "FROM":  # noqa: S105 - a word of SQL
                return parts
    raise ValueError(f"a view without FROM: {text[:60]}")


def views() -> dict[str, list[str]]:
    """View → its columns in order."""
    text = re.sub(r"--[^\n]*", "", statements.views())
    return {name: [re.findall(r"\w+", item)[-1] for item in _items(body)] for name, body in VIEW.findall(text)}


def column_type(name: str) -> str:
    """The database's type of a view's column, as its name says; tests/docs/test_asyncapi.py asks the database."""
    if name in BOOLEANS:
        return "boolean"
    if name in INTEGERS or name.endswith(("_us", "_ms", "_minor", "_per_hour", "_bytes")):
        return "bigint"
    return "json" if name in JSON else "text"
