"""Who may say what on NATS (api.md 10), as a table, and the nats-server configuration made from it.

docs/security.md shows what `configuration` makes, and the demo's server runs with it. Answers go to inboxes, and each
user may hear its own alone: `_INBOX_<user>.>`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from amends.values.inboxes import inbox_prefix

INBOX: Final = "{inbox}.>"  # the user's own
INBOXES: Final = "{inboxes}"  # of everybody whom the runtime answers
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")


class Permissions(Struct, frozen=True):
    """Subjects; `{id}` stands for the node or provider. Empty `publish`: replies only.

    `named`: whether a user of that role is `<role>` ("no"), `<role>-<id>` ("yes"), or either ("may").
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    named: str = "no"
    asks: bool = False  # the runtime answers it


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
            INBOXES,
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
    "node": Permissions(("amends.v1.hb.{id}", "amends.v1.result.{id}"), ("amends.v1.task.{id}",), named="yes"),
    "provider": Permissions((), ("amends.v1.provider.{id}.>",), named="yes"),
    "front": Permissions(
        ("amends.v1.cmd.>", "amends.v1.qry.>", "amends.v1.ingress.stripe"), (INBOX,), named="may", asks=True
    ),
    "operator": Permissions(
        ("amends.v1.ops.>", "amends.v1.cmd.>", "amends.v1.qry.>", "$SRV.>"), (INBOX,), named="may", asks=True
    ),
    "streams": Permissions(("$JS.API.>", "$JS.ACK.>"), (INBOX,)),
}
_WHO: Final = "runtime, streams, front, operator, front-<id>, operator-<id>, node-<id> or provider-<id>"


def configuration(users: Mapping[str, str], inbox_prefixes: Iterable[str] = ()) -> str:
    """The `authorization` block for `users`: name → password, as nats-server reads it (quoted, or a $VARIABLE).

    A name is `runtime`, `streams`, `front`, `operator`, one of these two with `-<id>`, `node-<id>` or `provider-<id>`;
    ValueError for another one. The runtime may answer all that ask, and below `inbox_prefixes` (`_INBOX_other`).
    """
    prefixes = [inbox_prefix(name) for name in users if _role(name).asks]
    inboxes = [f"{prefix.rstrip('.')}.>" for prefix in (*prefixes, *inbox_prefixes)]
    entries = "".join(_entry(name, password, inboxes) for name, password in users.items())
    return f"authorization {{\n  users = [\n{entries}  ]\n}}\n"


def _role(name: str) -> Permissions:
    role, dash, identifier = name.partition("-")
    found = ROLES.get(role)
    allowed = {"no": (not dash,), "yes": (bool(identifier),), "may": (not dash, bool(identifier))}
    if found is None or not _TOKEN.fullmatch(name) or True not in allowed[found.named]:
        raise ValueError(f"{name!r} is no user: {_WHO}")
    return found


def _entry(name: str, password: str, inboxes: list[str]) -> str:
    found = _role(name)
    subjects = [
        f"publish: {_subjects(found.publish, name, inboxes)}" if found.publish else "allow_responses: true",
        f"subscribe: {_subjects(found.subscribe, name, inboxes)}",
    ]
    lines = "\n".join(f"        {line}" for line in subjects)
    return f"    {{ user: {name}, password: {password}, permissions: {{\n{lines} }} }}\n"


def _subjects(subjects: tuple[str, ...], name: str, inboxes: list[str]) -> str:
    found: list[str] = []
    for subject in subjects:
        if subject == INBOXES:
            found += inboxes
        else:
            found.append(subject.replace("{inbox}", inbox_prefix(name)).replace("{id}", name.partition("-")[2]))
    return json.dumps(found)
