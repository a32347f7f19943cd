"""Where a question is read, and as whom it waits there."""

from collections.abc import Mapping

from amends.ports.reading import CONNECTIONS, Asker, Reader
from amends.runtime.identity import Identity


class Sides:
    """Callers and operators have connections of their own: the slow questions of one are not the other's wait."""

    def __init__(self, callers: Reader, operators: Reader) -> None:
        self._callers, self._operators = callers, operators

    async def columns(self, entity: str) -> Mapping[str, str]:
        """Column → type of an entity's view."""
        return await self._operators.columns(entity)

    def of(self, identity: Identity) -> tuple[Reader, Asker]:
        """Where this one's questions are read, and as whom it takes its turn there."""
        side = self._operators if identity.operates else self._callers
        return side, Asker(identity.name, CONNECTIONS - 1 if identity.trusted else 1)
