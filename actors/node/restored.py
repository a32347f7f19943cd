"""The database was restored: what it says of a node may be old, so nobody is sent there before its agent was asked.

Every living node is told at the first start after `amends restore`, and keeps the number of that restore; below it the
pool assigns no node. Its inventory is read by itself (`reconcile`); what is unknown there stays (`inventory`).
"""

from actors.between import RESTORED_BY
from actors.node import inventory, operations, reconcile
from actors.node.messages import Restored
from actors.node.state import Node
from amends.turn.decision import Decision


def restored(s: Node, m: Restored, d: Decision) -> None:
    """The database was restored since this state was written."""
    if m.number <= s.restored:
        return
    reconcile.forget(d)  # what was asked before, another history was asked for
    d.set(restored=m.number, epoch=s.epoch + RESTORED_BY)
    if s.state == "offline":  # it is quarantined when it is back
        reasons = sorted({*s.quarantine_reasons, inventory.REASON})
        d.set(quarantine_reasons=reasons)
        d.audit("node.quarantine_reason", reason=m.reason, details={"cause": inventory.REASON})
        return
    if "draining" in (
        s.state,
        s.before_suspect,
    ):  # an operator has taken it out of service, and it does not forget that
        operations.quarantine(d, "operator", reason=m.reason)
    operations.quarantine(d, inventory.REASON, reason=m.reason)
    reconcile.read_inventory(d)
