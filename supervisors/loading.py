"""What the fleet's indexes know at a start: assignments, debts, and when each node was last heard."""

import logging
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from actors.node.state import Node
from actors.tables import AssignmentRow, DebtRow, MeterRow, NodeSeenRow, NodesSeenRow
from amends.ports.journal import Journal
from amends.runtime.store import Store
from amends.values.errors import BadConfiguration
from supervisors.pool import Pool
from supervisors.stored_policy import read_leniently

log = logging.getLogger("amends.fleet")
FOREVER_US = 1 << 62
_seen = msgspec.json.Decoder(dict[str, tuple[str, int]])
RESTORE = "restore"


class Restore(Struct, frozen=True):
    """The mark of `amends restore` in the database: a document of this kind. Numbers only grow."""

    number: int
    reason: str
    at_us: int


async def last_restore(journal: Journal) -> Restore | None:
    """The last restore that the database was marked with."""
    marks = [msgspec.json.decode(body, type=Restore) for body in (await journal.documents(RESTORE)).values()]
    return max(marks, key=lambda mark: mark.number, default=None)


async def load_pool(pool: Pool, journal: Journal) -> None:
    """Assignments and debts."""
    async for ties in journal.live_rows(AssignmentRow):
        for tie in ties:
            pool.load_assignment(tie.allocation_id, tie.node_id, tie.state)
    async for debts in journal.live_rows(DebtRow):
        for debt in debts:
            if debt.kind == "mount":
                pool.attachments.load_debt(debt)
            else:
                pool.load_debt(debt.debt_id, debt.node_id, debt.allocation_id or "")
    async for meters in journal.live_rows(MeterRow):
        for meter in meters:
            if meter.policy_sha256 not in pool.policies:
                raise BadConfiguration(
                    f"the meter {meter.meter_id} is open under the policy {meter.policy_version} "
                    f"({meter.policy_sha256[:12]}…), which is not stored or cannot be read"
                )
            pool.meters.take_in(meter)


async def load_ended(pool: Pool, journal: Journal, beats: Mapping[str, int]) -> None:
    """Rentals that have ended after their node's last beat (`beats`): its loss would concern them."""
    async for ties in journal.rows_after(AssignmentRow, min(beats.values(), default=FOREVER_US)):
        for tie in ties:
            if tie.state == "ended" and (tie.ended_us or 0) > beats.get(tie.node_id, FOREVER_US):
                pool.load_ended(tie.allocation_id, tie.node_id, tie.ended_us or 0)


async def load_policies(pool: Pool, journal: Journal) -> None:
    """The policies under which meters were ever opened; what is no policy at all is left out."""
    for sha256, body in (await journal.documents("policy")).items():
        if sha256 in pool.policies:
            continue
        try:
            pool.policies[sha256], mended = read_leniently(body)
        except BadConfiguration as error:
            log.warning("the policy %s cannot be read, and no meter may be open under it: %s", sha256, error)
            continue
        if mended:
            log.warning("the policy %s was taken by an older release; put right of it: %s", sha256, "; ".join(mended))


async def load_seen(journal: Journal, store: Store) -> dict[str, int]:
    """When each node was last heard, as checkpointed since it was registered: its state knows the last change only."""
    seen: dict[str, int] = {}

    def take(node_id: str, boot_id: str, us: int) -> None:
        node = store.get("node", node_id)
        if isinstance(node, Node) and us >= node.registered_us and _is_its_word(node, boot_id):
            seen[node_id] = max(us, seen.get(node_id, 0))

    async for part in journal.live_rows(NodeSeenRow):
        for row in part:
            take(row.node_id, row.boot_id, row.last_heartbeat_us)
    async for parts in journal.live_rows(NodesSeenRow):
        for found in parts:
            for node_id, (boot_id, us) in _seen.decode(found.seen).items():
                take(node_id, boot_id, us)
    return seen


def _is_its_word(node: Node, boot_id: str) -> bool:
    """What another boot said is no word of the one that the node is known by: money hangs on that.

    Of two machines under one name nobody can tell whose word it is; either says that the node lives, as it does to a
    detector that hears them.
    """
    return boot_id in ("", node.boot_id) or "identity_conflict" in node.quarantine_reasons
