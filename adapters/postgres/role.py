"""The role the runtime works as: it reads and writes the tables, and can neither change them nor switch triggers off.

The DSN's role owns the database and migrates it. Where it may make roles it makes this one, and the runtime's sessions
take it when they connect. Such a session is still the owner's, and `SET ROLE NONE` gives that back: this keeps mistakes
and injected statements from the schema and the triggers, not somebody who holds the DSN. `docs/security.md` says so.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

import asyncpg

from adapters.postgres.statements import statement, statements

log = logging.getLogger("amends.lease")
OWNER_S = frozenset(
    ("lease", "schema_migration", "schema_views", "runtime_epoch", "archived", "kept_evaluation")
)  # tables that only the owner's sessions write
_WRITES = (
    ("INSERT", re.compile(r"\bINSERT INTO (\w+)")),
    ("UPDATE", re.compile(r"\bUPDATE (\w+) SET\b")),
    ("UPDATE", re.compile(r"\bINSERT INTO (\w+)(?=.*\bDO UPDATE\b)", re.DOTALL)),
    ("UPDATE", re.compile(r"\bFROM (\w+)(?=.*\bFOR UPDATE\b)", re.DOTALL)),
    ("DELETE", re.compile(r"\bDELETE FROM (\w+)")),
)


def needed() -> Mapping[str, set[str]]:
    """Table → what our statements do to it beside reading."""
    found: dict[str, set[str]] = {}
    for text in statements().values():
        for privilege, pattern in _WRITES:
            for table in pattern.findall(text):
                if table not in OWNER_S:
                    found.setdefault(table, set()).add(privilege)
    return found


async def runtime_role(connection: "asyncpg.Connection[Any]") -> str:
    """Make the role if it is missing and give it what it needs; "" where the owner may not, which the log says."""
    facts = await connection.fetchrow(statement("role_facts"))
    assert facts is not None
    name, quoted = facts["name"], facts["quoted"]
    if facts["superuser"]:
        log.warning("the role of the DSN is a superuser; it should own the database and be none (docs/security.md)")
    try:
        if not facts["there"]:
            await connection.execute(f"CREATE ROLE {quoted} NOLOGIN")
        if not facts["member"]:
            await connection.execute(f"GRANT {quoted} TO {facts['owner']}")
        async with connection.transaction():
            await connection.execute(f"GRANT TEMPORARY ON DATABASE {facts['database']} TO {quoted}")
            for line in _grants(quoted, facts["schema"]):
                await connection.execute(line)
            await connection.execute(f"SET LOCAL ROLE {quoted}")
            await connection.fetchval(statement("read_head"))
    except asyncpg.InsufficientPrivilegeError as error:
        log.info("the runtime works as the database's owner, who may not make the role %s: %s", name, error)
        return ""
    return str(name)


def _grants(role: str, schema: str) -> list[str]:
    lines = [f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema}, public_v1 FROM {role}"]
    lines.append(f"GRANT USAGE ON SCHEMA {schema}, public_v1 TO {role}")
    lines.append(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema}, public_v1 TO {role}")
    lines.append(f"GRANT EXECUTE ON FUNCTION amends_add_months() TO {role}")
    lines += [f"GRANT {', '.join(sorted(what))} ON {table} TO {role}" for table, what in sorted(needed().items())]
    return lines
