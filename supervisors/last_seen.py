"""The table of last heartbeats: when each node was last heard, as which boot, and whether it has fallen silent since.

The detector keeps it; decisions and the pool only ask it.
"""

from math import inf


class Seen:
    """One node: heard at `at` (seconds of the detector's time) and `us` (microseconds since the epoch).

    `due`: when it is looked at next; infinite while nobody waits for anything of it.
    """

    __slots__ = ("at", "boot_id", "due", "silent", "us")

    def __init__(self, boot_id: str, at: float, us: int, *, silent: bool) -> None:
        self.boot_id, self.at, self.us, self.silent = boot_id, at, us, silent
        self.due = inf


class LastSeen:
    """All nodes that were heard, or are waited for."""

    def __init__(self) -> None:
        self.nodes: dict[str, Seen] = {}

    def is_heard(self, node_id: str) -> bool:
        """Whether the node is heard and not silent."""
        seen = self.nodes.get(node_id)
        return seen is not None and not seen.silent

    def heard_boot(self, node_id: str) -> str:
        """The boot id of the node's last heartbeat, "" if it was not heard since the start."""
        seen = self.nodes.get(node_id)
        return seen.boot_id if seen is not None else ""

    def last_seen_us(self, node_id: str) -> int:
        """When the node was last heard; 0 if never."""
        seen = self.nodes.get(node_id)
        return seen.us if seen is not None else 0
