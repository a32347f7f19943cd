"""A node's epoch after a restore: its agent remembers the highest one of a history that the database has lost."""

import re

from actors.between import RESTORED_BY
from actors.facts import facts
from actors.node.state import Node
from amends.ports.steps import Outcome
from amends.turn.decision import Decision

STALE = re.compile(r"stale node epoch \d{1,18}, highest seen (\d{1,18})")
LEAP = 2**40  # no epoch is that far above another one


def first(d: Decision, before: Node | None) -> int:
    """The epoch of a registration, of an id that was retired or that the database may have forgotten."""
    least = facts(d).restored // RESTORED_BY * RESTORED_BY + 1
    return max(before.epoch + 1 if before is not None else 1, least)


def catch_up(d: Decision, outcome: Outcome) -> None:
    """An agent that refuses the node's epoch says the highest it has seen: the node goes above it, without a loss."""
    found = STALE.fullmatch(outcome.message) if outcome.code == "stale_epoch" else None
    epoch: int = d.state.epoch
    if found is None or not epoch < (highest := int(found[1])) < epoch + LEAP:
        return
    above = epoch + ((highest - epoch) // RESTORED_BY + 1) * RESTORED_BY
    d.audit("node.epoch_raised", reason="its agent has seen a higher one", details={"seen": highest, "is": above})
    d.set(epoch=above)
