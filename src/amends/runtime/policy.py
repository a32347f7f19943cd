"""Entity supervision: the failure policy of millions of children, kept in one place.

An actor whose decide raises is still what its committed row says; the message is tried again, then set aside, and
only an actor that keeps failing is paused with a case. What will not come again (an outcome, a timer, a durable
message) is never set aside without its actor: it waits for the case to be resolved. What the database refuses is tried
again more patiently. Outages of something shared never come here: a breaker holds what waits for it, and no child is
charged.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from amends.domain.kinds import ActorKind, ActorState, Handler
from amends.ports.journal import Turn
from amends.runtime.mailbox import Key, Mailbox
from amends.runtime.store import Store
from amends.runtime.writer import JournalWriter, Pending
from amends.turn.cases import close_case, open_case
from amends.turn.context import Context
from amends.turn.decision import Decision, text
from amends.turn.messages import Envelope, Pause, ResolveCase, StepDone, TimerFired, TurnRefused
from amends.turn.notify import notify
from amends.values import ids
from amends.values.errors import Refused, Rejected, TurnFailed
from amends.values.records import AuditDraft, CaseRow, QuarantineRow, StepEndRow

log = logging.getLogger("amends.entities")
CRASH_TRIES = 3  # of one message, before the message is quarantined
REFUSED_TRIES = 8
COLLISIONS = 3  # of one command with what others commit, before it is refused without a name
UNIQUE, COMMAND_KEY = "23505", "command_key"  # SQLSTATE of a unique violation; the constraint on kept replies
QUARANTINES = 3  # messages of one actor in a row, before the actor is paused
HELD_MAX = 1000
ONCE = (StepDone, TimerFired, TurnRefused)  # beside durable messages: what does not come again
UNREADABLE = "unreadable"  # in the evidence of a case: the entity's stored state cannot be made out
PAUSING = frozenset(("actor_quarantined", "unknown_step"))  # kinds of case that hold their entity


def _pause(state: Any, message: Pause, d: Decision) -> None:
    d.set(paused=True)
    open_case(d, message.kind, evidence=message.evidence)
    d.audit("actor.paused", details={"kind": message.kind})
    if message.quarantined is not None:  # one turn, or the entity would be stuck without a case in between (A3)
        d.row(message.quarantined)
        details = {"error": message.quarantined.error[:300]}
        d.audit("message.quarantined", reason=message.quarantined.type, details=details)


def _resolve(state: Any, message: ResolveCase, d: Decision) -> None:
    keys = [key for key, case_id in state.cases.items() if case_id == message.case_id]
    if not keys and UNREADABLE not in message.row.get("evidence", {}):
        d.refuse("illegal_transition", "the case is not open")
    d.reply_entity = False
    if not keys:  # the case stood for a state that could not be made out, and so is not part of it
        d.row(CaseRow(message.case_id, message.kind, "", d.ref, "resolved", d.now_us, d.now_us, "", "[]", "{}"))
        d.audit("case.resolved", f"case:{message.case_id}", reason=message.reason)
        d.reply(ops_case={**message.row, "state": "resolved", "resolved_us": d.now_us})
        return
    if message.acknowledge:
        d.audit("case.acknowledged", f"case:{message.case_id}", reason=message.reason)
        d.reply(ops_case=message.row)
        return
    owes = state.owing or (d.kind.owes is not None and d.kind.owes(state, message.kind, d))
    if owes and message.kind not in (
        *PAUSING,
        *d.context.free_cases,
    ):  # a paused entity can settle nothing before it goes on
        commands = ", ".join(d.context.case_commands[message.kind])
        d.refuse("debt_open", f"the case's debt is still owed; settle it first with one of its commands: {commands}")
    close_case(d, message.kind, message.reason, keys[0].partition(" ")[2])
    if d.kind.resolved is not None:
        d.kind.resolved(d.state, message, d)
    if message.kind == "unknown_step":
        _give_up(message.row.get("evidence", {}), d)
    if state.paused and message.kind in PAUSING:
        d.set(paused=False)
    d.reply(ops_case={**message.row, "state": "resolved", "resolved_us": d.now_us})


def _give_up(evidence: dict[str, Any], d: Decision) -> None:
    """What no release here knows is settled with its case, or the next start would pause the entity again.

    What this release can make out, unlike the one that held it, goes on.
    """
    steps, messages = evidence.get("steps", ()), evidence.get("messages", ())
    for step in [each for each in steps if each["step_id"] in d.context.unread]:
        text = "settled by an operator; no release here knows this step"
        d.row(StepEndRow(step["step_id"], "unknown", d.now_us, d.now_us, "unknown_step", text, d.context.epoch))
    for message in [each for each in messages if each["message_id"] in d.context.unread]:
        d.row(QuarantineRow(message["message_id"], d.ref, message["message"], "", "no release here knows it", d.now_us))
        d.set_aside.append(message["message_id"])


def command_refused(error: TurnFailed) -> Rejected:
    """What the sender of a command hears when the database refuses its turn."""
    if not isinstance(error, Refused):
        return Rejected("db_unavailable", "the database did not take the change; ask again with the same key")
    if error.constraint == COMMAND_KEY:
        # The first request under this key took so long that it was asked again, and has committed since.
        return Rejected("deadline_exceeded", "the first request under this key has just ended; ask again")
    code = "already_exists" if error.code == UNIQUE else "internal"
    return Rejected(code, "the database refused the change; nothing was written")


RUNTIME_HANDLERS: dict[type, Handler] = {Pause: _pause, ResolveCase: _resolve}


class Actors(Protocol):
    """The engine, as the policy needs it."""

    kinds: Mapping[str, ActorKind]
    context: Context
    store: Store

    @property
    def writer(self) -> JournalWriter:
        """Who commits."""
        ...

    def now_us(self) -> int:
        """The time, in microseconds."""
        ...

    def entropy(self, count: int, /) -> bytes:
        """So many bytes of chance."""
        ...

    def tell(self, kind: str, identifier: str, env: Envelope) -> None:
        """Give an actor a message."""
        ...

    def decide(self, key: Key, box: Mailbox, env: Envelope, state: ActorState | None) -> None:
        """Decide a message that was held back."""
        ...

    def reread(self, key: Key, then: Callable[[ActorState | None], None]) -> None:
        """Read a damaged entity's row again."""
        ...

    def commit(self, decision: Decision, refused: Callable[[TurnFailed], None]) -> None:
        """Commit a turn that takes no message and writes no state of its entity."""
        ...

    def answer(self, env: Envelope, error: Rejected) -> None:
        """The message comes to nothing: whoever waits for it hears so."""
        ...

    def drop(self, key: Key, env: Envelope) -> None:
        """The message is gone without a turn of its actor."""
        ...

    def proceed(self, key: Key, box: Mailbox) -> None:
        """On to the actor's next message."""
        ...

    def fire_due(self, kind: str, identifier: str) -> None:
        """Tell an actor of its timers that are due."""
        ...


class EntityPolicy:
    """What becomes of messages that fail."""

    def __init__(self, engine: Actors) -> None:
        self._engine = engine
        self._failures: dict[Key, int] = {}
        self._held: dict[Key, list[Envelope]] = {}
        self.crashes = self.quarantined = 0

    def passes_pause(self, kind: ActorKind, env: Envelope) -> bool:
        """Whether a paused actor still takes this message."""
        return isinstance(env.message, (Pause, ResolveCase)) or type(env.message) in kind.while_paused

    def hold(self, key: Key, box: Mailbox, env: Envelope) -> None:
        """Keep a message for a paused actor; commands and offers are refused at once, timers stay in its state."""
        if env.command is not None or env.done is not None:
            error = Rejected("illegal_transition", "this entity is paused until its operator case is resolved")
            self._engine.answer(env, error)
        else:
            self._keep(key, env)
        self._engine.proceed(key, box)

    @property
    def holding(self) -> dict[Key, int]:
        """The entities for which messages are kept, and how many."""
        return {key: len(held) for key, held in self._held.items()}

    def _keep(self, key: Key, env: Envelope) -> None:
        if isinstance(env.message, TimerFired):
            return  # it stands in the state, and is fired when the entity goes on
        held = self._held.setdefault(key, [])
        if len(held) < HELD_MAX:
            held.append(env)
        else:
            log.error("%s:%s is held and has %d messages; %s waits for a restart", *key, HELD_MAX, env.message)

    # --- entities whose stored state cannot be made out ----------------------------------------------

    def damaged(self, kind: str, identifier: str, why: str) -> None:
        """Open a case in a turn that writes no state: what is stored stays as it is, for a person to mend."""
        log.error("%s:%s is held: its stored state cannot be made out: %s", kind, identifier, why)
        self.open_case(f"{kind}:{identifier}", {UNREADABLE: why[:300]}, why)

    def open_case(self, ref: str, evidence: dict[str, Any], why: str) -> None:
        """A case of an entity that takes no turn; one that is open stays the one it is."""
        engine, (name, identifier) = self._engine, ids.split_ref(ref)
        stranger = ActorKind(name=name, state_type=ActorState, states={}, transitions={}, handlers={})
        now, seed = engine.now_us(), engine.entropy(16)
        d = Decision(engine.kinds.get(name, stranger), identifier, None, Envelope(None), engine.context, now, seed)
        case_id, kind = d.mint("case"), "actor_quarantined"
        commands = text(list(engine.context.case_commands.get(kind, ())))
        d.row(CaseRow(case_id, kind, ref, ref, "open", now, None, "", commands, text(evidence)))
        d.audit("actor.held", details={"error": why[:300]})
        d.audit("case.open", f"case:{case_id}", reason=kind, details={"target_ref": ref, "kind": kind})
        notify(d, "case.opened", cause=kind, case_id=case_id, state="open")

        def refused(error: TurnFailed) -> None:
            if not (isinstance(error, Refused) and error.code == UNIQUE):  # it is open already
                log.error("no case could be opened of %s: %s", ref, error)

        engine.commit(d, refused)

    def hold_damaged(self, key: Key, box: Mailbox, env: Envelope) -> None:
        """A message for such an entity: kept, refused, or the word of an operator that its row is mended."""
        if isinstance(env.message, ResolveCase) and not env.message.acknowledge:
            self._engine.reread(key, lambda state: self._mended(key, box, env, state))
            return
        if env.command is not None or env.done is not None:
            why = self._engine.store.damage(*key)
            self._engine.answer(env, Rejected("illegal_transition", f"its stored state cannot be made out: {why}"))
        else:
            self._keep(key, env)
        self._engine.proceed(key, box)

    def _mended(self, key: Key, box: Mailbox, env: Envelope, state: Any) -> None:
        if state is None:
            why = self._engine.store.damage(*key) or "there is no row"
            error = Rejected("illegal_transition", f"its stored state still cannot be made out: {why}")
            self._engine.answer(env, error)
            self._engine.proceed(key, box)
            return
        self._engine.decide(key, box, env, state)
        if not state.paused:
            self.resumed(key)

    # --- messages that fail --------------------------------------------------------------------------

    def resumed(self, key: Key) -> None:
        """Deliver what was held, and what has become due meanwhile."""
        self._failures.pop(key, None)
        for env in self._held.pop(key, []):
            self._engine.tell(*key, env)
        self._engine.fire_due(*key)

    def digested(self, key: Key) -> None:
        """A turn of this actor has committed: failures count in a row."""
        if self._failures:
            self._failures.pop(key, None)

    def crashed(self, key: Key, box: Mailbox, env: Envelope, error: Exception) -> None:
        """`decide` raised: nothing has changed; try again, then set the message aside."""
        self.crashes += 1
        env.tries += 1
        log.error("%s:%s could not digest %s", *key, type(env.message).__name__, exc_info=error)
        if env.command is not None:
            self._engine.answer(env, Rejected("internal", "the request could not be handled; it changed nothing"))
            self._engine.proceed(key, box)
        elif env.tries < CRASH_TRIES:
            self._again(key, box, env, 0.01 * 4**env.tries)
        else:
            self._quarantine(key, box, env, f"{type(error).__name__}: {error}")

    def refused(self, key: Key, box: Mailbox, env: Envelope, error: Refused) -> None:
        """The database refuses the turn and the kind has no answer of its own to that."""
        env.tries += 1
        if (
            env.command is not None
            and error.code == UNIQUE
            and env.tries <= COLLISIONS
            and error.constraint != COMMAND_KEY
        ):
            self._again(key, box, env, 0.0)  # what it collided with has committed: decided anew, it can be named
            return
        log.warning("the database refuses a turn of %s:%s (%s)", *key, error)
        if env.command is not None:
            self._engine.answer(env, command_refused(error))
            self._engine.proceed(key, box)
        elif env.tries < REFUSED_TRIES or isinstance(env.message, Pause):
            self._again(key, box, env, min(0.05 * 2 ** min(env.tries, 10), 5.0))
        else:
            # What the runtime owes is never dropped: the entity waits, with its message, for a person. The pause goes
            # before what waits already, so that nothing overtakes the message.
            evidence = {"message": type(env.message).__name__, "refused": error.code, "error": error.message[:300]}
            self._hold_back(key, box, env, evidence)

    def _hold_back(self, key: Key, box: Mailbox, env: Envelope, evidence: dict[str, Any]) -> None:
        """Pause the entity; resolving its case gives the message back, before all that came after it."""
        env.tries = 0
        self._keep(key, env)
        box.put_back(Envelope(Pause("actor_quarantined", evidence), priority=True))
        self._engine.proceed(key, box)

    def _again(self, key: Key, box: Mailbox, env: Envelope, delay_s: float) -> None:
        def retry() -> None:
            box.put_back(env)
            self._engine.proceed(key, box)

        asyncio.get_running_loop().call_later(delay_s, retry)

    def _quarantine(self, key: Key, box: Mailbox, env: Envelope, error: str) -> None:
        self.quarantined += 1
        engine = self._engine
        name, exists = type(env.message).__name__, engine.store.get(*key) is not None
        if exists and (env.message_id or isinstance(env.message, ONCE)):
            self._hold_back(key, box, env, {"message": name, "error": error[:300]})
            return
        now, ref = engine.now_us(), f"{key[0]}:{key[1]}"
        body = msgspec.json.encode(env.message, enc_hook=repr).decode()
        row_id = env.message_id or ids.type_id("evt", now, ids.span_id(ref, name, str(now)).encode())
        row = QuarantineRow(row_id, ref, name, body, error[:1000], now)
        count = self._failures[key] = self._failures.get(key, 0) + 1
        if env.done is not None:
            env.done(False)
        if exists and (count >= QUARANTINES or self._is_stuck(key)):
            pause = Pause("actor_quarantined", {"message": name, "error": error[:300]}, row)
            box.put_back(Envelope(pause, request_id=env.request_id, priority=True))
            engine.proceed(key, box)
            return
        turn = Turn()
        turn.consumed = env.message_id
        turn.rows = [row]
        turn.audits = [self._audit("message.quarantined", ref, name, env, {"error": error[:300]})]

        def settled(failed: TurnFailed | None) -> None:
            engine.drop(key, env)
            engine.proceed(key, box)

        engine.writer.submit(Pending(turn, settled))

    def _audit(self, action: str, ref: str, reason: str, env: Envelope, details: dict[str, Any]) -> AuditDraft:
        now = self._engine.now_us()
        return AuditDraft(
            ids.type_id("aud", now, self._engine.entropy(10)), now, "runtime", action, ref, None, None, reason,
            env.request_id, env.trace_id, "", self._engine.context.epoch, details,
        )  # fmt: skip

    def _is_stuck(self, key: Key) -> bool:
        """Whether the actor may wait for what only the message set aside could have brought (A3)."""
        state = self._engine.store.get(*key)
        if state is not None and state.owing:
            return True
        bound = "end" if state is None else self._engine.kinds[key[0]].states[state.state]
        return bound not in ("rest", "end", "forever")
