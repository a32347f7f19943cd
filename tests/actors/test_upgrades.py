"""Bodies as the release before has stored them, brought up when they are first touched, and what goes on from there."""

import msgspec
import pytest

from actors.allocation.kind import ALLOCATION
from actors.allocation.messages import RetryCleanup
from actors.allocation.state import Allocation, create_ref
from amends.runtime.store import Store
from tests.adapters.postgres.story import Book, ready_node

ID = "alloc_01kf0rdqqtfktawh7yv2vbgh6d"
USER = "am-01kf0rdqqtfktawh7yv2vbgh6d"
# As 0.2.0 wrote them: version 1 has no `v`.
COMMON = (
    '"account_id":"acct1","rate_uminor_per_hour":5000000,"key_line":"ssh-ed25519 AAAA","requested_us":1768478402000000,'
    '"trace_id":"0123456789abcdef0123456789abcdef","span_id":"0123456789abcdef","node_id":"n1","node_epoch":1,'
    '"attempt_id":"task_01kf0rdqqtfktawh7yv2vbgh6d"'
)
PROVISIONING = f'{{"state":"provisioning","version":2,"event_seq":2,{COMMON}}}'
ACTIVE = (
    f'{{"state":"active","version":6,"event_seq":4,{COMMON},"create_ref":"abc:def","user_may_exist":true,'
    '"activated_us":1768478403000000,"billing_state":"accruing","meter_id":"meter_1"}'
)
GIVEN_UP = (
    f'{{"state":"released","version":9,"event_seq":6,"owing":true,"cases":{{"cleanup_exhausted":"case_1"}},{COMMON},'
    '"create_ref":"abc:def","user_may_exist":true,"locked":true,"cleanup_pending":true,"cleanup_attempts":2,'
    '"cleanup_run":"R04","debt_id":"debt_1","debt_since_us":5}'
)


def read(body: str) -> Allocation:
    store = Store({"allocation": ALLOCATION})
    store.load("allocation", ID, body.encode())
    state = store.get("allocation", ID)
    assert isinstance(state, Allocation), store.damage("allocation", ID)
    return state


@pytest.mark.parametrize(
    ("body", "ref"),
    [(PROVISIONING, "0123456789abcdef0123456789abcdef:0123456789abcdef"), (ACTIVE, "abc:def"), (GIVEN_UP, "abc:def")],
    ids=["provisioning", "active", "given up"],
)
def test_what_version_1_may_have_made_is_owed(body: str, ref: str) -> None:
    state = read(body)
    (owed,) = state.owed
    assert (state.v, owed.step, owed.target, owed.what, create_ref(state)) == (
        2, "ssh.user-remove", "node:n1", "ssh.user-create", ref,
    )  # fmt: skip
    assert owed.args == {
        "node_id": "n1", "user": USER, "allocation": ID, "attempt": "task_01kf0rdqqtfktawh7yv2vbgh6d",
    }  # fmt: skip


def test_what_never_began_owes_nothing() -> None:
    waiting = msgspec.json.decode(PROVISIONING) | {"state": "requested", "node_id": None}
    assert read(msgspec.json.encode(waiting).decode()).owed == ()


async def test_a_cleanup_of_version_1_that_was_given_up_can_be_retried(book: Book) -> None:
    await ready_node(book, "n1")
    book.facts.states["allocation", ID] = read(GIVEN_UP)
    book.facts.debts["n1"] = {"debt_1"}
    message = RetryCleanup(allocation_id=ID, reason="SSH is back")
    decision = await book.command("allocation", ID, message, caller="operator:ada")
    (step,) = decision.steps
    assert (step.name, msgspec.json.decode(step.args)["user"]) == ("ssh.user-remove", USER)
    await book.end(f"allocation:{ID}", "ssh.user-remove")
    state = book.state("allocation", ID)
    assert (state.cleanup_pending, state.owed, state.v) == (False, (), 2)
