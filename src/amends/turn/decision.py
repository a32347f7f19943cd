"""What one turn decides, collected as data: the new state and every row that commits with it.

A handler is a pure function of (state, message, now): it reads `now_us`, `limits` and `facts`, and calls the
methods below; nothing happens until the turn commits. Ids are derived from the turn's seed.
"""

import hashlib
from typing import Any, NoReturn, cast

import msgspec
from msgspec import Struct

from amends.domain.kinds import ActorKind, ActorState, Owed
from amends.domain.versions import Message, stamped
from amends.ports.journal import Requirement, StateWrite, Turn
from amends.turn.context import Context
from amends.turn.messages import Envelope, Pause, StepDone
from amends.turn.place import place_of
from amends.values import ids
from amends.values.canonical import canonical
from amends.values.errors import KEPT, Bug, Rejected
from amends.values.records import (
    AuditDraft,
    CommandRow,
    MessageRow,
    OutboxRow,
    ReplyRow,
    RunRow,
    StepEndRow,
    StepRow,
)
from amends.values.tables import table_of

EVENTS = "AMENDS_EVT"
encode = msgspec.json.Encoder(order="deterministic").encode  # sets, and dicts with them, in one order


def text(value: Any) -> str:
    """JSON text."""
    return encode(value).decode()


MAX_BODY = 256 * 1024  # bytes of a state; requests are far smaller, and no list in it may grow for ever


class Spawn(Struct):
    """Another actor created in the same transaction."""

    kind: str
    id: str
    state: ActorState


class Sent(Struct):
    """A durable message on its way to another actor."""

    kind: str
    id: str
    message: Any
    row: MessageRow


class Decision:
    """One turn in the making."""

    def __init__(
        self,
        kind: ActorKind,
        identifier: str,
        state: ActorState | None,
        env: Envelope,
        context: Context,
        now_us: int,
        seed: bytes,
    ) -> None:
        self.kind, self.id, self.env, self.context = kind, identifier, env, context
        self.now_us, self._seed, self._minted, self._stem = now_us, seed, 0, ("", "")
        self.limits, self.facts = context.limits, context.facts
        self.before = state
        self._state = state
        self.ref = f"{kind.name}:{identifier}"
        self.trace_id, self.span_id = place_of(state, env, seed)
        self.rows: list[Struct] = []
        self.steps: list[StepRow] = []
        self.sent: list[Sent] = []
        self.spawned: list[Spawn] = []
        self.audits: list[AuditDraft] = []
        self.set_aside: list[str] = []  # durable messages that nobody will take in any more
        self.hastened: list[str] = []  # targets whose steps of this actor wait for no next try any more
        self.data: dict[str, Any] | None = None
        self.reply_entity = True
        self.declined: Rejected | None = None
        self._moved = False
        self.recovery_trace_id = ""
        self._events: list[tuple[str, str | None, str | None, str]] = []
        self._requires: list[Requirement] = []
        self.recent = False
        if isinstance(env.message, StepDone):
            self._end_step(env.message)
            self._certainly_not(env.message)

    # --- reading -------------------------------------------------------------------------------------

    @property
    def state(self) -> Any:
        """The state as this turn has it by now."""
        return self._state

    def mint(self, prefix: str) -> str:
        """A new TypeID; the same turn and seed give the same ids, and those of one turn sort as they were made."""
        number = self._minted % ids.NUMBERED
        if not number:
            block = self._minted // ids.NUMBERED
            chance = hashlib.blake2b(self._seed, digest_size=8, salt=block.to_bytes(8, "big")).digest()
            self._stem = ids.stem(self.now_us, chance)
        self._minted += 1
        return ids.numbered(prefix, self._stem, number)

    # --- the actor's own state -----------------------------------------------------------------------

    def create(self, state: ActorState, *, cause: str = "", reason: str = "") -> None:
        """Bring this actor into being in the given state; one that has ended may be begun anew under its id."""
        old = self.before
        if old is not None and self.kind.states[old.state] != "end":
            raise Bug(f"{self.ref} exists")
        self._check_transition("", state.state)
        self._state = state
        self.set(event_seq=old.event_seq if old is not None else 0)
        self._transition(None, state.state, cause, reason, {})

    def to(self, state: str, *, cause: str = "", reason: str = "", details: Any = None, **changes: Any) -> None:
        """Move to `state` and change fields: audited, and an event unless the kind says otherwise (U2)."""
        old = cast(ActorState, self._state)
        if self._moved and self.kind.events:  # each event shows the row and the version as of its own transition
            raise Bug(f"{self.ref}: a second transition in one turn, to {state} (A2)")
        self._check_transition(old.state, state)
        self.set(state=state, **changes)
        self._transition(old.state, state, cause, reason, details or {})

    def set(self, **changes: Any) -> None:
        """Change fields of the state without a transition."""
        if self._state is None:
            raise Bug(f"{self.ref} does not exist")
        base = self.before.version if self.before is not None else 0
        self._state = msgspec.structs.replace(self._state, version=base + 1, v=self.kind.v, **changes)

    def part(self, name: str, **changes: Any) -> None:
        """Change fields of one part of the state, which is a struct of its own."""
        self.set(**{name: msgspec.structs.replace(getattr(self._state, name), **changes)})

    def timer(self, name: str, due_us: int) -> None:
        """Set or move a durable timer."""
        self.set(timers={**self.state.timers, name: due_us})

    def cancel(self, *names: str) -> None:
        """Drop timers."""
        if any(name in self.state.timers for name in names):
            self.set(timers={key: due for key, due in self.state.timers.items() if key not in names})

    def require(self, kind: str, identifier: str, states: tuple[str, ...], epoch: int | None = None) -> None:
        """Commit only if that actor is then in one of `states` (and at `epoch`); else the turn is refused."""
        self._requires.append((kind, identifier, states, epoch))

    def as_of_commit(self) -> None:
        """What this turn decides is true of the moment of its commit: one that has waited is decided anew."""
        self.recent = True

    # --- the rest of the turn ------------------------------------------------------------------------

    def row(self, row: Struct) -> None:
        """Write a row of the domain's own tables."""
        self.rows.append(row)

    def reply(self, **data: Any) -> None:
        """What the sender of the command gets beside the entity itself."""
        self.data = {**(self.data or {}), **data}

    def refuse(self, code: str, message: str, **details: Any) -> NoReturn:
        """Refuse the command: nothing of this turn is written but the kept reply."""
        raise Rejected(code, message, **details)

    def decline(self, code: str, message: str, **details: Any) -> None:
        """Refuse the command with a code that is kept, and commit what this turn records of that (R05)."""
        if code not in KEPT:
            raise Bug(f"{self.ref}: {code} is judged anew when it is repeated, and would be recorded anew each time")
        self.declined = Rejected(code, message, **details)

    def audit(
        self, action: str, target_ref: str = "", *, reason: str = "", details: Any = None, at_us: int = 0
    ) -> None:
        """An audit entry that is no state change."""
        self._audit(action, target_ref or self.ref, None, None, reason, details or {}, at_us)

    def audit_change(
        self, action: str, target_ref: str, source: str | None, to: str, reason: str, details: dict[str, Any]
    ) -> None:
        """An audit entry of a change of state of something that is no actor: a case."""
        self._audit(action, target_ref, source, to, reason, details)

    def tell(self, kind: str, identifier: str, message: Message) -> None:
        """A durable message to another actor, in the same transaction."""
        body = stamped(msgspec.structs.asdict(message), message.upgrades) if message.upgrades else message
        row = MessageRow(
            self.mint("evt"), kind, identifier, type(message).__name__, text(body), self.trace_id,
            self.span_id, self.env.actor, self.env.request_id, self.now_us,
        )  # fmt: skip
        self.sent.append(Sent(kind, identifier, message, row))
        self.rows.append(row)

    def spawn(self, kind: str, identifier: str, state: ActorState) -> None:
        """Create another actor in the same transaction, its body of the shape that this release writes."""
        if kind not in self.context.versions:
            raise Bug(f"{self.ref}: no domain has a kind {kind!r} to be created")
        state = msgspec.structs.replace(state, version=1, v=self.context.versions[kind])
        self.spawned.append(Spawn(kind, identifier, state))
        self._audit(f"{kind}.{state.state}", f"{kind}:{identifier}", None, state.state, "", {"by": self.ref})

    def step(
        self,
        name: str,
        target: str,
        args: dict[str, Any],
        *,
        attempt: int = 1,
        after_us: int = 0,
        key: str = "",
        undo: dict[str, Any] | None = None,
        trace: tuple[str, str] | None = None,
    ) -> str:
        """Intend one try of a step (B8); it runs after the commit, not before `after_us` from now.

        `undo`: the arguments of the undo that is declared beside the step; owed with the intent, and committed with it.
        """
        spec = self.context.steps.get(name)
        if spec is None:
            raise Bug(f"{self.ref}: the step {name!r} is not declared")
        if (undo is None) != (not spec.undo):
            raise Bug(f"{self.ref}: {name} {'needs the arguments of' if spec.undo else 'has no'} undo {spec.undo}")
        step_id = self.mint("step")
        trace_id, parent = trace or (self.trace_id, self.span_id)
        owed = None
        if undo is not None:
            kept = dict(self.context.steps[spec.undo].written(undo))
            owed = Owed(spec.undo, target, kept, name, f"{trace_id}:{ids.span_id('step', step_id)}")
        due = self.now_us + after_us if after_us else None
        row = StepRow(
            step_id, self.ref, name, attempt, "intended", key or f"{self.ref}:{name}:{attempt}", target,
            text(spec.written(args)), text(owed or {}), trace_id, parent, self.now_us, None, due, "", "",
            self.context.epoch, *self.context.address_of(target),
        )  # fmt: skip
        self.steps.append(row)
        self.rows.append(row)
        if owed is not None and not any(
            self._is_undone_by(known, spec.undo, target, undo) for known in self.state.owed
        ):
            self.set(owed=(*self.state.owed, owed))  # from its intent on (rule 1)
        return step_id

    def _is_undone_by(self, known: Owed, step: str, target: str, args: dict[str, Any] | None) -> bool:
        """Whether one execution is the undo of both."""
        return (known.step, known.target) == (step, target) and self.undo_args(known) == args

    def undo_args(self, owed: Owed) -> dict[str, Any]:
        """The arguments of an undo that is owed, in this release's shape."""
        spec = self.context.steps.get(owed.step)
        old = spec is not None and (spec.upgrades or "v" in owed.args)
        return spec.read(encode(owed.args)) if spec is not None and old else owed.args

    def undone(self, step: str, target: str) -> Owed | None:
        """What that undo of that target was owed for; from now on it is owed no more."""
        found = next((owed for owed in self.state.owed if (owed.step, owed.target) == (step, target)), None)
        if found is not None:
            self.set(owed=tuple(owed for owed in self.state.owed if owed is not found))
        return found

    def hasten(self, target: str) -> None:
        """What this actor has waiting for its next try on `target` is due now: an operator has asked for it."""
        self.hastened.append(target)

    def did(self, name: str, attempt: int, ok: bool, started_us: int, code: str = "", message: str = "") -> str:
        """Record a try the runtime did itself, such as an activation (R03); returns its span id."""
        step_id = self.mint("step")
        self.rows.append(
            StepRow(
                step_id, self.ref, name, attempt, "done" if ok else "failed", f"{self.ref}:{name}:{attempt}", self.ref,
                "{}", "{}", self.trace_id, self.span_id, started_us, self.now_us, None, code, message,
                self.context.epoch,
            )
        )  # fmt: skip
        return ids.span_id("step", step_id)

    def leave_intended(self) -> None:
        """The try that this message reports does not end its step: the same intent is tried again (R07)."""
        self.rows = [row for row in self.rows if type(row) is not StepEndRow]

    def event(self, name: str, *, cause: str = "") -> None:
        """An event of this entity that is no transition."""
        self._events.append((name, None, None, cause))

    # --- the turn as rows ----------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit."""
        return bool(
            self._state is not self.before or self.rows or self.audits or self.spawned or self.env.message_id
            or self.env.command
        )  # fmt: skip

    def build(self) -> Turn:
        """The turn: rows of one transaction."""
        turn = Turn()
        turn.consumed, turn.set_aside = self.env.message_id, self.set_aside
        self._write_events()
        if self._state is not None and self._state is not self.before:
            turn.kind, turn.id = self.kind.name, self.id
            turn.state, turn.version = self._state.state, self._state.version
            turn.due_us = min(self._state.timers.values()) if self._state.timers else None
            turn.live = self.kind.is_live(self._state)
            turn.ended_state = self._state.state if self.kind.is_end(self._state.state) else None
            turn.body = canonical(self._state).decode()  # what jsonb gives back can be brought into this form again
            if len(turn.body) > MAX_BODY and not isinstance(self.env.message, Pause):
                self._check_growth(len(turn.body))
        for spawn in self.spawned:
            due, body = min(spawn.state.timers.values(), default=None), canonical(spawn.state).decode()
            turn.spawned.append(StateWrite(spawn.kind, spawn.id, spawn.state.state, 1, due, body))
        if self.env.command is not None:
            self.rows += command_rows(self.env, self.ref, self.now_us, self.context.epoch, *self.answer())
        turn.rows, turn.audits, turn.requires = self.rows, self.audits, self._requires
        self._check_books()
        return turn

    def _check_growth(self, size: int) -> None:
        """A state that is too large may become smaller."""
        if self.before is None or size > len(canonical(self.before)):
            raise Bug(f"{self.ref}: a state of {size} bytes; what grows with time belongs into rows")

    def _check_books(self) -> None:
        """Only what the rows of its open runs may book is booked (matrix.md, billing effect)."""
        runs = [run for state in (self.before, self._state) if state is not None for run in state.runs.values()]
        if not runs and not any(type(row) is RunRow for row in self.rows):
            return
        rows = sorted({run.row for run in runs} | {row.matrix_row for row in self.rows if type(row) is RunRow})
        written = {table.name for row in self.rows if (table := table_of(type(row))).money} if rows else set()
        if denied := written - {name for row in rows for name in self.context.matrix.row(row).books}:
            raise Bug(f"{self.ref}: a turn of row {', '.join(rows)} may not write {', '.join(sorted(denied))}")

    def answer(self) -> tuple[dict[str, Any] | None, Rejected | None]:
        """What the sender of the command gets: data, or the refusal."""
        return (None, self.declined) if self.declined is not None else (self.reply_data(), None)

    def reply_data(self) -> dict[str, Any]:
        """The reply's data: the entity's view row under its name, and what the handler added."""
        own = {self.kind.name: self.view()} if self.reply_entity and self._state is not None else {}
        return {**own, **(self.data or {})}

    def view(self) -> dict[str, Any]:
        """The entity's view row as of this turn."""
        if self.kind.view is None:
            return {f"{self.kind.name}_id": self.id, "state": self._state.state if self._state else None}
        return self.kind.view(self._state, self.id, self)

    # --- inside --------------------------------------------------------------------------------------

    def _check_transition(self, source: str, target: str) -> None:
        if (source, target) not in self.kind.transitions:
            raise Bug(f"{self.ref}: {source or '(nothing)'} → {target} is not in its table (A2)")

    def _transition(self, source: str | None, target: str, cause: str, reason: str, details: Any) -> None:
        self._moved = True
        if cause:
            details = {**details, "cause": cause}
        self._audit(f"{self.kind.name}.{target}", self.ref, source, target, reason, details)
        if self.kind.events:
            self._events.append((target, source, target, cause))

    def _audit(
        self, action: str, target: str, source: str | None, to: str | None, reason: str, details: Any, at_us: int = 0
    ) -> None:
        self.audits.append(
            AuditDraft(
                self.mint("aud"),
                at_us or self.now_us,
                self.env.actor,
                action,
                target,
                source,
                to,
                reason,
                self.env.request_id,
                self.trace_id,
                self.recovery_trace_id,
                self.context.epoch,
                details,
            )
        )

    def _write_events(self) -> None:
        if not self._events:
            return
        data = self.view()
        seq = self.state.event_seq
        self.set(event_seq=seq + len(self._events))
        data["version"] = self.state.version
        for name, source, target, cause in self._events:
            seq += 1
            self._outbox(
                self.kind.name, self.id, name, {"seq": seq, "from": source, "to": target, "cause": cause}, data
            )

    def announce(self, kind: str, identifier: str, name: str, *, seq: int, cause: str = "", data: Any = None) -> None:
        """An event of something that is no actor (the control plane, the audit log); `seq` numbers its events."""
        head = {"seq": seq, "from": None, "to": None, "cause": cause}
        self._outbox(kind, identifier, name, head, data or {})

    def _outbox(self, kind: str, identifier: str, name: str, head: dict[str, Any], data: Any) -> None:
        event_id, entity = self.mint("evt"), f"{kind}:{identifier}"
        body = {
            "schema": f"{kind}.{name}/1", "event_id": event_id, "occurred_us": self.now_us, "entity": entity, **head,
            "trace_id": self.trace_id, "recovery_trace_id": self.recovery_trace_id or None, "data": data,
        }  # fmt: skip
        subject = f"amends.v1.evt.{kind}.{identifier}.{name}"
        self.rows.append(
            OutboxRow(event_id, entity, EVENTS, subject, text(body), self.trace_id, self.span_id, self.now_us)
        )

    def _certainly_not(self, done: StepDone) -> None:
        """What certainly did not run leaves nothing to undo."""
        if done.ok or done.outcome.may_have_run or self._state is None:
            return
        left = tuple(owed for owed in self._state.owed if owed.of != done.ref)
        if len(left) < len(self._state.owed):
            self.set(owed=left)

    def _end_step(self, done: StepDone) -> None:
        self.rows.append(
            StepEndRow(
                done.step_id,
                done.outcome.kind,
                done.started_us,
                done.ended_us,
                done.outcome.code,
                done.outcome.message[:1000],
                self.context.epoch,
            )
        )


def command_rows(
    env: Envelope, entity: str, now_us: int, epoch: int, data: dict[str, Any] | None, error: Rejected | None
) -> list[Struct]:
    """A command, done or refused, as its span tells it; without a key no reply of it is kept."""
    info = env.command
    if info is None:
        raise Bug("no command")
    http, code = (200, "") if error is None else (error.http, error.code)
    body: dict[str, Any] = {"data": data} if error is None else {"error": error.body()}
    done = CommandRow(
        info.caller, info.subject, info.request_id, info.trace_id, info.span_id, info.parent_span_id, entity, http,
        code, info.received_us, now_us, epoch, info.link,
    )  # fmt: skip
    if not info.key:
        return [done]
    kept = ReplyRow(
        info.caller, info.key, info.body_hash, info.request_id, info.trace_id, info.span_id, http, text(body),
        info.received_us,
    )  # fmt: skip
    return [done, kept]
