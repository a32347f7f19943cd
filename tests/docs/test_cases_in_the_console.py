"""Every kind of case is settled from the console's pages by some acceptance test, on the real parts."""

import ast
from pathlib import Path

from supervisors.matrix import CASES

ACCEPTANCE = Path(__file__).parents[1] / "acceptance"


def test_every_kind_is_settled_by_a_person_who_knows_only_the_console() -> None:
    settled: set[tuple[str, str]] = set()
    for file in ACCEPTANCE.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "settle":
                kind, subject = ast.literal_eval(node.args[1]), ast.literal_eval(node.args[3])
                settled.add((kind, subject))
    commands = {kind.kind: kind.commands for kind in CASES}
    assert {kind for kind, _ in settled} == set(commands)
    assert [(kind, subject) for kind, subject in settled if subject not in commands[kind]] == []
