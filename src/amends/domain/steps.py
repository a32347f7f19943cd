"""Steps as data: which adapter does them, how long a try may take, what undoes them, and how arguments are read."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from amends.domain.versions import NONE, Upgrade, newest, stamped


class StepSpec(Struct, frozen=True, kw_only=True):
    """One kind of step: which adapter does it, how long a try may take, what undoes it.

    A step without an effect (a probe) needs no undo and no row; one with an effect names its undo, or says in
    `no_undo` why nothing is to be undone. `external` false: the runtime itself does it, no adapter is called.
    """

    name: str
    adapter: str = ""
    timeout: str = ""  # the [timing] key that bounds one try
    effect: bool = True
    undo: str = ""
    no_undo: str = ""
    external: bool = True
    per_target: int = 1  # tries of a target at once
    failures: tuple[str, ...] = ("error", "timeout")  # kinds of failure it can have
    after: tuple[str, ...] = ()  # of an undo: steps that a cleanup does before it
    needs: tuple[str, ...] = ()  # conditions without which it is held and spends no try
    needs_if: Mapping[str, str] = {}  # the same, for intents with that argument
    args: type[Struct] | None = None  # the shape of its arguments
    upgrades: tuple[Upgrade, ...] = NONE  # of arguments that older releases have intended, the first of version 1

    def written(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arguments as they are committed."""
        return stamped(args, self.upgrades)

    def read(self, args: bytes | str) -> dict[str, Any]:
        """Committed arguments in this release's shape; raises `MsgspecError` for what cannot be brought into it."""
        return newest(args, self.upgrades)
