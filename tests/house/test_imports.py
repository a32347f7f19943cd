"""Imports as one graph over all packages: nothing imports itself by a detour, and every adapter is picked by few."""

import ast
import sys
import tomllib
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.house.test_house import PACKAGES, ROOT, package_files


def module_of(path: Path) -> str:
    """`src/amends/turn/__init__.py` → `amends.turn`."""
    (package,) = (package for package in PACKAGES if path.is_relative_to(package))
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(text: str, known: Mapping[str, str]) -> set[str]:
    """The modules of `known` that a text imports, those for type checking alone and those inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= submodules & known.keys()
            if submodules - known.keys():
                found.add(node.module or "")
    return found & known.keys()


def cycle(modules: Mapping[str, str]) -> list[str]:
    """Modules that import one another in a ring; none where they do not. `modules`: name → text."""
    graph = {name: imports(text, modules) - {name} for name, text in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        ring: list[str] = error.args[1]
        return ring
    return []


def test_a_ring_is_found_also_where_it_is_closed_for_type_checking_only() -> None:
    ring = {
        "p": "",
        "p.one": "from p import two",
        "p.two": "import p.three",
        "p.three": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.one import Thing",
    }
    assert set(cycle(ring)) == {"p.one", "p.two", "p.three"}
    assert cycle({**ring, "p.three": "import os"}) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {module_of(path): path.read_text(encoding="utf-8") for path in package_files()}
    assert {"amends.kernel", "actors.node", "adapters.nats.agent", "supervisors.boot"} <= modules.keys()
    assert cycle(modules) == []


def test_of_every_adapter_it_is_said_who_may_pick_it() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    said = [name for each in settings["contracts"] for name in each.get("protected_modules", ())]
    there = [f"adapters.{path.parent.name}" for path in (ROOT / "adapters").glob("*/__init__.py")]
    assert sorted(said) == sorted(there)
    assert [each["name"] for each in settings["contracts"] if each.get("ignore_imports")] == []


def test_the_client_needs_nats_and_msgspec_and_nothing_else() -> None:
    found = set()
    for path in (ROOT / "src" / "amends_client").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {name.partition(".")[0] for name in names}
    assert found - sys.stdlib_module_names == {"amends_client", "msgspec", "nats"}


def test_every_other_adapter_may_not_know_stripes_library() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = (each for each in settings["contracts"] if each.get("forbidden_modules") == ["stripe"])
    there = {f"adapters.{path.parent.name}" for path in (ROOT / "adapters").glob("*/__init__.py")}
    assert set(contract["source_modules"]) == there - {"adapters.stripe"} | {"supervisors"}
