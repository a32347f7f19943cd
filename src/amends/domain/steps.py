"""Steps as data: which adapter does them, how long a try may take, what undoes them."""

from collections.abc import Mapping

from msgspec import Struct


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
