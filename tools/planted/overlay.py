"""Plants a bug in this process alone: its module is compiled from the text with the bug. No file is touched."""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from tools.planted.bugs import ROOT, Bug


def module_of(file: str) -> str:
    """The name under which a file of the packages is imported."""
    path = Path(file.removeprefix("src/"))
    parts = path.parent.parts if path.name == "__init__.py" else (*path.parent.parts, path.stem)
    return ".".join(parts)


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads the text with the bug; no bytecode is read or kept of it."""

    text = ""

    def get_data(self, path: str) -> bytes:
        return self.text.encode() if path.endswith(".py") else super().get_data(path)

    def path_stats(self, path: str) -> dict[str, float]:
        raise OSError(f"no bytecode of {path} is any use")


class Planter(MetaPathFinder):
    """Finds one module before everybody else does; `planted` says whether it was asked for it."""

    def __init__(self, bug: Bug) -> None:
        self.module, self._file, self._text = module_of(bug.file), ROOT / bug.file, bug.planted()
        self.planted = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of that module, None of any other."""
        if fullname != self.module:
            return None
        self.planted = True
        loader = _Loader(fullname, str(self._file))
        loader.text = self._text
        return importlib.util.spec_from_file_location(fullname, self._file, loader=loader)


def plant(bug: Bug) -> Planter:
    """From now on the module has the bug; it must not have been imported before."""
    planter = Planter(bug)
    if planter.module in sys.modules:
        raise ImportError(f"{planter.module} is there already, without the bug {bug.name}")
    sys.meta_path.insert(0, planter)
    return planter
