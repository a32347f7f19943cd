"""The fast tier: which tests need no server. Hooks of pytest; `tests/conftest.py` takes them in."""

import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import pytest

SERVERS = (
    "adapters.embedded",
    "adapters.http",
    "adapters.simulated.fleet",
    "adapters.simulated.machine",
    "adapters.simulated.ssh_node",
    "adapters.simulated.stripe_server",
    "aiohttp",
    "asyncssh",
    "nats",
    "tests.acceptance",
)


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what is fast."""
    if _is_fast(item):
        item.add_marker("fast")


def _is_fast(item: pytest.Item) -> bool:
    """Not slow, and neither its module nor one of its fixtures' can start a server."""
    if not isinstance(item, pytest.Function) or item.get_closest_marker("slow"):
        return False
    fixtures = [each for found in item._fixtureinfo.name2fixturedefs.values() for each in found]
    assert item.module is not None
    modules = {item.module.__name__, *(each.func.__module__ for each in fixtures)}
    return not any(map(starts_servers, modules))


@cache
def starts_servers(module: str) -> bool:
    """Whether a module has got something to start a server with, at first hand or from another module of the tests."""
    found = vars(sys.modules[module]).values()
    origins = {str(getattr(each, "__module__", None) or getattr(each, "__name__", "")) for each in found} - {module}
    helpers = {origin for origin in origins if origin.startswith("tests.") and origin in sys.modules}
    return any(origin.startswith(SERVERS) for origin in (module, *origins)) or any(map(starts_servers, helpers))


@pytest.fixture(autouse=True)
def fast_means_no_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of the fast tier that listens, or connects to somebody who does, fails."""

    def watched(name: str) -> Callable[..., None]:
        call = getattr(socket.socket, name)

        def watch(*args: Any) -> None:
            with suppress(BlockingIOError):  # under way
                call(*args)
            raise AssertionError("a fast test reaches no server: see SERVERS in tests/fast.py")

        return watch

    if request.node.get_closest_marker("fast"):
        for name in ("listen", "connect"):
            monkeypatch.setattr(socket.socket, name, watched(name))
