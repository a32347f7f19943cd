"""Boot ids under which nodes were lately heard: tells a reboot from two machines that share a name.

A node hears of a change at most once a second, however fast its heartbeats alternate; what happened in between is
told with the next one. Nothing is kept of a node whose boot id does not change.
"""

from msgspec import Struct

TELL_S = 1.0
REMEMBERED = 8  # boot ids of one node; a machine that reboots faster than this forgets its oldest


class _Changes(Struct):
    heard: dict[str, float]  # boot id → when it was last the node's
    told_at: float
    rival: str = ""  # a boot id it came back from, not yet told


class BootIds:
    """All nodes whose boot id has changed within `window_s` seconds. Times are monotonic seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._changes: dict[str, _Changes] = {}
        self._untold: set[str] = set()
        self._prune_at = 0.0

    def changed(self, node_id: str, was: str, boot_id: str, now: float) -> None:
        """The node was heard with another boot id than the last time."""
        changes = self._changes.get(node_id)
        if changes is None:
            changes = self._changes[node_id] = _Changes({}, now - TELL_S)
        heard = changes.heard
        heard[was] = now
        last = heard.pop(boot_id, None)
        if last is not None and now - last <= self._window_s:
            changes.rival = was
        while len(heard) > REMEMBERED:
            del heard[min(heard, key=heard.__getitem__)]
        self._untold.add(node_id)

    def due(self, now: float, node_id: str = "") -> list[tuple[str, str]]:
        """(node, rival or "") of those, or of this one, to be told now; each is told once."""
        self._prune(now)
        asked = (self._untold & {node_id}) if node_id else self._untold
        found = [each for each in sorted(asked) if now - self._changes[each].told_at >= TELL_S]
        told = []
        for each in found:
            changes = self._changes[each]
            told.append((each, changes.rival))
            changes.told_at, changes.rival = now, ""
            self._untold.discard(each)
        return told

    def forget(self, node_id: str) -> None:
        """The node is no more."""
        self._changes.pop(node_id, None)
        self._untold.discard(node_id)

    def _prune(self, now: float) -> None:
        if now < self._prune_at:
            return
        self._prune_at = now + max(TELL_S, self._window_s / 4)
        old = [each for each, changes in self._changes.items() if now - changes.told_at > self._window_s]
        for each in old:
            if each not in self._untold:
                del self._changes[each]
