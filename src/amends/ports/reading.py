"""The read side: what has committed, for whoever asks and acts on nothing."""

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

CONNECTIONS = 4  # questions of one side that are read at once


class Asker(Struct, frozen=True):
    """Whose turn it is, and how many connections it may have at once."""

    name: str = ""
    most: int = CONNECTIONS


ANYBODY = Asker()


class Reader(Protocol):
    """Answers questions. All raise `Unavailable`, and `Rejected` (`TooSlow` among them) for what was asked wrong."""

    async def rows(self, name: str, *args: Any, asker: Asker = ANYBODY) -> list[dict[str, Any]]:
        """The rows of a named read."""
        ...

    async def get(self, entity: str, identifier: Any, asker: Asker = ANYBODY) -> dict[str, Any]:
        """The row of that id; `Rejected("not_found")`."""
        ...

    async def page(
        self, entity: str, filters: Mapping[str, Any], limit: Any, cursor: Any, asker: Asker = ANYBODY
    ) -> dict[str, Any]:
        """`items` that equal every filter, and a `cursor` if there are more."""
        ...

    async def columns(self, entity: str) -> Mapping[str, str]:
        """Column → type of an entity's view, in the view's order."""
        ...
