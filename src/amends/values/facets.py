r"""What a commit wrote, row by row, as short digests: what the digest chain is made of. Pure.

A facet is a group of columns of one table that are written together. Writing it leaves a leaf: the row's key and the
digest of the columns' values. The newest leaf of a facet and key is what the row must still be like, however many
statements have written the row. A leaf:

    the first 40 hex digits of SHA-256 of the canonical JSON array of the columns' values, in the facet's order

The leaves of a commit stand as one JSON object, facet → [key, digest, key, digest, …]; a facet that is no plain "first"
or "last" has three entries a leaf: key, digest, rank. The object is hashed with the hash of the commit before:

    hash = SHA-256("<prev_hash> <seq> <epoch> <audit_seq> <audit_hash>\n<leaves>"), lower-case hex
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from operator import itemgetter
from typing import Any, Literal

import msgspec
from msgspec import Struct

DIGEST_HEX = 40
GONE = ""  # the digest of a row that was deleted
NO_RANK = 1 << 62
_encode = msgspec.json.Encoder(order="sorted").encode
_SEQ = ("jseq", "begun_jseq")  # columns that hold the turn's place in the journal; no field of the row

# Which of two leaves of one key stands: the first ever, the last, the last up to one that is final (its column `by` is
# set), the one with the least or the greatest `by`. It is what the statement that writes the facet does.
Wins = Literal["first", "last", "final", "least", "newest"]


class Facet(Struct, frozen=True, kw_only=True):
    """Columns of a table that are written together; `key` names the row.

    `default`: what stands where no leaf was written. `keeps`: to write the default keeps what stood, and leaves none.
    `fades`: the runtime itself may take such rows away later (a reply is kept for 7 days). `gone_from`: the same of
    rows whose `by` is as great (refusals, after 7 days too).
    """

    name: str
    columns: tuple[str, ...]
    table: str = ""  # these two: of the row type that has it
    key: tuple[str, ...] = ()
    wins: Wins = "first"
    by: str = ""
    default: tuple[Any, ...] | None = None
    keeps: bool = False
    fades: bool = False
    gone_from: int = NO_RANK

    @property
    def ranked(self) -> bool:
        """Whether its leaves have a rank."""
        return bool(self.by)


class Covered(Struct, frozen=True):
    """What the chain holds: the state table of each actor kind, and the facets of all other rows.

    `columns`: of each kind, what its table is searched by beside the body; `ends`: the states in which one has ended.
    """

    states: Mapping[str, str]
    facets: Sequence[Facet]
    columns: Mapping[str, Mapping[str, type]]
    ends: Mapping[str, frozenset[str]]

    def tables(self) -> dict[str, list[Facet]]:
        """Facets by table, each table's first one being that of a row's birth."""
        found: dict[str, list[Facet]] = {}
        for facet in self.facets:
            group = found.setdefault(facet.table, [])
            if facet.name not in {known.name for known in group}:
                group.append(facet)
        return found


Leaves = dict[str, list[Any]]
Leaving = Callable[[Leaves, list[tuple[Any, ...]]], None]


def digest(values: tuple[Any, ...]) -> str:
    """The digest of a row's values."""
    return sha256(_encode(values)).hexdigest()[:DIGEST_HEX]


def chain(prev: str, seq: int, epoch: int, audit_seq: int, audit_hash: str, leaves: str) -> str:
    """`journal_digest.hash`."""
    return sha256(f"{prev} {seq} {epoch} {audit_seq} {audit_hash}\n{leaves}".encode()).hexdigest()


def leaves_text(leaves: Leaves) -> str:
    """The leaves of a commit as they are stored and hashed."""
    return _encode(leaves).decode()


def leaving(fields: Sequence[str], facets: Iterable["Facet"]) -> tuple[Leaving, ...]:
    """For each facet of a row type, what adds rows' leaves; a row is its fields in order, and the turn's place."""
    places = {**{name: place for place, name in enumerate(fields)}, **dict.fromkeys(_SEQ, len(fields))}
    return tuple(_leaving(facet, places) for facet in facets)


def _leaving(facet: Facet, places: Mapping[str, int]) -> Leaving:
    values, key = _picked(facet.columns, places), _picked(facet.key, places)
    name, default, keeps = facet.name, facet.default, facet.keeps
    by = places.get(facet.by, -1)
    single, ranked = len(facet.key) == 1, facet.ranked

    def leave(leaves: Leaves, rows: list[tuple[Any, ...]]) -> None:
        if keeps:
            rows = [row for row in rows if values(row) != default]
        if not rows:
            return
        entry = leaves.setdefault(name, [])
        for row in rows:
            names = key(row)
            entry.append(names[0] if single else ":".join(names))
            entry.append(sha256(_encode(values(row))).hexdigest()[:DIGEST_HEX])
            if ranked:
                entry.append(rank(facet, row[by] if by >= 0 else None))

    return leave


def rank(facet: Facet, value: int | None) -> int:
    """Of a leaf whose column `by` has this value."""
    if facet.wins == "final":
        return int(value is not None)
    return NO_RANK if value is None else value


def _picked(names: Iterable[str], places: Mapping[str, int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    found = [places[name] for name in names]
    if len(found) == 1:
        (place,) = found
        return lambda row: (row[place],)
    return itemgetter(*found)


def each_leaf(facet: Facet, entry: list[Any]) -> Iterable[tuple[str, str, int]]:
    """(key, digest, rank) of what a commit left of one facet."""
    step = 3 if facet.ranked else 2
    for place in range(0, len(entry), step):
        yield entry[place], entry[place + 1], entry[place + 2] if facet.ranked else 0
