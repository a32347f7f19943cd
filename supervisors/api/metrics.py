"""`/metrics`: what the parts of a runtime count, under one table of names (docs/telemetry.md)."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from actors.differences import CASE as DIFFERENCE
from amends.kernel import Kernel
from amends.runtime.breaker import Breaker
from amends.runtime.requests import Requests
from amends.values.histogram import Histogram
from amends.values.metrics import Metric, Number, Sample
from supervisors.api.counts import STATED, Counts
from supervisors.api.objectives import Objectives
from supervisors.api.services import Services
from supervisors.api.webhooks import Webhooks
from supervisors.detector import Detector
from supervisors.pool import Pool

Samples = Sequence[tuple[dict[str, str], Number]]


class Beats(Protocol):
    """Heartbeats as they arrive."""

    received: int
    malformed: int
    dropped: int
    unspoken: int


class Served(Protocol):
    """The command service."""

    @property
    def took(self) -> Mapping[str, Histogram]:
        """How long requests took, by role."""
        ...


class Dropping(Protocol):
    """Who takes a request or drops it."""

    dropped: int


class Export(Protocol):
    """The exporter of spans."""

    @property
    def exported(self) -> int:
        """Spans acknowledged."""
        ...

    @property
    def rejected(self) -> int:
        """Spans refused for good."""
        ...

    @property
    def failures(self) -> int:
        """Failed attempts in a row."""
        ...


class Metrics:
    """Whose counts are told: the kernel and the fleet, what is alarmed on, requests, heartbeats, spans, services."""

    def __init__(
        self, kernel: Kernel, pool: Pool, detector: Detector, counts: Counts, *, requests: Requests, service: Served,
        answers: Dropping, heartbeats: Beats, exporter: Export, services: Services, webhooks: Webhooks,
        stripe: Breaker | None, objectives: Objectives,
    ) -> None:  # fmt: skip
        self._objective = objectives
        self._webhooks, self._stripe = webhooks, stripe
        self._kernel, self._pool, self._detector, self._counts = kernel, pool, detector, counts
        self._requests, self._service, self._answers = requests, service, answers
        self._heartbeats, self._exporter, self._services = heartbeats, exporter, services

    def samples(self) -> list[Metric]:
        """The samples of this moment."""
        kernel, pool, beats, requests = self._kernel, self._pool, self._heartbeats, self._requests
        engine, writer, policy = kernel.engine, kernel.writer, kernel.engine.policy
        dispatcher, exporter, detector = kernel.dispatcher, self._exporter, self._detector

        def one(name: str, kind: str, purpose: str, value: Number) -> Metric:
            return (f"amends_{name}", kind, purpose, [({}, value)])

        actors = [({"kind": kind}, count) for kind, count in engine.store.counts().items()]
        shared = (writer.breaker, kernel.relay.breaker, *([self._stripe] if self._stripe is not None else []))
        breakers = [({"name": each.name}, int(not each.closed)) for each in shared]
        return [
            *self._alarms(),
            one("epoch", "gauge", "The epoch this runtime holds.", kernel.lease.epoch),
            one("lease_age_seconds", "gauge", "Seconds since the lease was renewed.", round(kernel.lease.age_s, 3)),
            one("turns_total", "counter", "Turns committed by actors.", engine.turns),
            one("commits_total", "counter", "Transactions committed.", writer.commits),
            one("commits_refused_total", "counter", "Batches the database refused.", writer.refused),
            one("turns_waiting", "gauge", "Turns decided and not yet committed.", writer.waiting),
            one("mailbox_messages", "gauge", "Messages waiting in mailboxes.", engine.waiting()),
            ("amends_breaker_open", "gauge", "1 while something shared does not answer.", breakers),
            ("amends_actors", "gauge", "Actors in memory.", actors),
            one("timers_armed", "gauge", "Durable timers that are set.", len(engine.timers)),
            one("steps_running", "gauge", "Steps under way.", dispatcher.running),
            one("steps_waiting", "gauge", "Steps intended and not running.", dispatcher.waiting),
            one(
                "steps_targets_held",
                "gauge",
                "Targets that cannot be reached and are left alone.",
                len(dispatcher.reach),
            ),
            one("steps_started_total", "counter", "Tries of steps begun.", dispatcher.started),
            one("outbox_pending", "gauge", "Events not yet acknowledged.", kernel.relay.pending),
            one("outbox_published_total", "counter", "Events acknowledged.", kernel.relay.published),
            one("notifications_parked", "gauge", "Notifications waiting for the bus.", len(kernel.parked)),
            one("lockouts_open", "gauge", "Released customers who are not locked out.", len(pool.not_locked_out)),
            one("lockouts_failed_total", "counter", "Releases without a lock-out.", pool.lockouts_failed),
            one("heartbeats_total", "counter", "Heartbeats received.", beats.received),
            one("heartbeats_malformed_total", "counter", "Heartbeats that could not be read.", beats.malformed),
            one(
                "heartbeats_dropped_total",
                "counter",
                "Heartbeats that came faster than they were read.",
                beats.dropped,
            ),
            one("heartbeats_unspoken_total", "counter", "Heartbeats of another protocol than ours.", beats.unspoken),
            one("heartbeats_unknown_total", "counter", "Heartbeats of unknown nodes.", detector.unknown),
            one("detector_blind", "gauge", "1 while nobody is judged.", int(detector.blind)),
            one("requests_total", "counter", "Requests taken.", requests.handled),
            one("requests_refused_total", "counter", "Requests refused.", requests.refused),
            one(
                "requests_dropped_total",
                "counter",
                "Requests that wanted their answer elsewhere than in an inbox.",
                self._answers.dropped,
            ),
            one("requests_in_flight", "gauge", "Requests under way.", len(requests.places)),
            *self._payments(),
            one("decide_failures_total", "counter", "Turns whose decision raised.", policy.crashes),
            one("messages_quarantined_total", "counter", "Messages set aside.", policy.quarantined),
            one(
                "spans_exported_total",
                "counter",
                "Spans acknowledged by the receiver.",
                exporter.exported,
            ),
            one("spans_rejected_total", "counter", "Spans the receiver refuses for good.", exporter.rejected),
            one("span_export_failures", "gauge", "Failed attempts in a row to send spans.", exporter.failures),
        ]

    def _payments(self) -> list[Metric]:
        """What Stripe has said."""
        taken, again, waiting = self._webhooks.taken, self._webhooks.duplicates, self._pool.payers.waiting
        return [
            _labelled("webhooks_total", "counter", "Webhooks of Stripe's acknowledged.", [({}, taken)]),
            _labelled(
                "webhooks_duplicate_total", "counter", "Those of them that changed nothing (R06).", [({}, again)]
            ),
            _labelled("payments_waiting", "gauge", "Payments that are deferred.", [({}, waiting)]),
        ]

    def _objectives(self) -> list[Metric]:
        """What is promised: amends in time, nothing held past its end, nothing mis-billed."""
        kept, billing = self._objective, sum(n for name, n in (self._counts.violations or {}).items() if name[0] == "B")
        took = [({"row": row}, histogram) for row, histogram in sorted(kept.took.items())]
        looked = self._counts.violations is not None
        return [
            *_histogram("compensation_seconds", "How long recovery runs took, from beginning to end.", took),
            _labelled("leaked_seconds_total", "counter", "Seconds that settled debts had held a node past its end.",
                      [({}, round(kept.leaked_us / 1e6, 3))]),
            _labelled("oldest_debt_seconds", "gauge", "Age of the oldest debt, 0 for none.",
                      [({}, round(kept.oldest_debt_us() / 1e6, 3))]),
            _labelled("misbilled", "gauge", "Entries and meters that break a rule of billing, every five minutes.",
                      [({}, billing)] if looked else []),
        ]  # fmt: skip

    def _alarms(self) -> list[Metric]:
        """What can be alarmed on."""
        writer, dispatcher = self._kernel.writer, self._kernel.dispatcher
        counts, debts = self._counts, self._pool.debts
        states = {
            kind: [({"state": state}, n) for (of, state), n in sorted(counts.states.items()) if of == kind]
            for kind in STATED
        }
        failures = [({"row": row, "code": code}, n) for (row, code), n in sorted(counts.failures.items())]
        steps = [({"step": name}, histogram) for name, histogram in sorted(dispatcher.took.items())]
        requests = [({"role": role}, histogram) for role, histogram in sorted(self._service.took.items())]
        return [
            _labelled("tasks", "gauge", "Tasks of the event loop.", [({}, len(asyncio.all_tasks()))]),
            _labelled("nodes", "gauge", "Nodes by state; retired ones since the start.", states["node"]),
            _labelled(
                "allocations", "gauge", "Allocations by state; ended ones since the start.", states["allocation"]
            ),
            _labelled(
                "cases_open", "gauge", "Cases that wait for a person, by kind.", _by("kind", counts.open_cases())
            ),
            _labelled(
                "world_differences",
                "gauge",
                "Things in the world that the database does not want, or misses there.",
                [({}, counts.open_cases()[DIFFERENCE])],
            ),
            _labelled("failures_total", "counter", "Failures by matrix row and code.", failures),
            _labelled("debts", "gauge", "Cleanups and mounts that nodes owe.", [({}, debts)]),
            _labelled(
                "invariant_violations",
                "gauge",
                "Rows of invariant_violation by name, every five minutes.",
                _by("name", counts.violations or {}) or [({"name": "any"}, 0)] * (counts.violations is not None),
            ),
            _labelled("restarts_total", "counter", "Services started again.", _by("service", self._services.restarts)),
            *self._objectives(),
            *_histogram("commit_seconds", "How long commits took.", [({}, writer.took)]),
            *_histogram("step_seconds", "How long tries of steps took.", steps),
            *_histogram("request_seconds", "How long requests took, by the role they need.", requests),
        ]


def _labelled(name: str, kind: str, purpose: str, samples: Samples) -> Metric:
    return (f"amends_{name}", kind, purpose, samples)


def _by(label: str, counted: Mapping[str, int]) -> Samples:
    return [({label: name}, count) for name, count in sorted(counted.items())]


def _histogram(name: str, purpose: str, found: list[tuple[dict[str, str], Histogram]]) -> Iterator[Metric]:
    """One histogram as Prometheus has it: buckets with their exemplars, sum and count below one name."""
    samples: list[Sample] = []
    for labels, histogram in found:
        samples += [("_bucket", {**labels, "le": bound}, n, newest) for bound, n, newest in histogram.cumulative()]
        samples += [("_sum", labels, round(histogram.total_s, 6), None), ("_count", labels, histogram.count, None)]
    yield (f"amends_{name}", "histogram", purpose, samples)
