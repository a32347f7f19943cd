"""The services of a process, as questions and metrics see them."""

from collections.abc import Mapping
from typing import Any, Protocol


class Services(Protocol):
    """The supervision tree, also before it runs."""

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often each service was started again."""
        ...

    def tree(self) -> dict[str, Any]:
        """Each service with its state; empty before the start."""
        ...
