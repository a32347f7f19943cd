"""Modules that are loaded when they are first used: most verbs of the program never come to that."""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class _Late(ModuleType):
    """Stands for a module until somebody asks it for an attribute. `LazyLoader`'s loads at the next `import`."""

    def __getattr__(self, attribute: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), attribute)


def load_late(name: str) -> None:
    """Have `import NAME` load nothing until the module is used.

    nats-py imports aiohttp for its web sockets alone, and that is half of what a client verb loads.
    """
    if name not in sys.modules and find_spec(name) is not None:
        sys.modules[name] = _Late(name)
