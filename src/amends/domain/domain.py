"""What a domain is made of, as data: actor kinds, steps with undo, matrix rows, case kinds. No behaviour here."""

from collections.abc import Sequence

from msgspec import Struct

from amends.domain.api import Request, commanded
from amends.domain.kinds import ActorKind
from amends.domain.matrix import CaseKind, Matrix
from amends.domain.steps import StepSpec
from amends.values.facets import Covered, Facet
from amends.values.records import ROWS
from amends.values.tables import facets_of


class Domain(Struct, frozen=True, kw_only=True):
    """What the runtime carries: renting is the first, a test's switch port another."""

    name: str
    kinds: tuple[ActorKind, ...]
    steps: tuple[StepSpec, ...] = ()
    matrix: Matrix
    cases: tuple[CaseKind, ...] = ()
    requests: tuple[type[Request], ...] = ()  # commands that reach their actor as another message
    rows: tuple[type[Struct], ...] = ()  # row types of its own, in the order in which a commit writes them
    unwritten: tuple[Facet, ...] = ()  # of its tables that no row type writes yet


def requests_of(domains: Sequence[Domain]) -> dict[str, type[Request]]:
    """The commands of a runtime with these domains, by subject: what handlers take, and what is asked otherwise."""
    return commanded(
        request
        for domain in domains
        for requests in (*(kind.handlers for kind in domain.kinds), domain.requests)
        for request in requests
    )


def rows_of(domains: Sequence[Domain]) -> tuple[type[Struct], ...]:
    """All row types of a runtime with these domains, in the order in which a commit writes them."""
    return (*ROWS, *(row for domain in domains for row in domain.rows))


def ends_of(domains: Sequence[Domain]) -> dict[str, frozenset[str]]:
    """By kind with a table of its own, the states in which an actor has ended."""
    return {kind.name: kind.ends for domain in domains for kind in domain.kinds if kind.table != "actors"}


def covered(domains: Sequence[Domain]) -> Covered:
    """What the digest chain of a runtime with these domains holds."""
    kinds = [kind for domain in domains for kind in domain.kinds]
    facets = [facet for row in rows_of(domains) for facet in facets_of(row)]
    return Covered(
        {kind.name: kind.table for kind in kinds},
        [*facets, *(facet for domain in domains for facet in domain.unwritten)],
        {kind.name: kind.columns for kind in kinds},
        {kind.name: kind.ends for kind in kinds},
    )
