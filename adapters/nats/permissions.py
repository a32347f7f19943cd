"""Who may say what on NATS (api.md 10), as a table, and the nats-server configuration made from it.

docs/security.md shows what `configuration` makes, and the demo's server runs with it.
"""

import json
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

INBOX: Final = "_INBOX.>"


class Permissions(Struct, frozen=True):
    """Subjects; `{id}` stands for the node or provider. Empty `publish`: replies only."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


STREAMS: Final = ("AMENDS_EVT", "AMENDS_NTF")

# The runtime too may say only what it says: an answer is published with its rights (`answers.py`).
ROLES: Final[Mapping[str, Permissions]] = {
    "runtime": Permissions(
        (
            "amends.v1.evt.>",
            "amends.v1.ntf.>",
            "amends.v1.task.*",
            "amends.v1.provider.>",
            "amends.v1.canary.*",
            *(f"$JS.API.STREAM.{verb}.{name}" for name in STREAMS for verb in ("INFO", "CREATE")),
            INBOX,
            "_R_.>",
        ),
        (
            "amends.v1.cmd.>",
            "amends.v1.qry.>",
            "amends.v1.ops.>",
            "amends.v1.ingress.stripe",
            "amends.v1.hb.*",
            "amends.v1.result.*",
            "amends.v1.canary.*",
            "$SRV.>",
            INBOX,
        ),
    ),
    "node": Permissions(("amends.v1.hb.{id}", "amends.v1.result.{id}"), ("amends.v1.task.{id}",)),
    "provider": Permissions((), ("amends.v1.provider.{id}.>",)),
    "front": Permissions(("amends.v1.cmd.>", "amends.v1.qry.>", "amends.v1.ingress.stripe"), (INBOX,)),
    "operator": Permissions(("amends.v1.ops.>", "amends.v1.cmd.>", "amends.v1.qry.>", "$SRV.>"), (INBOX,)),
    "streams": Permissions(("$JS.API.>", "$JS.ACK.>"), (INBOX,)),
}


def configuration(users: Mapping[str, str]) -> str:
    """The `authorization` block for `users`: name → password, as nats-server reads it (quoted, or a $VARIABLE).

    A name is `runtime`, `front`, `operator`, `streams`, `node-<id>` or `provider-<id>`; ValueError for another one.
    """
    entries = "".join(_entry(name, password) for name, password in users.items())
    return f"authorization {{\n  users = [\n{entries}  ]\n}}\n"


def _entry(name: str, password: str) -> str:
    head = f"    {{ user: {name}, password: {password}"
    role, _, identifier = name.partition("-")
    found = ROLES.get(role)
    if found is None or bool(identifier) != any("{id}" in subject for subject in found.subscribe):
        raise ValueError(f"{name!r} is no user: runtime, front, operator, streams, node-<id> or provider-<id>")
    subjects = [
        f"publish: {_quoted(found.publish, identifier)}" if found.publish else "allow_responses: true",
        f"subscribe: {_quoted(found.subscribe, identifier)}",
    ]
    lines = "\n".join(f"        {line}" for line in subjects)
    return f"{head}, permissions: {{\n{lines} }} }}\n"


def _quoted(subjects: tuple[str, ...], identifier: str) -> str:
    return json.dumps([subject.replace("{id}", identifier) for subject in subjects])
