"""Money at the edges of what may be asked: no end gives back more than was taken, and none takes long to reckon."""

import asyncio
import time
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from actors.fields import MAX_RATE
from actors.money.policy import Cause
from amends.runtime.identity import Identity
from amends.values.errors import Rejected
from supervisors.api.policies import PolicyEvaluate, PolicyQuestions
from supervisors.policy_file import BUILT_IN, built_in, read
from tests.hostile.values import changed, given, tried

NONE: Any = None
LOOP: Final = asyncio.Runner()
CAUSES: Final[tuple[Cause, ...]] = ("release", "force_release", "node_offline", "node_rebooted")
FINE: Final = (
    BUILT_IN.read_text(encoding="utf-8").replace("3_600_000_000", "1").replace("unit_us = 1_000_000", "unit_us = 1")
)
POLICIES: Final = (built_in(), read(FINE.encode(), "fine"))
WITHIN_S: Final = 1.0  # of the processor, far above what any takes
edges = st.sampled_from((0, 1, 59_999_999, 60_000_000, 3_600_000_000, 2**53, 2**62)) | st.integers(0, 2**62)
good = st.fixed_dictionaries(
    {"rate_uminor_per_hour": st.sampled_from((0, 1, MAX_RATE)) | st.integers(0, MAX_RATE), "started_us": edges,
     "cause": st.sampled_from(CAUSES), "stop_us": edges, "posted_through_us": edges},
    optional={"reason": st.sampled_from(("platform_fault", "x")), "prior_credits": st.sampled_from((0, 1, 2**53))},
)  # fmt: skip
GIVEN: Final = {
    "rate_uminor_per_hour": 1, "started_us": 0, "cause": "release", "stop_us": 1, "posted_through_us": 0, "reason": "r",
    "prior_credits": 0, "later_cause": "release", "later_stop_us": 0,
}  # fmt: skip


@given(good | good.flatmap(lambda one: st.builds(lambda at: {**one, "later_cause": "node_offline", "later_stop_us": at},
                                                  edges)) | changed(GIVEN), st.sampled_from(POLICIES))  # fmt: skip
def test_whatever_an_end_is_it_gives_back_no_more_than_it_took(body: Any, policy: Any) -> None:
    request, error = tried(msgspec.ValidationError, msgspec.convert, body, PolicyEvaluate)
    if error is not None:
        return
    began = time.process_time()
    answer = PolicyQuestions(NONE, policy)._evaluate(request, Identity("olga"))
    found, error = tried(Rejected, LOOP.run, answer)
    assert time.process_time() - began < WITHIN_S
    if error is not None:
        assert error.details["field"] in ("later_cause", "later_stop_us")
        return
    taken, given_back = found["posted"] + found["final"] + found["minimum"], found["overrun"] + found["policy_credit"]
    assert min(found["posted"], found["final"], found["minimum"], found["overrun"], found["policy_credit"]) >= 0
    assert given_back <= max(0, taken - request.prior_credits)
    assert found["net"] == taken - request.prior_credits - given_back
    msgspec.json.encode(found)
