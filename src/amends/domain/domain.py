"""What a domain is made of, as data: actor kinds, steps with undo, matrix rows, case kinds. No behaviour here."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from amends.domain.kinds import ActorKind
from amends.domain.matrix import CaseKind, Matrix
from amends.domain.steps import StepSpec
from amends.values.facets import Covered, Facet, facets_of
from amends.values.records import TABLES

if TYPE_CHECKING:
    pass


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
