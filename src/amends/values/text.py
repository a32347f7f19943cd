"""Words of others, as they may be shown and kept."""


def printable(text: str, limit: int | None = None) -> str:
    """The first `limit` characters on one line, each that a row or a terminal would not take as a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit])
