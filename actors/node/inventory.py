"""What is on a node that the database does not know, after a restore: a case each, and nothing is taken away.

The users of customers' rentals that began after the backup, and what an agent has mounted since. The node's reason
`restored` stands until its inventory was read; with cases of this open it stands until an operator lets the node back.
"""

import re
from collections.abc import Iterable, Mapping

from actors.node.state import Node
from amends.turn.cases import close_case, open_case
from amends.turn.decision import Decision

REASON, UNKNOWN = "restored", "restored_unknown"
NAMED_AT_ONCE = 32  # an agent names as much as it likes; the rest is counted
NAMES = {"user": re.compile(r"am-[0-9a-z]{26}"), "mount": re.compile(r"[a-z]{2,12}_[0-9a-z]{26}")}


def is_owed(s: Node) -> bool:
    """Whether the node's inventory must be read before anything else is done on its way back."""
    return REASON in s.quarantine_reasons and not any(_unknown(s))


def look(d: Decision, found: Mapping[str, list[str]], expected: Mapping[str, list[str]]) -> bool:
    """Open a case for each thing that nobody expects; whether there is any."""
    unknown = [
        (kind, name)
        for kind, shape in NAMES.items()
        for name in found[f"{kind}s"]
        if shape.fullmatch(name) and name not in expected[f"{kind}s"]
    ]
    more = len(unknown) - NAMED_AT_ONCE
    for kind, name in unknown[:NAMED_AT_ONCE]:
        evidence = {"node_id": d.id, "found": kind, "name": name}
        open_case(
            d, UNKNOWN, f"node:{d.id}/{kind}:{name}", evidence={**evidence, "more": more} if more > 0 else evidence
        )
    return bool(unknown)


def gone(d: Decision) -> None:
    """None of it is there any more, as the node's inventory says."""
    for target in list(_unknown(d.state)):
        close_case(d, UNKNOWN, "the node is reconciled", target)


def _unknown(s: Node) -> Iterable[str]:
    """What the open cases are about."""
    return (key.partition(" ")[2] for key in s.cases if key.startswith(f"{UNKNOWN} "))
