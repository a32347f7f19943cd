"""Guards against mass error: where too large a share of a failure domain is silent, no verdict is passed (A7).

Counted per value of the domain's label and over all ("*"): nodes that are silent now, and those sent offline within the
last `offline_after_ms`, of all that are neither registered nor retired. Who is held may be released by an operator;
otherwise a hold ends when the share drops. Verdicts pass a token bucket besides. Pure but for its counts: it is told
everything, time included.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from amends.values.limits import Limits

ALL = "*"


class Counts:
    """One domain, or all."""

    __slots__ = ("held", "lost", "silent", "total")

    def __init__(self) -> None:
        self.total = 0
        self.silent = 0
        self.lost: deque[float] = deque()  # when nodes were sent offline, in monotonic seconds
        self.held = False


class Guards:
    """All failure domains. Times in monotonic seconds."""

    def __init__(self, limits: Limits) -> None:
        self._percent, self._least = limits("mass_offline_percent"), limits("mass_offline_min_nodes")
        self._window_s, self._per_s = limits("offline_after_ms") / 1000, limits("verdicts_per_s")
        self._tokens, self._filled = float(self._per_s), 0.0
        self._domains: dict[str, Counts] = {ALL: Counts()}
        self._of: dict[str, str] = {}  # node → its domain
        self._silent: dict[str, dict[str, None]] = {}  # domain → its silent nodes

    def watch(self, node_id: str, domain: str) -> None:
        """The node counts, in this domain."""
        known = self._of.get(node_id)
        if known == domain:
            return
        was_silent = known is not None and node_id in self._silent.get(known, {})
        self.forget(node_id)
        self._of[node_id] = domain
        for counts in self._counts(domain):
            counts.total += 1
        if was_silent:
            self.silent(node_id)

    def forget(self, node_id: str) -> None:
        """The node counts no more."""
        domain = self._of.get(node_id)
        if domain is None:
            return
        self.heard(node_id)
        del self._of[node_id]
        for counts in self._counts(domain):
            counts.total -= 1

    def silent(self, node_id: str) -> None:
        """Nothing is heard of it."""
        domain = self._of.get(node_id)
        if domain is None:
            return
        of_domain = self._silent.setdefault(domain, {})
        if node_id not in of_domain:
            of_domain[node_id] = None
            for counts in self._counts(domain):
                counts.silent += 1

    def heard(self, node_id: str) -> None:
        """It is heard, or silent no more for another reason."""
        domain = self._of.get(node_id)
        if domain is not None and node_id in self._silent.get(domain, {}):
            del self._silent[domain][node_id]
            for counts in self._counts(domain):
                counts.silent -= 1

    def lost(self, node_id: str, now: float) -> None:
        """It was sent offline."""
        self.heard(node_id)
        for counts in self._counts(self._of.get(node_id, "")):
            counts.lost.append(now)

    def _counts(self, domain: str) -> tuple[Counts, Counts]:
        return self._domains[ALL], self._domains.setdefault(domain, Counts())

    # --- judging -------------------------------------------------------------------------------------

    def look(self, now: float) -> Iterator[tuple[str, Counts]]:
        """Count again; the domains whose hold has begun or ended, "*" only where it is not one domain alone."""
        for domain, counts in self._domains.items():
            while counts.lost and counts.lost[0] <= now - self._window_s:
                counts.lost.popleft()
            gone = counts.silent + len(counts.lost)
            held = gone >= self._least and gone * 100 > self._percent * counts.total
            held = held and not (domain == ALL and len(self._domains) <= 2)
            if held != counts.held:
                counts.held = held
                yield domain, counts

    def restore(self, domains: Iterable[str]) -> None:
        """Holds of before this start: they end as any other does."""
        for domain in domains:
            self._domains.setdefault(domain, Counts()).held = True

    def holds(self, domain: str) -> bool:
        """Whether no verdict may be passed in the domain."""
        counts = self._domains.get(domain)
        return self._domains[ALL].held or (counts is not None and counts.held)

    def domain_of(self, node_id: str) -> str:
        """The domain that a node counts in."""
        return self._of.get(node_id, "")

    def held_nodes(self, domain: str | None, node_ids: Iterable[str] | None) -> list[str]:
        """The silent nodes that are held now: of a domain ("*" or none: of all), of these."""
        named = set(node_ids) if node_ids is not None else None
        wanted = sorted(self._silent) if domain is None or domain == ALL else [domain]
        return [
            node_id
            for each in wanted
            if self.holds(each)
            for node_id in self._silent.get(each, {})
            if named is None or node_id in named
        ]

    def token(self, now: float) -> bool:
        """Whether a verdict may be passed now: so many a second."""
        self._tokens = min(float(self._per_s), self._tokens + (now - self._filled) * self._per_s)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
