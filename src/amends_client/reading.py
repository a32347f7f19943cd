"""Rows of one kind of entity: one by its id, or many, page after page."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Struct

from amends_client.calls import Calls, given

R = TypeVar("R", bound=Struct)
Column = str | int | bool


class Kind(Struct, Generic[R], frozen=True):
    """A kind of entity: its name in subjects, the type of its rows, the column of its id.

    `leads`: state → the states that may follow it; empty for kinds without events.
    """

    name: str
    row: type[R]
    key: str
    leads: Mapping[str, Sequence[str]] = {}

    def may_become(self, state: str, wanted: Sequence[str]) -> bool:
        """Whether a way leads from a state to one of those wanted. From a state of a later release: perhaps."""
        if state not in self.leads:
            return True
        found, waiting = {state}, [state]
        while waiting:
            for after in self.leads.get(waiting.pop(), ()):
                if after not in found:
                    found.add(after)
                    waiting.append(after)
        return not found.isdisjoint(wanted)

    def row_of(self, data: Any) -> R:
        """A row as the runtime tells it; columns of a later release are passed over."""
        return msgspec.convert(data, self.row)


class Rows(Generic[R]):
    """The rows of a kind."""

    def __init__(self, calls: Calls, kind: Kind[R]) -> None:
        self._calls, self._kind = calls, kind

    async def get(self, identifier: str, *, deadline_s: float | None = None) -> R:
        """The row of that id. Raises `Refused` (404 `not_found`) or `Unreachable`."""
        data = await self._calls.ask(f"qry.{self._kind.name}.get", {"id": identifier}, deadline_s)
        return self._kind.row_of(data)

    async def list(
        self, *, order: Literal["oldest", "newest"] = "oldest", id_prefix: str | None = None, page: int = 100,
        deadline_s: float | None = None, **columns: Column,
    ) -> AsyncIterator[R]:  # fmt: skip
        """All rows whose columns equal `columns`, by id, which is the order of time: `async for row in ….list(…)`.

        Asks for the next `page` (1 to 500 rows) when the one before is used up; `deadline_s` is that of one page. Which
        columns an index finds stands in the reference; others are refused (400). Raises `Refused` or `Unreachable`.
        """
        question = given(order=order, id_prefix=id_prefix, limit=page) | columns
        while True:
            answer = await self._calls.ask(f"qry.{self._kind.name}.list", question, deadline_s)
            for row in answer["items"]:
                yield self._kind.row_of(row)
            if not answer.get("cursor"):
                return
            question["cursor"] = answer["cursor"]
