"""Attachments by rental, namespace and node: what prechecks and ends ask of the others.

An index over committed states, rebuilt at a start. An attachment that committed while its rental was ending is told so.
"""

import heapq
from collections.abc import Iterator, Mapping

from msgspec import Struct

from actors.allocation.state import Allocation
from actors.attachment.state import HOLDING, Attachment
from actors.between import LeaveNode
from actors.tables import DebtRow
from amends.runtime.engine import Engine
from amends.turn.decision import Decision
from amends.turn.messages import Envelope
from supervisors.indexing import all_of

ENDED = ("detached", "failed")
ENDING = ("releasing", "released", "failed")  # of the rental


class Known(Struct, frozen=True):
    """One that has not ended."""

    allocation_id: str
    namespace_id: str
    node_id: str
    mode: str
    mount_path: str
    state: str
    lost: bool


class Attachments:
    """Follows committed turns."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}
        self._by: dict[tuple[str, str], set[str]] = {}  # (what, name) → attachments
        self._debts: dict[str, dict[str, str]] = {}  # node → {debt: attachment}
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Follow this engine's committed turns."""
        self._engine = engine
        engine.listeners.append(self.follow)

    async def load(self) -> None:
        """Take in what lives."""
        assert self._engine is not None
        async for attachment_id, state in all_of(self._engine, "attachment"):
            self._take_in(attachment_id, state)

    def of_allocation(self, allocation_id: str) -> list[str]:
        """Those that are not settled: neither ended nor given up."""
        found = self._named("allocation", allocation_id)
        return [each for each in found if self._known[each].state != "detach_failed"]

    def of_namespace(self, namespace_id: str) -> list[str]:
        """All that have not ended."""
        return self._named("namespace", namespace_id)

    def writers_of(self, namespace_id: str) -> list[str]:
        """Those of them that may write, or may once they are attached; not what is only asked for."""
        found = self._named("namespace", namespace_id)
        return [each for each in found if self._known[each].mode == "rw" and self._known[each].state != "requested"]

    def mounts_on(self, node_id: str) -> list[tuple[str, str, str]]:
        """(attachment, path, state) of all that are on the node, or will be; not what is only asked for."""
        found = ((each, self._known[each]) for each in self._named("node", node_id))
        return [(each, known.mount_path, known.state) for each, known in found if known.state != "requested"]

    def on(self, node_id: str) -> list[str]:
        """All of the node that have not ended."""
        return self._named("node", node_id)

    def mounting_on(self, node_id: str) -> list[str]:
        """Those that are being mounted there."""
        return [each for each in self._named("node", node_id) if self._known[each].state == "mounting"]

    def expected_mounts(self, node_id: str) -> list[str]:
        """Those whose mount may stay on the node."""
        found = self._named("node", node_id)
        return [each for each in found if self._known[each].state in HOLDING and not self._known[each].lost]

    def is_owed(self, node_id: str) -> bool:
        """Whether the node owes an unmount."""
        return bool(self._debts.get(node_id))

    def owed(self, node_id: str) -> list[str]:
        """Whose unmount the node owes."""
        return sorted(self._debts.get(node_id, {}).values())

    @property
    def debts(self) -> int:
        """How many unmounts all nodes owe."""
        return sum(map(len, self._debts.values()))

    def load_debt(self, row: DebtRow) -> None:
        """Take in a debt of a mount as it stands now."""
        debts = self._debts.setdefault(row.node_id, {})
        if row.settled_us is None:
            debts[row.debt_id] = row.attachment_id or ""
        else:
            debts.pop(row.debt_id, None)

    def around(self, node_id: str, others: int) -> dict[str, Known]:
        """Those of the node, and of each of their namespaces so many, those that may write before all."""
        names = self._named("node", node_id)
        for namespace_id in {self._known[each].namespace_id for each in names}:
            of_it = self._by["namespace", namespace_id]
            names += heapq.nsmallest(others, of_it, key=lambda each: (self._known[each].mode != "rw", each))
        return {each: self._known[each] for each in names}

    def debts_of(self, node_id: str) -> dict[str, str]:
        """The unmounts that the node owes: debt → attachment."""
        return dict(self._debts.get(node_id, {}))

    def load_known(self, known: Mapping[str, Known], node_id: str, debts: dict[str, str]) -> None:
        """Take in what another index knows of a node and its namespaces."""
        for each, one in known.items():
            self._index(each, one)
        self._debts[node_id] = debts

    def follow(self, decision: Decision) -> None:
        """A turn has committed."""
        if decision.kind.name != "attachment" or not isinstance(decision.state, Attachment):
            return
        before = self._known.get(decision.id)
        self._take_in(decision.id, decision.state)
        if before is None or before.state != decision.state.state:  # once for each state, not for each answer
            self._leave(decision.id, decision.state)

    def _leave(self, attachment_id: str, state: Attachment) -> None:
        """Its rental began to end while this one was being decided: nobody else would tell it."""
        if state.state not in ("validated", "granted", "mounting", "attached") or self._engine is None:
            return
        allocation = self._engine.store.get("allocation", state.allocation_id)
        if allocation is None or (isinstance(allocation, Allocation) and allocation.state in ENDING):
            lost = isinstance(allocation, Allocation) and allocation.failure_code in ("node_offline", "node_rebooted")
            cause = "node_lost" if lost else "release"
            self._engine.tell("attachment", attachment_id, Envelope(LeaveNode(cause), priority=True))

    def _take_in(self, attachment_id: str, state: object) -> None:
        known = self._known.pop(attachment_id, None)
        if known is not None:
            for key in _keys(known):
                self._by[key].discard(attachment_id)
                if not self._by[key]:
                    del self._by[key]
        if not isinstance(state, Attachment) or state.state in ENDED:
            return
        lost = state.leaving.cause in ("node_lost", "acknowledged")
        known = Known(
            state.allocation_id,
            state.namespace_id,
            state.node_id or "",
            state.mode,
            state.mount_path,
            state.state,
            lost,
        )
        self._index(attachment_id, known)

    def _index(self, attachment_id: str, known: Known) -> None:
        self._known[attachment_id] = known
        for key in _keys(known):
            self._by.setdefault(key, set()).add(attachment_id)

    def _named(self, what: str, name: str) -> list[str]:
        return sorted(self._by.get((what, name), ()))


def _keys(known: Known) -> Iterator[tuple[str, str]]:
    yield "allocation", known.allocation_id
    yield "namespace", known.namespace_id
    yield "node", known.node_id
