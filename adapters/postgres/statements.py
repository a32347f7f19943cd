"""SQL by name: every statement stands in a `.sql` file of this folder, with its name and a line of purpose."""

import re
from functools import cache
from importlib import resources

_HEADER = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def statements() -> dict[str, str]:
    """All named statements; raises ValueError when a name stands twice."""
    found: dict[str, str] = {}
    for file in sorted(resources.files("adapters.postgres").joinpath("sql").iterdir(), key=lambda entry: entry.name):
        parts = _HEADER.split(file.read_text(encoding="utf-8"))
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            if name in found:
                raise ValueError(f"{file.name}: the statement {name!r} is defined twice")
            found[name] = body.strip()
    return found


def statement(name: str) -> str:
    """The text of one statement."""
    return statements()[name]


@cache
def migrations() -> tuple[tuple[int, str, str], ...]:
    """(number, file name, text) of the migrations, in order."""
    folder = resources.files("adapters.postgres").joinpath("migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple((int(name[:4]), name, folder.joinpath(name).read_text(encoding="utf-8")) for name in names)


@cache
def views() -> str:
    """All views as one script, which may be applied again and again."""
    folder = resources.files("adapters.postgres").joinpath("views")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
