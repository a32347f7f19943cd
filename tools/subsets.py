"""Write production.txt, agent.txt and client.txt: what each needs of constraints.txt, with its hashes.

Made from constraints.txt and what the installed distributions say that they need; `tests/docs/test_subsets.py` fails
when the files differ from that.
"""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
AGENT: Final = ("msgspec", "nats-py")  # what supervisors/agent.py imports
CLIENT: Final = ("msgspec", "nats-py")  # what src/amends_client imports
PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)(\[[^]]*\])?==.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)


def _needed(names: Iterable[str]) -> set[str]:
    """These distributions and all that they need, by canonical name."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        if wanted.marker is not None and not any(
            wanted.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)
        ):
            continue
        name = canonicalize_name(wanted.name)
        if name in found:
            continue
        found.add(name)
        for text in requires(name) or ():
            each = Requirement(text)
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                waiting.append(Requirement(re.sub(r";.*", "", text)))
    return found


def subset(names: Iterable[str], purpose: str) -> str:
    """The pins of constraints.txt that these distributions need."""
    needed = _needed(names)
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = [found[0].rstrip() for found in PIN.finditer(text) if canonicalize_name(found[1]) in needed]
    lines = [line for pin in pins for line in pin.splitlines() if not line.lstrip().startswith("#")]
    head = f"# {purpose}: pip install --require-hashes -r this file, then pip install --no-deps amends"
    return "\n".join([head, "# Written by `python -m tools.subsets` from constraints.txt.", *lines, ""])


def files() -> dict[str, str]:
    """File → its text."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        "production.txt": subset(project["dependencies"], "What a runtime needs"),
        "agent.txt": subset(AGENT, "What a node's agent needs"),
        "client.txt": subset(CLIENT, "What a program that uses amends_client needs"),
    }


if __name__ == "__main__":
    for name, text in files().items():
        (ROOT / name).write_text(text, encoding="utf-8")
