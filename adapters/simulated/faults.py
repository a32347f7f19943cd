"""Where things can go wrong in a simulated world: every durable read, write and outside call passes two points."""

from collections import Counter
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


class Fault(Struct):
    """What goes wrong with the next `times` of an op; what the kinds are, whoever has it says."""

    kind: str
    times: int = 1
    label: str = ""


class FaultQueue:
    """What is to go wrong, by op, in the order in which it was asked for."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Fault]] = {}
        self.met = Counter[str]()  # how many calls each label has met

    def add(self, op: str, kind: str, times: int = 1, label: str = "") -> None:
        """Let something go wrong with the next ones of that op; `label` names it for who counts or drops it."""
        self._waiting.setdefault(op, []).append(Fault(kind, times, label))

    def drop(self, label: str) -> None:
        """What has this label goes wrong no more."""
        for op, waiting in self._waiting.items():
            self._waiting[op] = [fault for fault in waiting if fault.label != label]

    def take(self, op: str) -> str:
        """The kind of the fault that meets this one, "" for none."""
        waiting = self._waiting.get(op)
        if not waiting:
            return ""
        fault = waiting[0]
        fault.times -= 1
        if fault.label:
            self.met[fault.label] += 1
        if fault.times <= 0:
            waiting.pop(0)
        return fault.kind

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._waiting.clear()
