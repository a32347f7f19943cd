"""Domains that do not hold together are refused at start, with a message that names the gap."""

from collections.abc import Callable

import msgspec
import pytest

from amends.domain.checks import check_domains, join
from amends.domain.domain import Domain
from amends.domain.matrix import CaseKind, Matrix, MatrixRow
from amends.domain.versions import Message
from amends.values.errors import BadDomain
from examples.switch_port import PORT, SWITCH, row
from supervisors.rental import RENTAL


def with_rows(*rows: MatrixRow) -> Domain:
    return msgspec.structs.replace(SWITCH, matrix=Matrix("1", rows))


def with_port(**changes: object) -> Domain:
    return msgspec.structs.replace(SWITCH, kinds=(msgspec.structs.replace(PORT, **changes),))


class Unchained(msgspec.Struct):
    """A row of no chain."""


class Versioned(Message, frozen=True):
    """A message that would not know whose version it says."""

    v: int


COMPLETE = row("S2", ("outbox.publish", "notification.publish"))


@pytest.mark.parametrize(
    ("domain", "named"),
    [
        (with_rows(row("S1", ("vlan.set", "vlan.clear")), COMPLETE), "step 'port.up' needs exactly one matrix row"),
        (
            with_rows(row("S1", ("vlan.set", "port.up", "vlan.clear")), row("S3", ("port.up",)), COMPLETE),
            "step 'port.up' needs exactly one matrix row for its failures; it has: S1, S3",
        ),
        (
            msgspec.structs.replace(SWITCH, rows=(Unchained,)),
            "row 'Unchained' declares no table with facets: the digest chain would not hold it",
        ),
        (with_port(states={**PORT.states, "bound": "rest"}), "port: the state 'bound' has no exit"),
        (with_port(states={**PORT.states, "binding": ""}), "port: the state 'binding' has no deadline"),
        (with_port(states={**PORT.states, "lost": "forever"}), "port: the state 'lost' cannot be reached"),
        (
            with_port(transitions={**PORT.transitions, ("unbound", "bound"): "no"}),
            "port: the terminal state 'unbound' has an exit",
        ),
        (
            msgspec.structs.replace(SWITCH, cases=()),
            "row S1 opens the case 'port_stuck', which the domain 'switch' does not declare",
        ),
        (
            msgspec.structs.replace(SWITCH, cases=(CaseKind("port_stuck", (), "port_stuck.md"),)),
            "case 'port_stuck' names no command",
        ),
        (
            with_port(handlers={**PORT.handlers, Versioned: None}),
            "message 'Versioned' has a field 'v', which says the version of what is stored",
        ),
        (
            msgspec.structs.replace(
                SWITCH, steps=tuple(msgspec.structs.replace(step, args=Versioned) for step in SWITCH.steps)
            ),
            "step 'vlan.set' has a field 'v', which says the version of what is stored",
        ),
    ],
)
def test_a_gap_is_named(domain: Domain, named: str) -> None:
    with pytest.raises(BadDomain) as refused:
        check_domains([domain], lambda name: True)
    assert named in str(refused.value)


def test_a_case_without_runbook_is_refused() -> None:
    with pytest.raises(BadDomain, match=r"case 'port_stuck' has no runbook: port_stuck\.md is missing"):
        check_domains([SWITCH], lambda name: False)


@pytest.mark.parametrize("domain", [SWITCH, RENTAL])
def test_what_holds_together_is_taken(domain: Domain) -> None:
    always: Callable[[str], bool] = lambda name: True  # noqa: E731
    check_domains([domain], always)


def test_two_domains_join_into_one_matrix_and_a_shared_row_id_is_refused() -> None:
    assert join([SWITCH]).sha256 == join([SWITCH]).sha256
    with pytest.raises(BadDomain, match="S1"):
        join([SWITCH, SWITCH])
