"""The engine: messages in, turns out. No task, lock or timer per actor; execution is lent to whoever has a message.

One road for all: mailbox → decide (pure) → journal (one transaction) → effects. An actor waits for its own commit
only. What a committed turn asks for (messages, steps, timers, replies) is carried out after the commit.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from amends.domain.kinds import ActorKind, ActorState
from amends.domain.versions import Message, newest
from amends.ports.clock import REAL, Sources
from amends.ports.journal import Requirement, Turn
from amends.runtime.mailbox import Key, Mailbox
from amends.runtime.policy import RUNTIME_HANDLERS, EntityPolicy, command_refused
from amends.runtime.store import Store
from amends.runtime.timers import Timers
from amends.runtime.writer import JournalWriter, Pending
from amends.turn.context import Context
from amends.turn.decision import Decision, Sent, command_rows
from amends.turn.messages import Envelope, TimerFired, TurnRefused
from amends.values.errors import CONSUMED, KEPT, Refused, Rejected, TurnFailed

log = logging.getLogger("amends.entities")
AT_ONCE = 64  # messages of one turn that are delivered before others have the loop


class Listener(Protocol):
    """Follows committed turns: indices, the step dispatcher, the relay."""

    def __call__(self, decision: Decision) -> None:
        """The turn has committed."""
        ...


class Gone(Protocol):
    """Hears of a durable message that will lead to no turn of its actor."""

    def __call__(self, kind: str, identifier: str, message_id: str) -> None:
        """It is gone."""
        ...


class Engine:
    """Runs actors. Everything here is synchronous; awaiting happens in the writer, the dispatcher and the loader."""

    def __init__(
        self,
        kinds: Mapping[str, ActorKind],
        context: Context,
        now_us: Callable[[], int],
        read: Callable[[str, str, Callable[[bytes | None], None]], None],
        sources: Sources = REAL,
    ) -> None:
        self.kinds, self.context, self.now_us = kinds, context, now_us
        self.entropy, self.monotonic_us = sources.entropy, sources.monotonic_us
        self.policy = EntityPolicy(self)
        self.store = Store(kinds, self.policy.damaged)
        self.timers = Timers(now_us, self.fire_due, self._room, sources.monotonic_us)
        self.listeners: list[Listener] = []
        self.gone: list[Gone] = []  # hear of messages that were set aside or had been taken in before
        self.turns = 0
        self.stopping = False
        self._read = read
        self._mailboxes: dict[Key, Mailbox] = {}
        self._ready: deque[tuple[Key, Mailbox]] = deque()
        self._undelivered: dict[Key, deque[Sent]] = {}  # by sender
        self._pumping = False
        self._writer: JournalWriter | None = None
        self._messages = {
            name: {handled.__name__: handled for handled in kind.handlers if issubclass(handled, Message)}
            for name, kind in kinds.items()
        }

    def attach(self, writer: JournalWriter) -> None:
        """The writer that commits this engine's turns."""
        self._writer = writer

    @property
    def writer(self) -> JournalWriter:
        """The attached writer."""
        assert self._writer is not None
        return self._writer

    async def _room(self) -> None:
        await self.writer.room()

    # --- messages ------------------------------------------------------------------------------------

    def tell(self, kind: str, identifier: str, env: Envelope) -> None:
        """Give an actor a message; raises `Rejected` (throttled) when its ordinary lane is full."""
        key = (kind, identifier)
        box = self._mailboxes.get(key)
        if box is None:
            box = self._mailboxes[key] = Mailbox(self.kinds[kind].lane_cap)
        box.put(env)
        if not box.busy:
            self._schedule(key, box)

    def tell_stored(self, sent: Sent) -> None:
        """Deliver a durable message that has committed."""
        row = sent.row
        env = Envelope(
            sent.message, trace_id=row.trace_id, span_id=row.span_id, actor=row.actor, request_id=row.request_id,
            message_id=row.message_id, priority=True,
        )  # fmt: skip
        self.tell(sent.kind, sent.id, env)

    def decode(self, kind: str, type_name: str, body: bytes) -> Any:
        """A stored message as its type; `LookupError` or `msgspec.MsgspecError` when it cannot be made out."""
        message = self._messages[kind][type_name]
        return msgspec.convert(newest(body, message.upgrades), message)

    def holds(self, requirement: Requirement) -> bool:
        """Whether a requirement on another actor holds of its committed state."""
        kind, identifier, states, epoch = requirement
        state = self.store.get(kind, identifier)
        return state is not None and state.state in states and epoch in (None, state.epoch)

    def waiting(self) -> int:
        """Messages in mailboxes."""
        held = sum(map(len, self._undelivered.values()))
        return held + sum(len(box) for box in self._mailboxes.values())

    # --- one turn ------------------------------------------------------------------------------------

    def _schedule(self, key: Key, box: Mailbox) -> None:
        """Lend the actor execution: a loop, not a recursion, however many messages end without a commit."""
        box.busy = True
        self._ready.append((key, box))
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._ready:
                self._next(*self._ready.popleft())
        finally:
            self._pumping = False

    def _next(self, key: Key, box: Mailbox) -> None:
        env = box.take()
        if env is None:
            self._mailboxes.pop(key, None)
            return
        state = self.store.get(*key)
        if state is None and self.store.damage(*key):
            self.policy.hold_damaged(key, box, env)
        elif state is None and not env.fresh:
            self._read(key[0], key[1], lambda body: self._loaded(key, box, env, body))
        else:
            self._decide(key, box, env, state)

    def _loaded(self, key: Key, box: Mailbox, env: Envelope, body: bytes | None) -> None:
        """A state was read back; one that cannot be made out is held like one that was in memory."""
        state = self.store.decoded(*key, body) if body is not None else None
        if state is None and self.store.damage(*key):
            self.policy.hold_damaged(key, box, env)
        else:
            self._decide(key, box, env, state)

    def reread(self, key: Key, then: Callable[[ActorState | None], None]) -> None:
        """Read a damaged entity's row again; None where it still cannot be made out."""

        def loaded(body: bytes | None) -> None:
            state = self.store.decoded(*key, body) if body is not None else None
            if state is not None:
                self.store.put(*key, state)
                self.timers.arm(*key, min(state.timers.values(), default=None))
            then(state)

        self._read(*key, loaded)

    def decide(self, key: Key, box: Mailbox, env: Envelope, state: ActorState | None) -> None:
        """Decide a message of an entity that policy held back."""
        self._decide(key, box, env, state)

    def _decide(self, key: Key, box: Mailbox, env: Envelope, state: ActorState | None) -> None:
        pending = self._decided(key, box, env, state)
        if pending is not None:
            self.writer.submit(pending)

    def _decided(self, key: Key, box: Mailbox, env: Envelope, state: ActorState | None) -> Pending | None:
        """The turn that the message leads to, if there is one to commit; all else is seen to."""
        kind = self.kinds[key[0]]
        if state is not None and state.paused and not self.policy.passes_pause(kind, env):
            self.policy.hold(key, box, env)
            return None
        decision = Decision(kind, key[1], state, env, self.context, self.now_us(), self.entropy(16))
        try:
            self._handle(kind, state, env, decision)
            turn = decision.build() if decision.changed else None
        except Rejected as error:
            self._reject(key, box, env, error)
        except Exception as error:  # noqa: BLE001 - the entity supervisor's business, whatever it is
            self.policy.crashed(key, box, env, error)
        else:
            if turn is not None:
                return Pending(
                    turn, lambda error: self._settled(key, box, env, decision, error),
                    again=lambda: self._decided(key, box, env, state), recent=decision.recent,
                    decided_us=decision.now_us,
                )  # fmt: skip
            self._finish(key, box, env, decision)
        return None

    def _handle(self, kind: ActorKind, state: ActorState | None, env: Envelope, decision: Decision) -> None:
        message = env.message
        if state is None and type(message) not in kind.creates:
            if env.command is not None:
                raise Rejected("not_found", f"there is no {kind.name} {decision.id!r}", field=_named_by(message, kind))
            return  # a late message to an actor that is gone: consumed, nothing else
        if env.command is not None and state is not None and kind.owner is not None:
            accounts = env.command.accounts
            if "*" not in accounts and kind.owner(state) not in accounts:
                raise Rejected("forbidden", "this caller may not act for the account this belongs to")
        if env.command is not None and env.command.expected_version is not None:
            found = state.version if state is not None else 0
            if env.command.expected_version != found:
                raise Rejected("version_mismatch", f"Expected-Version does not match: it is {found}", version=found)
        if isinstance(message, TimerFired):
            due = state.timers.get(message.name) if state is not None else None
            if due is None or due > decision.now_us:
                return
            decision.cancel(message.name)
        if state is not None and not kind.takes(state, message, command=env.command is not None):
            return  # what it speaks of is past
        kind_of: type = type(message)
        handler = RUNTIME_HANDLERS.get(kind_of) or kind.handlers[kind_of]
        handler(decision.state, message, decision)

    def _settled(self, key: Key, box: Mailbox, env: Envelope, decision: Decision, error: TurnFailed | None) -> None:
        """The turn has committed, or the database refused it."""
        if error is None:
            self._finish(key, box, env, decision)
        elif isinstance(error, Refused):
            self._turn_refused(key, box, env, error, decision.now_us)

    def _finish(self, key: Key, box: Mailbox, env: Envelope, decision: Decision) -> None:
        self.turns += 1
        state = decision.state
        if state is not None and state is not decision.before:
            self.store.put(*key, state)
            self.timers.arm(*key, min(state.timers.values()) if state.timers else None)
            self.policy.digested(key)
        self._follow(decision)
        if env.reply is not None:
            env.reply(*decision.answer())
        if env.done is not None:
            env.done(True)
        self._deliver(key, decision.sent)
        self.proceed(key, box)
        if decision.before is not None and decision.before.paused and state is not None and not state.paused:
            self.policy.resumed(key)

    def _deliver(self, sender: Key, sent: Sequence[Sent]) -> None:
        """Deliver what a turn has sent, in its order; of very much the loop is given away in between."""
        waiting = self._undelivered.get(sender)
        if waiting is not None:
            waiting.extend(sent)
            return
        for one in sent[:AT_ONCE]:
            self.tell_stored(one)
        if len(sent) > AT_ONCE:
            self._undelivered[sender] = deque(sent[AT_ONCE:])
            asyncio.get_running_loop().call_soon(self._deliver_more, sender)

    def _deliver_more(self, sender: Key) -> None:
        """The next part; a stop leaves the rest as rows, which the next start finds."""
        waiting = self._undelivered[sender]
        for _ in range(0 if self.stopping else min(AT_ONCE, len(waiting))):
            self.tell_stored(waiting.popleft())
        if waiting and not self.stopping:
            asyncio.get_running_loop().call_soon(self._deliver_more, sender)
        else:
            del self._undelivered[sender]

    def _follow(self, decision: Decision) -> None:
        for spawn in decision.spawned:
            self.store.put(spawn.kind, spawn.id, spawn.state)
            self.timers.arm(spawn.kind, spawn.id, min(spawn.state.timers.values(), default=None))
        for listener in self.listeners:
            listener(decision)

    def commit(self, decision: Decision, refused: Callable[[TurnFailed], None]) -> None:
        """Commit a turn that takes no message and writes no state of its entity."""

        def settled(error: TurnFailed | None) -> None:
            if error is None:
                self._follow(decision)
            else:
                refused(error)

        self.writer.submit(Pending(decision.build(), settled))

    def proceed(self, key: Key, box: Mailbox) -> None:
        """On to the actor's next message, or let its mailbox go."""
        if len(box):
            self._schedule(key, box)
        else:
            box.busy = False
            self._mailboxes.pop(key, None)

    def _reject(self, key: Key, box: Mailbox, env: Envelope, error: Rejected) -> None:
        if env.command is None or error.code not in KEPT:
            self.answer(env, error)
            self.proceed(key, box)
            return
        turn = Turn()
        ref = f"{key[0]}:{key[1]}"
        turn.rows = command_rows(env, ref, self.now_us(), self.context.epoch, None, error)

        def settled(failed: TurnFailed | None) -> None:
            self.answer(env, error if failed is None else command_refused(failed))
            self.proceed(key, box)

        self.writer.submit(Pending(turn, settled))

    def _turn_refused(self, key: Key, box: Mailbox, env: Envelope, error: Refused, decided_us: int) -> None:
        if error.code == CONSUMED:
            log.info("%s:%s was given a message twice; the repeat is dropped", *key)
            self.drop(key, env)
            self.answer(env, Rejected("deadline_exceeded", "what this settles was settled meanwhile; ask again"))
            self.proceed(key, box)
            return
        kind = self.kinds[key[0]]
        if kind.answers_refusal is not None and kind.answers_refusal(env.message):
            env.tries += 1
            refused = TurnRefused(env.message, error.code, error.message, env.tries, decided_us)
            again = Envelope(
                refused, trace_id=env.trace_id, span_id=env.span_id, actor=env.actor, request_id=env.request_id,
                message_id=env.message_id, priority=True, done=env.done,
            )  # fmt: skip
            again.tries = env.tries
            box.put_back(again)
            self.proceed(key, box)
        else:
            self.policy.refused(key, box, env, error)

    def drop(self, key: Key, env: Envelope) -> None:
        """A message is gone without a turn of its actor."""
        if env.message_id:
            for listener in self.gone:
                listener(*key, env.message_id)

    def answer(self, env: Envelope, error: Rejected) -> None:
        """The message comes to nothing: whoever waits for it hears so."""
        if env.reply is not None:
            env.reply(None, error)
        if env.done is not None:
            env.done(False)

    def fire_due(self, kind: str, identifier: str) -> None:
        """Tell an actor of its timers that are due; those to come are armed."""
        state = self.store.get(kind, identifier)
        if state is None:
            return
        now_us = self.now_us()
        for name, due_us in state.timers.items():
            if due_us <= now_us:
                self.tell(kind, identifier, Envelope(TimerFired(name), priority=True))
        later = [due_us for due_us in state.timers.values() if due_us > now_us]
        self.timers.arm(kind, identifier, min(later, default=None))


def _named_by(message: object, kind: ActorKind) -> str:
    """The field of a command that names its actor, for the details of a refusal."""
    command = getattr(message, "command", None)
    return command.by if command is not None and command.by else f"{kind.name}_id"
