"""Limits of callers: which one was met, when to come again, and nobody's is another's."""

from typing import Any

import pytest

from actors.allocation.messages import RequestAllocation
from amends.runtime.identity import Identity
from amends.values.errors import Rejected
from supervisors.api.admission import Admission

ONE = Identity("one", ("acme",), commands_per_s=10, open_requests=2)
TWO = Identity("two", ("acme",), commands_per_s=10, open_requests=2)
RENT = RequestAllocation(account_id="acme", ssh_public_key="k", price="small")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0


def test_a_caller_may_send_a_seconds_worth_at_once_and_then_as_time_goes_on() -> None:
    clock = Clock()
    admission = Admission(lambda account: 0, lambda: clock.now)
    for _ in range(10):
        admission.command(ONE)
    with pytest.raises(Rejected) as met:
        admission.command(ONE)
    assert met.value.code == "throttled"
    assert met.value.details["limit"] == "commands_per_s"
    assert 0 < met.value.details["retry_after_ms"] <= 101
    admission.command(TWO)
    clock.now += met.value.details["retry_after_ms"] / 1000
    admission.command(ONE)
    with pytest.raises(Rejected):
        admission.command(ONE)


def test_rentals_on_their_way_count_like_those_that_wait() -> None:
    waiting = {"acme": 1}
    admission = Admission(lambda account: waiting.get(account, 0))
    over = admission.enter(RENT, ONE)
    with pytest.raises(Rejected) as met:
        admission.enter(RENT, ONE)
    assert (met.value.details["limit"], met.value.details["account_id"]) == ("open_requests", "acme")
    over()
    admission.enter(RENT, ONE)()


def test_who_has_no_limits_meets_none() -> None:
    admission = Admission(lambda account: 10**6)
    trusted = Identity("operator", role="operator")
    for _ in range(1000):
        admission.command(trusted)
        admission.enter(RENT, trusted)
    other: Any = object()
    admission.enter(other, ONE)()
