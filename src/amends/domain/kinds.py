"""Actor kinds as data: the state every actor has, its automaton as tables, its handlers by message."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from amends.values.errors import Rejected

Upgrade = Callable[[dict[str, Any], str], dict[str, Any]]  # (body, id) of one version → of the next
Handler = Callable[[Any, Any, Any], None]  # (state, message, decision)


class OpenRun(Struct, frozen=True, omit_defaults=True):
    """A recovery run its entity still writes to. `last` keeps the newest compensation of each target."""

    recovery_id: str
    trace_id: str
    row: str
    sequence: int = 0
    outcome: str = ""
    last: dict[str, str] = {}


class Owed(Struct, frozen=True):
    """An undo that is owed from the intent of its step on: the step that undoes, where, and with which arguments.

    `args` are of the release that intended the step (`Decision.undo_args`); `what`: the step that is undone; `of`:
    `<trace id>:<span id>` of its try.
    """

    step: str
    target: str
    args: dict[str, Any]
    what: str
    of: str


class ActorState(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What every actor's state has; kinds add their fields. Never changed in place: a turn makes a new one.

    `timers` holds due times in microseconds by name, `runs` the open recovery runs, `cases` the open cases by kind
    and `retrying` those of them that are being retried; `event_seq` numbers the entity's events; `paused` stops it
    until a person resolves its case; `owing` keeps a terminal actor in memory while something is still owed; `owed` are
    the undos of what it has begun, in start order. `trace_id` and `span_id` are where its own work hangs, `epoch` what
    others may hold it to (`Decision.require`), of kinds that have them.
    """

    state: str
    v: int = 1  # of the body's shape: `ActorKind.upgrades` make it the newest
    version: int = 0
    event_seq: int = 0
    paused: bool = False
    owing: bool = False
    timers: dict[str, int] = {}
    runs: dict[str, OpenRun] = {}
    cases: dict[str, str] = {}
    retrying: frozenset[str] = frozenset()
    trace_id: str = ""
    span_id: str = ""
    epoch: int = 0
    owed: tuple[Owed, ...] = ()


class Legal(Struct, frozen=True):
    """The states in which a message is taken; a command elsewhere is refused: the entity cannot be `verb`."""

    states: tuple[str, ...]
    verb: str = ""


class ActorKind(Struct, frozen=True, kw_only=True):
    """One kind of actor: its automaton as tables, its handlers by message type.

    `states` says what ends a stay in each state: ``end`` (terminal), ``rest`` (it may stay), ``forever`` (it has
    no exit and needs none), else the name of the timer or step that is its deadline. `transitions` maps (from, to)
    to the trigger; from "" is creation.
    """

    name: str
    state_type: type[ActorState]
    states: Mapping[str, str]
    transitions: Mapping[tuple[str, str], str]
    handlers: Mapping[type, Handler]
    creates: frozenset[type] = frozenset()
    legal: Mapping[type, Legal] = {}  # a message that is not listed is taken in every state
    upgrades: tuple[Upgrade, ...] = ()  # of stored bodies, the first of version 1
    table: str = "actors"
    columns: Mapping[str, type] = {}  # fields of the body that its own table is searched by, each a column: str or bool
    view: Callable[[Any, str, Any], dict[str, Any]] | None = None
    owner: Callable[[Any], str] | None = None  # the account whose callers alone may command it
    events: bool = True
    answers_refusal: Callable[[Any], bool] | None = None  # messages whose refused turn the kind wants to hear of
    owes: Callable[[Any, str, Any], bool] | None = None  # (state, kind of case, decision): it stands, beside `owing`
    resolved: Handler | None = None  # hears of each case of its own that an operator has settled
    while_paused: frozenset[type] = frozenset()  # commands a paused actor takes as well: they only note what was said
    lane_cap: int = 1000  # commands waiting for one actor

    @property
    def v(self) -> int:
        """The version of the bodies that this release writes."""
        return len(self.upgrades) + 1

    @property
    def ends(self) -> frozenset[str]:
        """The states in which an actor has ended."""
        return frozenset(state for state, bound in self.states.items() if bound == "end")

    def is_end(self, state: str) -> bool:
        """Whether an actor in this state has ended."""
        return self.states[state] == "end"

    def is_live(self, state: ActorState) -> bool:
        """Whether the actor is kept: it has not ended, or there is a timer, a run, a case, or something owed."""
        return not self.is_end(state.state) or bool(state.timers or state.runs or state.cases or state.owing)

    def takes(self, state: ActorState, message: Any, *, command: bool) -> bool:
        """Whether a message is legal in this state; raises `Rejected` for a command that is not."""
        legal = self.legal.get(type(message))
        if legal is None or state.state in legal.states:
            return True
        if command:
            text = f"a {self.name} that is {state.state} cannot be {legal.verb or 'told this'}"
            raise Rejected("illegal_transition", text, state=state.state)
        return False
