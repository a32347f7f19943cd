"""The notary: who vouches for the heads of the chains outside the database."""

from typing import Protocol

from amends.values.anchors import Anchored


class Notary(Protocol):
    """Who signs the heads of the chains, and keeps them where the database's owner cannot write."""

    def sign(self, heads: Anchored) -> Anchored:
        """The same with key and signature."""
        ...

    async def keep(self, anchored: Anchored) -> None:
        """Put it away; it never raises for the world's failures."""
        ...

    def detail(self) -> dict[str, object]:
        """For the supervision tree."""
        ...
