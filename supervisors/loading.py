"""What the fleet's indexes know at a start: assignments, debts, and when each node was last heard."""

from actors.node.state import Node
from actors.tables import AssignmentRow, DebtRow, NodeSeenRow
from amends.ports.journal import Journal
from amends.runtime.store import Store
from supervisors.pool import Pool


async def load_pool(pool: Pool, journal: Journal) -> None:
    """Assignments and debts."""
    async for ties in journal.live_rows(AssignmentRow):
        for tie in ties:
            pool.load_assignment(tie.allocation_id, tie.node_id, tie.state)
    async for debts in journal.live_rows(DebtRow):
        for debt in debts:
            pool.load_debt(debt.debt_id, debt.node_id, debt.allocation_id or "")


async def load_seen(journal: Journal, store: Store) -> dict[str, int]:
    """When each node was last heard, as checkpointed since it was registered: its state knows the last change only."""
    seen: dict[str, int] = {}
    async for part in journal.live_rows(NodeSeenRow):
        for row in part:
            node = store.get("node", row.node_id)
            if isinstance(node, Node) and row.last_heartbeat_us >= node.registered_us:
                seen[row.node_id] = row.last_heartbeat_us
    return seen
