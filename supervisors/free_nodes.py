"""Free nodes and waiting requests, each found by labels without a look at all the others (first come, first served).

Both know nothing but names, labels and the order of arrival, so what they answer depends on that order alone.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from msgspec import Struct

Labels = Mapping[str, str]
Pair = tuple[str, str]
T = TypeVar("T")


class Wanted(Struct, frozen=True):
    """What a request asks of its node: all these label pairs, and ("" for any) this very node."""

    pairs: frozenset[Pair] = frozenset()
    node_id: str = ""

    def fits(self, node_id: str, labels: Labels) -> bool:
        """Whether that node will do."""
        if self.node_id and self.node_id != node_id:
            return False
        return all(labels.get(name) == value for name, value in self.pairs)


class FreeNodes(Generic[T]):
    """Nodes in the order in which they became free, and the same for each label pair.

    One pair, or none, is answered by the head of a list; of several the rarest pair's nodes are looked through.
    """

    def __init__(self) -> None:
        self._nodes: OrderedDict[str, tuple[T, Labels]] = OrderedDict()
        # Ordered dicts: taking the first again and again costs a plain one a walk over all that were taken before.
        self._by_pair: dict[Pair, OrderedDict[str, None]] = {}

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def names(self) -> list[str]:
        """All of them, in the order in which they became free."""
        return list(self._nodes)

    def add(self, node_id: str, labels: Labels, node: T) -> None:
        """It is free; one that was free already keeps its place, unless its labels are others now."""
        known = self._nodes.get(node_id)
        if known is not None and known[1] != labels:
            self.take(node_id)
            known = None
        self._nodes[node_id] = (node, labels)
        if known is None:
            for pair in labels.items():
                self._by_pair.setdefault(pair, OrderedDict())[node_id] = None

    def take(self, node_id: str) -> T | None:
        """It is free no more; what was added with it, None if it was not free."""
        found = self._nodes.pop(node_id, None)
        if found is None:
            return None
        for pair in found[1].items():
            of_pair = self._by_pair[pair]
            del of_pair[node_id]
            if not of_pair:
                del self._by_pair[pair]
        return found[0]

    def labels(self, node_id: str) -> Labels:
        """The labels of a free node."""
        return self._nodes[node_id][1]

    def first(self, wanted: Wanted) -> str | None:
        """The node that has been free longest of those that fit; None if none does."""
        candidates: Iterable[str] = (wanted.node_id,) if wanted.node_id else self._rarest(wanted.pairs)
        for node_id in candidates:
            found = self._nodes.get(node_id)
            if found is not None and wanted.fits(node_id, found[1]):
                return node_id
        return None

    def _rarest(self, pairs: frozenset[Pair]) -> Iterable[str]:
        if not pairs:
            return self._nodes
        return min((self._by_pair.get(pair, OrderedDict[str, None]()) for pair in pairs), key=len)


class WaitingRequests(Generic[T]):
    """Requests in the order in which they came, those that want the same in one list.

    A node looks at what could want it: lists under its own name, under its label pairs, and of those who take any.
    """

    def __init__(self) -> None:
        self._came = 0
        self._requests: OrderedDict[str, tuple[int, Wanted, T]] = OrderedDict()
        self._alike: dict[Wanted, OrderedDict[str, None]] = {}
        self._under: dict[str | Pair | None, dict[Wanted, None]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._requests

    def __iter__(self) -> Iterator[str]:
        return iter(self._requests)

    def add(self, name: str, wanted: Wanted, request: T) -> None:
        """It waits; one that waited already keeps its place."""
        if name in self._requests:
            return
        self._came += 1
        self._requests[name] = (self._came, wanted, request)
        if wanted not in self._alike:
            self._alike[wanted] = OrderedDict()
            self._under.setdefault(_place(wanted), {})[wanted] = None
        self._alike[wanted][name] = None

    def take(self, name: str) -> T | None:
        """It waits no more; what was added with it, None if it did not wait."""
        found = self._requests.pop(name, None)
        if found is None:
            return None
        _, wanted, request = found
        alike = self._alike[wanted]
        del alike[name]
        if not alike:
            del self._alike[wanted]
            place = self._under[_place(wanted)]
            del place[wanted]
            if not place:
                del self._under[_place(wanted)]
        return request

    def wanted(self, name: str) -> Wanted:
        """What it asks for."""
        return self._requests[name][1]

    def first(self, node_id: str, labels: Labels) -> str | None:
        """The request that has waited longest of those that this node fits; None if none does."""
        best: tuple[int, str] | None = None
        for place in (None, node_id, *labels.items()):
            for wanted in self._under.get(place, ()):
                name = next(iter(self._alike[wanted]))
                came = self._requests[name][0]
                if (best is None or came < best[0]) and wanted.fits(node_id, labels):
                    best = (came, name)
        return best[1] if best is not None else None


def _place(wanted: Wanted) -> str | Pair | None:
    """Where those who want this are looked for: the node's name, one of the label pairs, or None for any node."""
    return wanted.node_id or min(wanted.pairs, default=None)
