"""Bodies as an older release wrote them, by what they are of: one for each state of an allocation and more."""

import json
from pathlib import Path

FOLDER = Path(__file__).with_name("stored")


def stored(kind: str, version: int) -> dict[str, tuple[str, str]]:
    """What it is of → (id, body)."""
    found = json.loads((FOLDER / f"{kind}_{version}.json").read_text(encoding="utf-8"))
    return {each["name"]: (each["id"], each["body"]) for each in found}
