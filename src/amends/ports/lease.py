"""The lease: which runtime may act."""

from typing import Protocol


class HeldLease(Protocol):
    """A lease that this runtime has taken. Its epoch fences whatever it does."""

    @property
    def epoch(self) -> int:
        """The epoch that came with it."""
        ...

    @property
    def age_s(self) -> float:
        """Seconds since the last successful renewal began."""
        ...

    def may_act(self) -> bool:
        """Whether an outside effect may begin now."""
        ...

    def may_answer(self) -> bool:
        """Whether a request may be answered: nobody else can have the lease."""
        ...

    def fence(self) -> None:
        """Another runtime has taken over: nothing begins any more."""
        ...

    async def raise_to(self, epoch: int, why: str, kind: str, body: bytes, at_us: int) -> None:
        """Raise the lease's epoch and give it up, with a document that says so: `run` ends with `why`.

        Nothing happens where it is ours no more. Raises `Unavailable`.
        """
        ...

    async def run(self) -> None:
        """Until cancelled; raises `Fenced` when another runtime has taken it."""
        ...

    async def aclose(self) -> None:
        """Give it back."""
        ...
