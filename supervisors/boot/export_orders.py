"""What the runtime and the process that sends its spans tell one another."""

from msgspec import Struct

from adapters.otel.environment import Target


class Orders(Struct, frozen=True):
    """Where the spans are, where they go, and the turn up to which they have gone."""

    dsn: str
    role: str
    target: Target
    place: int


class Progress(Struct, frozen=True):
    """Of one process: how far it is, how many spans were taken, and what is wrong now.

    `cursor`: the turn up to which nothing is to be sent any more; `place`: the last of those that is worth keeping.
    """

    cursor: int = 0
    place: int = 0
    exported: int = 0
    rejected: int = 0
    failures: int = 0
    last_error: str = ""
