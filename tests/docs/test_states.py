"""tools/states.py draws each transition of the tables once; that its page is new is test_reference's to say."""

import re

import msgspec

from amends.domain.domain import Domain
from examples.switch_port import SWITCH
from supervisors.rental import RENTAL
from tools import states

ARROW = re.compile(r"^    (\S+) --> (\S+): (.+)$", re.MULTILINE)


def drawn(domain: Domain = RENTAL) -> str:
    return "\n".join(states.sections(domain))


def test_every_transition_of_every_kind_is_drawn_once() -> None:
    found = [(source.replace("[*]", ""), target) for source, target, _ in ARROW.findall(drawn())]
    assert found == [pair for kind in RENTAL.kinds for pair in kind.transitions]


def test_no_label_holds_what_would_end_it() -> None:
    assert [text for _, _, text in ARROW.findall(drawn()) if ";" in text or ":" in text] == []
    assert states.label("a; b: c") == "a, b  c"


def test_a_table_that_changes_changes_the_drawing() -> None:
    port = SWITCH.kinds[0]
    changed = msgspec.structs.replace(port, transitions={**port.transitions, ("bound", "unbound"): "unbind"})
    domain = msgspec.structs.replace(SWITCH, kinds=(changed, *SWITCH.kinds[1:]))
    assert "    bound --> unbound: unbind\n" in drawn(domain)
    assert "    bound --> unbound: unbind\n" not in drawn(SWITCH)
