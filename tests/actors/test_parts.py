"""A part of a state is changed by the module of its phase, and by no other."""

import re
from pathlib import Path
from typing import get_type_hints

import pytest

from actors.allocation.state import Allocation
from actors.differences import Look
from actors.node.state import Node
from amends.domain.kinds import ActorState

OWNERS = {
    Allocation: {
        "setup": {"r02_setup"}, "rental": {"r03_activation"}, "billing": {"billing"}, "ending": {"release"},
        "cleanup": {"r04_cleanup"},
    },
    Node: {
        "probes": {"probes"}, "silence": {"r08_offline"}, "reboot": {"r08_offline"}, "way_back": {"reconcile"},
        "look": {"world"},
    },
}  # fmt: skip
ACTORS = Path(__file__).parents[2] / "actors"


@pytest.mark.parametrize("state", OWNERS)
def test_each_part_has_one_module_that_changes_it(state: type[ActorState]) -> None:
    changing: dict[str, set[str]] = {}
    for file in (ACTORS / state.__name__.lower()).glob("*.py"):
        text = file.read_text(encoding="utf-8")
        for part in re.findall(r'd\.part\(\s*"(\w+)"', text):
            changing.setdefault(part, set()).add(file.stem)
    assert changing == OWNERS[state]
    modules = (state.__module__, Look.__module__)
    parts = {name for name, hint in get_type_hints(state).items() if getattr(hint, "__module__", "") in modules}
    assert parts == set(changing)
