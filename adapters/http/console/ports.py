"""What the console needs of the runtime, and the forms that commands become."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct


class Input(Struct, frozen=True):
    """A field of a form: `kind` is text, int, time, labels, flag or line; `value` what is known of it already."""

    name: str
    label: str
    kind: str
    required: bool
    value: str = ""


class Form(Struct, frozen=True):
    """A command as a form. `line`: the same at a terminal; no fields where it cannot be sent from here."""

    subject: str
    words: str
    help: str
    line: str
    fields: Sequence[Input] = ()


class Operator(Struct, frozen=True):
    """Who has logged in; a viewer may change nothing."""

    name: str
    role: str

    @property
    def may_change(self) -> bool:
        """Whether buttons make sense."""
        return self.role == "operator"


class Story(Protocol):
    """What is known of an entity, as `amends why` tells it."""

    ref: str
    state: dict[str, Any]
    steps: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    debts: list[dict[str, Any]]
    cases: list[dict[str, Any]]
    earlier: dict[str, int]


class Runtime(Protocol):
    """The runtime as one operator asks it. All raise `Rejected` and `Unavailable`."""

    async def ask(self, subject: str, data: dict[str, Any]) -> dict[str, Any]:
        """The data of the answer to a question."""
        ...

    async def command(self, subject: str, data: dict[str, Any], *, key: str = "") -> dict[str, Any]:
        """The whole reply to a command."""
        ...

    async def story(self, identifier: str) -> Story | None:
        """What the id, name or `kind:id` means, and what happened to it."""
        ...

    async def forecast(self, subject: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """What a command with that data would come to, as `ops.whatif.…` tells it; raises for one without a preview."""
        ...

    async def settling(self, case: Mapping[str, Any]) -> Sequence[Form]:
        """The commands that may settle a case."""
        ...


class Desk(Protocol):
    """What the console is made over."""

    def log_in(self, token: str) -> Operator:
        """Who has that token; raises `Rejected`, and the refusal is audited."""
        ...

    def runtime(self, token: str) -> Runtime:
        """The runtime as whoever has that token may ask it."""
        ...

    def form(self, subject: str, known: Mapping[str, str]) -> Form | None:
        """A command as a form, None for what is none."""
        ...

    def data(self, form: Form, given: Mapping[str, str]) -> dict[str, Any]:
        """What a filled-in form asks for; raises `Rejected` naming the field."""
        ...

    async def fleet(self) -> Sequence[Mapping[str, Any]]:
        """Every living node: node_id, state, site, dirty, held (by which rental)."""
        ...

    def now(self) -> Mapping[str, Any]:
        """What is known without a question.

        `problems`: part → what is wrong, None for nothing; `counts`: name → how many; `rates`: name → counts of the
        last 60 minutes.
        """
        ...

    def figures(self) -> Sequence[tuple[str, str, float]]:
        """(name with labels, help, value) of every metric but histograms."""
        ...

    @property
    def changes(self) -> int:
        """Grows whenever something has committed."""
        ...
