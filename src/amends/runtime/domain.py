"""What a domain is made of, as data: actor kinds, steps with undo, matrix rows, case kinds. No behaviour here."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from amends.values.canonical import canonical, sha256
from amends.values.facets import Covered, Facet, facets_of
from amends.values.records import TABLES

if TYPE_CHECKING:
    from amends.runtime.decision import Decision

Handler = Callable[[Any, Any, "Decision"], None]


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


class StepSpec(Struct, frozen=True, kw_only=True):
    """One kind of step: which adapter does it, how long a try may take, what undoes it.

    A step without an effect (a probe) needs no undo and no row; one with an effect names its undo, or says in
    `no_undo` why nothing is to be undone. `external` false: the runtime itself does it, no adapter is called.
    """

    name: str
    adapter: str = ""
    timeout: str = ""  # the [timing] key that bounds one try
    effect: bool = True
    undo: str = ""
    no_undo: str = ""
    external: bool = True
    per_target: int = 1  # tries of a target at once


class CaseKind(Struct, frozen=True):
    """A kind of operator case: the commands that may settle it and the page that says how."""

    kind: str
    commands: tuple[str, ...]
    runbook: str  # docs/runbooks/<kind>.md


class MatrixRow(Struct, frozen=True, kw_only=True):
    """One row of the compensation matrix. The first five fields are the seed document's own cells."""

    id: str
    step: str
    failure_point: str
    detection: str
    action: str
    owner: str
    name: str
    entity: str
    covers: tuple[str, ...]
    compensations: tuple[str, ...]
    budget: tuple[str, ...]
    billing: str
    exhaustion: str
    failure_types: tuple[str, ...] = ("error",)
    cases: tuple[str, ...] = ()
    status: Literal["built", "not_built"] = "built"


class Matrix(Struct, frozen=True):
    """All rows under one version; `sha256` is over their canonical JSON, stored whole under that hash."""

    version: str
    rows: tuple[MatrixRow, ...]

    def body(self) -> bytes:
        """The canonical bytes that the hash is over."""
        return canonical({"version": self.version, "rows": self.rows})

    @property
    def sha256(self) -> str:
        """Lower-case hex."""
        return sha256(self.body())

    def row(self, row_id: str) -> MatrixRow:
        """The row of that id; KeyError if there is none."""
        for row in self.rows:
            if row.id == row_id:
                return row
        raise KeyError(row_id)

    def row_for(self, step: str) -> MatrixRow | None:
        """The built row that covers failures of `step`, if any."""
        for row in self.rows:
            if step in row.covers and row.status == "built":
                return row
        return None


class Domain(Struct, frozen=True, kw_only=True):
    """What the runtime carries: renting is the first, a test's switch port another."""

    name: str
    kinds: tuple[ActorKind, ...]
    steps: tuple[StepSpec, ...] = ()
    matrix: Matrix
    cases: tuple[CaseKind, ...] = ()
    tables: Mapping[type[Struct], str] = {}  # row types of its own → the statement that writes them
    unwritten: tuple[Facet, ...] = ()  # of its tables that no row type writes yet


def covered(domains: Sequence[Domain]) -> Covered:
    """What the digest chain of a runtime with these domains holds."""
    states = {kind.name: kind.table for domain in domains for kind in domain.kinds}
    rows = [*TABLES, *(row for domain in domains for row in domain.tables)]
    facets = [facet for row in rows for facet in facets_of(row)]
    return Covered(states, [*facets, *(facet for domain in domains for facet in domain.unwritten)])
