"""Recovery runs as a decision writes them: actions, compensations, escalations, outcome (`traces.md`).

Sequences are gapless per run (C8). A compensation that succeeds after a failed or partial one of the same target
names it in `metadata.supersedes`. A run never ends `recovered` while an undo is failed or missing (C6).
"""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from amends.domain.kinds import OpenRun, Owed
from amends.domain.matrix import MatrixRow
from amends.turn.cases import CaseState, open_case
from amends.turn.decision import Decision
from amends.turn.messages import StepDone
from amends.values import ids
from amends.values.errors import Bug
from amends.values.records import ActionRow, CompensationRow, FailureRow, RunEndRow, RunRow

FailureType = Literal["error", "timeout", "violation", "resource", "policy"]
ActionType = Literal["retry", "fallback", "compensation", "self_heal", "escalate"]
Result = Literal["success", "failure", "partial"]
CompensationType = Literal["rollback", "cancel", "reverse", "compensate"]
CompensatedType = Literal["decision", "side_effect", "state_change", "external_call"]


class Run:
    """One open recovery run of the deciding entity."""

    def __init__(self, decision: Decision, key: str, run: OpenRun, begun: RunRow | None = None) -> None:
        self._d, self._key, self._run, self._begun = decision, key, run, begun
        decision.recovery_trace_id = run.trace_id

    @classmethod
    def begin(
        cls, d: Decision, row: str, key: str, trigger_type: str, original: tuple[str, str], trigger_ref: str,
        entity: str,
    ) -> "Run":  # fmt: skip
        """Begin the run, or go on with the open one of that key."""
        known = cls.resume(d, key)
        if known is not None:
            return known
        recovery_id = d.mint("recov")
        trace_id = ids.trace_id("recovery", recovery_id)
        begun = RunRow(
            recovery_id, trace_id, row, d.context.matrix.version, d.context.matrix_sha256,
            d.context.policy_sha256, d.now_us, trigger_type, trigger_ref, original[0] or d.trace_id,
            original[1] or d.span_id, entity, d.context.matrix.row(row).name, d.context.epoch,
        )  # fmt: skip
        d.rows.append(begun)
        run = cls(d, key, OpenRun(recovery_id, trace_id, row), begun)
        run._store()
        return run

    @classmethod
    def resume(cls, d: Decision, key: str) -> "Run | None":
        """The open run under `key`, if there is one."""
        known = d.state.runs.get(key)
        return cls(d, key, known) if known is not None else None

    @property
    def row(self) -> MatrixRow:
        """The matrix row of this run."""
        return self._d.context.matrix.row(self._run.row)

    def _check(self, what: str, listed: Iterable[str], kind: str) -> None:
        if what not in listed:
            raise Bug(f"row {self._run.row} of the matrix lists no {kind} {what!r}")

    def tries(self, key: str) -> int:
        """A budget of the row; `Bug` for one that the row does not list."""
        self._check(key, self.row.budget, "budget")
        return self._d.limits(key)

    def wait_us(self, key: str, tries: int) -> int:
        """How long to wait before the next try, by a back-off of the row."""
        self._check(key, self.row.budget, "budget")
        return self._d.limits.delay_us(key, tries, self._d.id)

    @property
    def trace_id(self) -> str:
        """`recovery_trace_id`."""
        return self._run.trace_id

    @property
    def id(self) -> str:
        """`recovery_id`."""
        return self._run.recovery_id

    @property
    def outcome(self) -> str:
        """``""`` while open, else ``degraded``."""
        return self._run.outcome

    def caused_by(self, failure_id: str) -> None:
        """Name the failure that triggered a run begun in this turn; later failures leave it as it is."""
        if self._begun is not None and not self._begun.trigger_ref:
            self._begun.trigger_ref = f"failure:{failure_id}"

    def plan(self) -> tuple[str, tuple[str, str]]:
        """An action id in advance, and the (trace, parent span) under which its real work shall hang."""
        action_id = self._d.mint("act")
        return action_id, (self._run.trace_id, ids.span_id("action", action_id))

    def action(
        self, action_type: ActionType, what: str, target_ref: str, outcome: Result, *,
        duration_ms: int | None = None, metadata: Any = None, action_id: str = "", at_us: int = 0, started_us: int = 0,
    ) -> tuple[str, int]:  # fmt: skip
        """Record one action; returns its id and sequence. It began at `started_us` (0: with its record)."""
        at_us = at_us or self._d.now_us
        sequence = self._run.sequence + 1
        action_id = action_id or self._d.mint("act")
        actor = self._d.env.actor
        operator = actor.partition(":")[2] if actor.startswith("operator:") else ""
        self._d.rows.append(
            ActionRow(
                action_id,
                self._run.trace_id,
                sequence,
                at_us,
                action_type,
                what,
                target_ref,
                outcome,
                duration_ms,
                _json(metadata),
                operator,
                self._d.context.epoch,
                min(started_us or at_us, at_us),
            )
        )
        self._run = msgspec.structs.replace(self._run, sequence=sequence)
        self._store()
        return action_id, sequence

    def retry(self, what: str, target_ref: str, ok: bool, *, attempt: int, duration_ms: int | None = None,
              code: str = "", action_id: str = "") -> None:  # fmt: skip
        """One try of a bounded budget (rule 8): it covers the try that this turn takes in, or that this turn is."""
        metadata = {"attempt": attempt} | ({"code": code} if code else {})
        started_us, ended_us = _tried(self._d)
        if duration_ms is None:
            duration_ms = max(0, (ended_us or self._d.now_us) - started_us) // 1000 if started_us else 0
        self.action(
            "retry",
            what,
            target_ref,
            "success" if ok else "failure",
            duration_ms=duration_ms,
            metadata=metadata,
            action_id=action_id,
            started_us=started_us,
        )

    def compensate(
        self, compensation: CompensationType, undone: CompensatedType, what: str, target_ref: str, outcome: Result,
        *, of: str, cause: str, attempt: int = 1, duration_ms: int | None = None, metadata: Any = None,
        action_id: str = "", supersedes: str = "",
    ) -> None:  # fmt: skip
        """Record a compensation and its action. `of` is `<trace id>:<span id>` of what is compensated.

        `supersedes` names a record of an earlier run that this one settles; within the run it is found by itself.
        Without `duration_ms` it took as long as the try that this turn takes in. A change of state and what is only
        enqueued take no time beside their turn, and a cancellation that does nothing has none.
        """
        started_us, ended_us = (0, 0) if undone == "state_change" else _tried(self._d)
        worked = bool(started_us and ended_us)
        if duration_ms is None and (worked or compensation != "cancel"):
            duration_ms = max(0, ended_us - started_us) // 1000 if worked else 0
        comp_id = self._d.mint("comp")
        self._check(f"{compensation}·{undone}", (*self.row.compensations, *self.row.owed), "compensation")
        earlier = self._run.last.get(target_ref) or supersedes
        metadata = dict(metadata or {})
        if earlier and outcome == "success":
            metadata["supersedes"] = earlier
        action_id, sequence = self.action(
            "compensation", f"{compensation} {what}", target_ref, outcome, duration_ms=duration_ms,
            metadata=metadata, action_id=action_id, started_us=started_us if worked else 0,
        )  # fmt: skip
        self._d.rows.append(
            CompensationRow(
                comp_id,
                action_id,
                self._run.trace_id,
                sequence,
                self._d.now_us,
                of,
                undone,
                compensation,
                target_ref,
                outcome,
                duration_ms,
                _json(metadata),
                self._run.row,
                f"{self._run.row}:{target_ref}:{cause}:{compensation}:{attempt}",
            )
        )
        last = {**self._run.last, target_ref: comp_id}
        self._run = msgspec.structs.replace(self._run, last=last)
        self._store()

    def newest(self, target_ref: str) -> str:
        """The id of the run's newest compensation of that target, "" if there is none."""
        return self._run.last.get(target_ref, "")

    def case(
        self, kind: str, target_ref: str = "", *, evidence: Any = None, state: CaseState = "open", reason: str = ""
    ) -> str:
        """Open or move a case of this run, of a kind that its row lists; returns its id."""
        self._check(kind, self.row.cases, "case")
        return open_case(
            self._d, kind, target_ref, evidence=evidence, recovery_trace_id=self.trace_id, state=state, reason=reason
        )

    def exhausted(self, target_ref: str, evidence: Any) -> str:
        """The budget is spent: the row's case opens, the run has failed; returns the case's id."""
        case_id = self.escalate(self.row.exhausts, target_ref, evidence)
        self.end("failed")
        return case_id

    def undo(self, *, attempt: int = 1, after_us: int = 0, key: str = "", **more: Any) -> bool:
        """Intend the newest undo that is owed (rule 2), as the work of an action of this run; False if none is."""
        if not self._d.state.owed:
            return False
        owed: Owed = self._d.state.owed[-1]
        action_id, trace = self.plan()
        self._d.step(
            owed.step, owed.target, {**self._d.undo_args(owed), "action_id": action_id, **more}, attempt=attempt,
            after_us=after_us, key=key, trace=trace,
        )  # fmt: skip
        return True

    def escalate(self, case_kind: str, target_ref: str, evidence: Any = None) -> str:
        """A person is needed: open the case; returns its id."""
        case_id = self.case(case_kind, target_ref, evidence=evidence)
        self.action("escalate", case_kind, target_ref, "success", metadata={"case_id": case_id})
        return case_id

    def degrade(self) -> None:
        """Something is still owed and being retried; the run stays open."""
        if self._run.outcome != "degraded":
            self._run = msgspec.structs.replace(self._run, outcome="degraded")
            self._store()
            self._d.rows.append(RunEndRow(self._run.recovery_id, "degraded", None, "{}"))

    def end(self, outcome: Literal["recovered", "failed"], net: Any = None) -> None:
        """End the run; nothing more may be written to it."""
        if self._key not in self._d.state.runs:
            raise Bug(f"run {self._run.recovery_id} has ended")
        self._d.rows.append(RunEndRow(self._run.recovery_id, outcome, self._d.now_us, _json(net)))
        self._d.set(runs={key: run for key, run in self._d.state.runs.items() if key != self._key})

    def _store(self) -> None:
        self._d.set(runs={**self._d.state.runs, self._key: self._run})


def _tried(d: Decision) -> tuple[int, int]:
    """When the try that this turn takes in began and ended; 0 where it takes none in, or where none has ended."""
    return getattr(d.env.message, "started_us", 0), getattr(d.env.message, "ended_us", 0)


def begin_run(
    d: Decision, row: str, *, key: str = "", trigger_type: str = "failure", original: tuple[str, str] = ("", ""),
    trigger_ref: str = "", entity: str = "",
) -> Run:  # fmt: skip
    """The open recovery run of this row (its `key` if it has several), begun if there is none."""
    return Run.begin(d, row, key or row, trigger_type, original, trigger_ref, entity or d.ref)


def find_run(d: Decision, key: str) -> Run | None:
    """The open run under that key, if any."""
    return Run.resume(d, key)


def failure(
    d: Decision, code: str, message: str, *, component: str, span_id: str, trace_id: str = "",
    failure_type: FailureType = "error", severity: str = "medium", ref: str = "", cause_ref: str = "", hop: int = 0,
    run: Run | None = None,
) -> str:  # fmt: skip
    """A failure record; returns its id."""
    failure_id = d.mint("fail")
    d.row(FailureRow(
        failure_id, trace_id or d.trace_id, span_id, d.now_us, failure_type, severity, ref or d.ref, message[:1000],
        code, component, cause_ref, hop, run.trace_id if run else "", d.context.epoch,
    ))  # fmt: skip
    return failure_id


def failed_step(d: Decision, done: StepDone, run: Run | None = None, **run_options: Any) -> Run:
    """The failure of a step in the run of the row that covers it; an undo's in the `run` that it is part of.

    The row comes from the matrix by step and kind of failure. `Bug` where there is none, or where the run's row has
    nothing to do with the step.
    """
    kind = _failure_type(d, done)
    covering = d.context.matrix.row_for(done.name, kind)
    if covering is None:
        raise Bug(f"no row of the matrix covers {done.name} ({kind})")
    if run is None:
        run = begin_run(d, covering.id, original=(done.trace_id, done.span_id), **run_options)
    elif run.row is not covering and done.name not in _undoing(d, run.row):
        raise Bug(f"row {run.row.id} of the matrix does not undo with {done.name}")
    run.caused_by(failure_of(d, done, run))
    return run


def failure_of(d: Decision, done: StepDone, run: Run | None = None, *, severity: str = "medium") -> str:
    """The failure record of a step that did not go well, of no run where none is about it; its id."""
    return failure(
        d, done.outcome.code, done.outcome.message, component=done.name, span_id=done.span_id, trace_id=done.trace_id,
        failure_type=_failure_type(d, done), severity=severity, ref=f"step:{done.step_id}", run=run,
    )  # fmt: skip


def _failure_type(d: Decision, done: StepDone) -> FailureType:
    timed_out = done.outcome.code.endswith("timeout") and "timeout" in d.context.steps[done.name].failures
    return "timeout" if timed_out else "error"


def _undoing(d: Decision, row: MatrixRow) -> set[str]:
    """The steps that undo what this row covers, and what is done with them in a cleanup."""
    undo = {d.context.steps[name].undo for name in row.covers if name in d.context.steps}
    return undo | {name for step in undo if step for name in d.context.steps[step].after}


def _json(value: Any) -> str:
    return msgspec.json.encode(value or {}).decode()
