"""The database was restored: what it says of a node may be old, so nobody is sent there before its agent was asked.

Every living node is told at the first start after `amends restore`, and keeps the number of that restore; below it the
pool assigns no node. Its inventory is read by itself (`reconcile`); what is unknown there stays (`inventory`). One that
is registered after a restore may be a machine that the database has forgotten: it is looked at likewise.
"""

from actors.between import RESTORED_BY
from actors.facts import facts
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


def registered(d: Decision) -> None:
    """A registered node has been heard and probed: `ready`, unless nobody has looked at it since a restore."""
    number = facts(d).restored
    if d.state.restored >= number:
        d.to("ready", cause="probe")
        return
    d.set(restored=number)
    operations.quarantine(d, inventory.REASON, reason="registered after a restore")
    reconcile.read_inventory(d)
