"""Write src/amends_client/api: rows, kinds, answers and one method for each subject, from the tables that serve them.

`python -m tools.client` (`./run pages`) writes the files; tests/docs/test_client.py fails when they differ. The same
tables make docs/asyncapi.json and the reference: endpoints, requests as declared, views, automata.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

from tools import client_methods, client_types

FOLDER: Final = Path(__file__).parents[1] / "src" / "amends_client" / "api"


def files() -> dict[str, str]:
    """File → its text, formatted as `./run fix` does."""
    parts = (
        client_types.rows, client_types.kinds, client_types.answers, client_methods.callers, client_methods.inspection,
        client_methods.operators,
    )  # fmt: skip
    made = {f"{part.__name__}.py": "\n".join(part()) for part in parts}
    made["__init__.py"] = "".join(client_types.head("What is made from the tables of the runtime."))
    return {name: formatted(name, text) for name, text in made.items()}


def formatted(name: str, text: str) -> str:
    """As ruff sorts its imports and formats it."""
    at = ["--stdin-filename", str(FOLDER / name), "-"]
    for arguments in (["check", "--quiet", "--fix-only", "--select", "I,F401", *at], ["format", *at]):
        command = [sys.executable, "-m", "ruff", *arguments]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"{FOLDER.name} written")
