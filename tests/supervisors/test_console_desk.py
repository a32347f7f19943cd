"""The console's forms: every command that may settle a case can be filled in, and says what the API takes."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from adapters.cli.verbs import all_verbs
from amends.domain.api import example_of
from amends.domain.domain import requests_of
from amends.domain.matrix import CaseKind
from amends.runtime.identity import Headers, Identity
from amends.values.errors import Rejected
from supervisors.boot.console import Desk
from supervisors.matrix import CASES
from supervisors.rental import RENTAL

REQUESTS = requests_of((RENTAL,))
MINTED = "01m8g43zg1e03vzpesz1t2e51q"
PREFIXES = {"allocation": "alloc", "notification": "ntf", "event": "evt", "attachment": "attach"}
NAMES = {
    **{each: f"{PREFIXES.get(each, each)}_{MINTED}" for each in ("case", "meter", *PREFIXES)},
    **dict.fromkeys(("host_key", "customer_key"), "ssh-ed25519 AAAA"),
    **dict.fromkeys(("node", "account", "namespace", "payment"), "x1"),
}


async def nobody() -> list[Mapping[str, Any]]:
    """No node."""
    return []


def olga(headers: Headers, role: str) -> Identity:
    """Whoever asks."""
    return Identity("olga", role="operator")


@pytest.fixture
def desk() -> Desk:
    """One behind which there is no runtime."""
    nothing: Any = None
    return Desk(
        nothing, (), all_verbs(REQUESTS.values()), olga, silent=lambda: False, fleet=nobody, now=dict,
        samples=lambda: [("amends_x", "gauge", "what it is", [({"state": "open"}, 2)]),
                         ("amends_h", "histogram", "not shown", [("_sum", {}, 1.0, None)])],
        turns=lambda: 7,
    )  # fmt: skip


def flat(data: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """The fields of a request as a person would fill them in."""
    found: dict[str, str] = {}
    for name, value in data.items():
        if isinstance(value, Mapping) and name != "labels":
            found |= flat(value, f"{before}{name}.")
        elif isinstance(value, Mapping):
            found[name] = ", ".join(f"{key}={each}" for key, each in value.items())
        elif isinstance(value, list):
            found[f"{before}{name}"] = ", ".join(map(str, value))
        elif isinstance(value, bool):
            found |= {f"{before}{name}": "yes"} if value else {}
        else:
            found[f"{before}{name}"] = str(value)
    return found


@pytest.mark.parametrize("kind", CASES, ids=[kind.kind for kind in CASES])
async def test_what_settles_a_case_can_be_sent_from_its_page(kind: CaseKind, desk: Desk) -> None:
    for subject in kind.commands:
        example = example_of(REQUESTS[subject], NAMES)
        form = desk.form(subject, {})
        assert form is not None
        data = desk.data(form, flat(example))
        assert data == {name: value for name, value in example.items() if value is not False}
        msgspec.convert(data, REQUESTS[subject])
        for field in form.fields:
            if field.required:
                with pytest.raises(Rejected) as refused:
                    desk.data(form, {**flat(example), field.name: " "})
                assert refused.value.details == {"field": field.name}


def test_what_cannot_be_read_names_its_field(desk: Desk) -> None:
    form = desk.form("ops.billing.post_window", {})
    assert form is not None
    with pytest.raises(Rejected) as refused:
        desk.data(form, dict.fromkeys((field.name for field in form.fields), "never"))
    assert refused.value.details["field"] in {"window_start_us", "amount_minor"}
    assert desk.form("qry.node.list", {}) is None, "a question is no command"


def test_no_file_of_the_runtime_is_read_for_a_form(desk: Desk) -> None:
    form = desk.form("ops.node.update", {})
    assert form is not None
    given = {"node_id": "n1", "ssh.host_key": "@/etc/passwd", "reason": "@/etc/passwd"}
    assert desk.data(form, given) == {"node_id": "n1", "ssh": {"host_key": "@/etc/passwd"}, "reason": "@/etc/passwd"}


def test_figures_are_those_of_metrics_but_histograms(desk: Desk) -> None:
    assert desk.figures() == [("amends_x{state=open}", "what it is", 2.0)]
    assert (desk.changes, desk.log_in("token").may_change) == (7, True)
