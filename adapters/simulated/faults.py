"""Where things can go wrong in a simulated world: every durable read, write and outside call passes two points."""

from typing import Protocol

from msgspec import Struct


class Faults(Protocol):
    """Asked before and after each. `what` names the point, such as ``commit allocation:a1 provisioning``."""

    async def before(self, what: str) -> None:
        """It has not happened. Raise for it not to happen; never return for a crash."""
        ...

    async def after(self, what: str) -> None:
        """It has happened. Raise for its reply to be lost; never return for a crash."""
        ...


class NoFaults:
    """All goes well."""

    async def before(self, what: str) -> None:
        """Go on."""

    async def after(self, what: str) -> None:
        """Go on."""


CALM = NoFaults()


class Links(Struct):
    """What a process reaches now. What is cut fails for it alone, and goes on for others."""

    journal: bool = True
    bus: bool = True
