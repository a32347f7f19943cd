"""Words of others, as they may be shown, kept and typed."""

import shlex
from collections.abc import Mapping
from types import MappingProxyType

NOTHING: Mapping[str, str] = MappingProxyType({})


def printable(text: str, limit: int | None = None) -> str:
    """The first `limit` characters on one line, each that a row or a terminal would not take as a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit])


def command_line(*words: str, where: Mapping[str, str] = NOTHING) -> str:
    """`amends` and these words as a shell takes them, with its filters; "" if one of them cannot be typed."""
    line = ["amends", *words, *(part for name, value in where.items() for part in ("--where", f"{name}={value}"))]
    return shlex.join(line) if all(map(str.isprintable, line)) else ""
