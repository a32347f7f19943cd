"""Where the runbooks are: beside the code in an installed Amends, in `docs/` in a checkout."""

from pathlib import Path

_PLACES = (Path(__file__).with_name("runbooks"), Path(__file__).parents[1] / "docs" / "runbooks")


def runbook(name: str) -> str | None:
    """The text of a runbook such as ``cleanup_exhausted.md``, or None if there is none."""
    for place in _PLACES:
        file = place / name
        if file.is_file():
            return file.read_text(encoding="utf-8")
    return None
