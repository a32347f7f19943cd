"""Actor kinds as data: the state every actor has, its automaton as tables, its handlers by message."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

Handler = Callable[[Any, Any, Any], None]  # (state, message, decision)


class OpenRun(Struct, frozen=True, omit_defaults=True):
    """A recovery run its entity still writes to. `last` keeps the newest compensation of each target."""

    recovery_id: str
    trace_id: str
    row: str
    sequence: int = 0
    outcome: str = ""
    last: dict[str, str] = {}


class ActorState(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What every actor's state has; kinds add their fields. Never changed in place: a turn makes a new one.

    `timers` holds due times in microseconds by name, `runs` the open recovery runs, `cases` the open cases by kind
    and `retrying` those of them that are being retried; `event_seq` numbers the entity's events; `paused` stops it
    until a person resolves its case; `owing` keeps a terminal actor in memory while something is still owed.
    """

    state: str
    version: int = 0
    event_seq: int = 0
    paused: bool = False
    owing: bool = False
    timers: dict[str, int] = {}
    runs: dict[str, OpenRun] = {}
    cases: dict[str, str] = {}
    retrying: frozenset[str] = frozenset()


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
    table: str = "actors"
    view: Callable[[Any, str, Any], dict[str, Any]] | None = None
    owner: Callable[[Any], str] | None = None  # the account whose callers alone may command it
    events: bool = True
    answers_refusal: Callable[[Any], bool] | None = None  # messages whose refused turn the kind wants to hear of
    while_paused: frozenset[type] = frozenset()  # commands a paused actor takes as well: they only note what was said
    lane_cap: int = 1000  # commands waiting for one actor
