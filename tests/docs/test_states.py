"""docs/states.md is what tools/states.py makes of the tables, and draws each transition once."""

import re

import msgspec

from supervisors.rental import RENTAL
from tests.kernel.switch import SWITCH
from tools import states

ARROW = re.compile(r"^    (\S+) --> (\S+): (.+)$", re.MULTILINE)


def test_the_page_is_what_the_tables_say() -> None:
    assert states.PAGE.read_text(encoding="utf-8") == states.page(), "run: python -m tools.states"


def test_every_transition_of_every_kind_is_drawn_once() -> None:
    drawn = [(source.replace("[*]", ""), target) for source, target, _ in ARROW.findall(states.page())]
    wanted = [pair for kind in RENTAL.kinds for pair in kind.transitions]
    assert drawn == wanted


def test_no_label_holds_what_would_end_it() -> None:
    assert [text for _, _, text in ARROW.findall(states.page()) if ";" in text or ":" in text] == []
    assert states.label("a; b: c") == "a, b  c"


def test_a_table_that_changes_changes_the_page() -> None:
    port = SWITCH.kinds[0]
    changed = msgspec.structs.replace(port, transitions={**port.transitions, ("bound", "unbound"): "unbind"})
    domain = msgspec.structs.replace(SWITCH, kinds=(changed, *SWITCH.kinds[1:]))
    assert "    bound --> unbound: unbind\n" in states.page(domain)
    assert "    bound --> unbound: unbind\n" not in states.page(SWITCH)
