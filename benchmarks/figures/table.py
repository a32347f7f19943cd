"""The figures of `./run bench`: what each is, the floor that it is held to, what is aimed at, and what limits it."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

SERVERS = "both cores are full: see where the time goes"


class Figure(Struct, frozen=True):
    """One figure. `better`: whether more or less of it is better; without a `floor` it is held to none."""

    name: str
    what: str
    unit: str
    floor: float | None = None
    aim: str = ""
    better: Literal["more", "less"] = "less"
    limit: str = ""

    def reached(self, value: float) -> bool | None:
        """Whether the floor is; None without one."""
        if self.floor is None:
            return None
        return value >= self.floor if self.better == "more" else value <= self.floor


MODULES: Sequence[str] = ("lives", "turns", "spans", "memory", "fleet", "verdict", "resume", "rental", "others")
FIGURES: Sequence[Figure] = (
    Figure("lives_happy_512", "three-step lives, 512 in flight, everything running: done", "/s", 5_000,
           "10 × the best peer", "more", SERVERS),
    Figure("lives_compensated_512", "the same, undone", "/s", 3_000, "10 × the best peer", "more", SERVERS),
    Figure("backlog_drain_s", "relay and exporter have caught up after the last life", "s", 30, "3", "less",
           "the last span's way: a read, an encoding, a request"),
    Figure("life_ms_p50_1", "a life, one at a time, median", "ms", 4, "2.5", "less",
           "four commits, one after another, each flushed to the disk"),
    Figure("life_ms_p99_1", "the same, 99 of 100", "ms", 10, "6", "less", "the disk's slowest flushes"),
    Figure("turns_sustained", "durable turns for a minute from an empty database, its slowest part", "/s", 20_000,
           "40 000", "more", "the runtime's core: a turn is decided, sealed and encoded in Python"),
    Figure("commits_per_life_512", "commits for a life that is done", "commits", 0.05, "0.02", "less",
           "how many turns come while a commit is under way"),
    Figure("wal_bytes_per_life", "log that Postgres writes for it", "B", 10_000, "6 000", "less",
           "steps and events are written twice, open and closed, with their indexes"),
    Figure("spans_per_s", "spans from records to acknowledgement, behind and alone", "/s", 15_000, "60 000", "more",
           "Postgres makes a span of its records in about 20 µs; exporter and receiver share the other core"),
    Figure("bytes_per_actor", "resident memory for an idle actor with its real state", "B", 600, "300", "less",
           "the state as bytes, its place in the store and in the indexes of the rental domain"),
    Figure("load_1m_s", "a start with a million actors", "s", 4, "1", "less",
           "one core reads rows, the other indexes them"),
    Figure("heartbeats_per_s", "heartbeats through nats-server into the detector", "/s", 150_000, "400 000", "more",
           "the runtime's core; senders and nats-server share the other one"),
    Figure("detector_core_percent", "the detector with 100 000 nodes, of a core", "%", 2, "0.3", "less",
           "each node is looked at once in its time of suspicion"),
    Figure("verdict_late_ms_p99", "how late a verdict comes then", "ms", 200, "150", "less", "its tick, and a commit"),
    Figure("verdict_late_ms_max", "the latest one", "ms", 400, "250", "less", "who stands before it in the loop"),
    Figure("verdict_to_record_ms", "verdict to committed compensation, one node", "ms", 100, "30", "less",
           "a chain of turns, each with its commit"),
    Figure("resume_first_s", "1 000 open compensations after a kill: the first step", "s", 10, "1", "less",
           "the start of the runtime and its servers"),
    Figure("resume_all_s", "… all converged", "s", 60, "10", "less", "the waits before their next tries"),
    Figure("life_cost_growth", "cost of a life with 10⁶ idle actors beside it ÷ with 10³", "×", 1.15, "1.03", "less",
           "memory that is not in the processor's caches, larger indexes"),
    Figure("rental_ms_p99_200", "a real rental over SSH, 200 at once: request to active", "ms", 2_000, "600", "less",
           "handshakes of SSH on the runtime's core"),
    Figure("peer_dbos_happy_512", "DBOS, done", "/s"), Figure("peer_dbos_compensated_512", "DBOS, undone", "/s"),
    Figure("peer_restate_happy_512", "Restate, done", "/s"),
    Figure("peer_restate_compensated_512", "Restate, undone", "/s"),
)  # fmt: skip
