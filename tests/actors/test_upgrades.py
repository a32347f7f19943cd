"""Bodies as the release before has stored them, brought up when they are first touched, and what goes on from there."""

import json
from typing import Any

import msgspec
import pytest

from actors.allocation.kind import ALLOCATION
from actors.allocation.messages import RetryCleanup
from actors.allocation.state import Allocation, create_ref
from actors.allocation.upgrades import in_parts
from actors.node.kind import NODE
from amends.domain.kinds import ActorState
from amends.runtime.store import Store
from amends.values.canonical import canonical
from tests.actors.stored_bodies import stored
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


# Where the fields of flat bodies have gone: of allocations up to version 2, of nodes up to version 1.
PLACES = {
    "allocation": {
        "node_epoch": "setup.node_epoch", "attempt_id": "setup.attempt_id", "failing": "setup.failing",
        "activation_tries": "rental.tries", "activated_us": "rental.activated_us", "access": "rental.access",
        "billing_state": "billing.state", "meter_id": "billing.meter_id", "policy_version": "billing.policy_version",
        "policy_sha256": "billing.policy_sha256", "stopped_us": "billing.stopped_us",
        "leaving": "ending.leaving", "accepted_us": "ending.accepted_us", "release_cause": "ending.cause",
        "ended_us": "ending.ended_us",
        "locked": "cleanup.locked", "cleanup_attempts": "cleanup.attempts", "cleanup_run": "cleanup.run",
        "cleanup_operator": "cleanup.operator", "cleanup_superseded": "cleanup.superseded",
        "debt_id": "cleanup.debt_id", "debt_since_us": "cleanup.debt_since_us",
    },
    "node": {
        "probing": "probes.step", "probe_tries": "probes.tries", "probe_failed_us": "probes.failed_us",
        "unproven": "probes.unproven",
        "returning": "way_back.returning", "dirty_acknowledged": "way_back.dirty_acknowledged",
        "reachable": "way_back.reachable", "reconciling": "way_back.step", "reconcile_tries": "way_back.tries",
    },
}  # fmt: skip
KINDS = {"allocation": ALLOCATION, "node": NODE}
FLAT = {"allocation": stored("allocation", 2), "node": stored("node", 1)}
NAMES = [(kind, name) for kind, bodies in FLAT.items() for name in bodies]


def brought_up(kind: str, body: str, identifier: str) -> ActorState:
    store = Store(KINDS)
    store.load(kind, identifier, body.encode())
    state = store.get(kind, identifier)
    assert state is not None, store.damage(kind, identifier)
    return state


def read(body: str) -> Allocation:
    state = brought_up("allocation", body, ID)
    assert isinstance(state, Allocation)
    return state


def leaves(value: dict[str, Any], parts: set[str]) -> dict[str, Any]:
    """The fields of a body, those of its parts by their path."""
    found: dict[str, Any] = {}
    for name, each in value.items():
        found |= {f"{name}.{inner}": given for inner, given in each.items()} if name in parts else {name: each}
    return found


YOUNGER = {"offline"}  # states that no release of flat bodies had


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_a_flat_body_of_every_state_and_with_every_field_that_has_moved(kind: str) -> None:
    assert {name.partition(":")[0] for name in FLAT[kind]} == set(KINDS[kind].states) - YOUNGER
    said = {field for _, body in FLAT[kind].values() for field in json.loads(body)}
    assert set(PLACES[kind]) <= said


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_each_field_of_a_flat_body_is_where_it_belongs(kind: str, name: str) -> None:
    identifier, body = FLAT[kind][name]
    before, places = json.loads(body), PLACES[kind]
    state = brought_up(kind, body, identifier)
    after = leaves(json.loads(canonical(state)), {place.partition(".")[0] for place in places.values()})
    assert after == {places.get(field, field): value for field, value in before.items()} | {"v": KINDS[kind].v}
    assert brought_up(kind, canonical(state).decode(), identifier) == state


def test_an_upgrade_is_pure_and_loses_nothing_of_what_it_does_not_know() -> None:
    assert in_parts({"state": "active", "locked": True, "later": 1}, ID) == {
        "state": "active", "cleanup": {"locked": True}, "later": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "ref"),
    [(PROVISIONING, "0123456789abcdef0123456789abcdef:0123456789abcdef"), (ACTIVE, "abc:def"), (GIVEN_UP, "abc:def")],
    ids=["provisioning", "active", "given up"],
)
def test_what_version_1_may_have_made_is_owed(body: str, ref: str) -> None:
    state = read(body)
    (owed,) = state.owed
    assert (state.v, owed.step, owed.target, owed.what, create_ref(state)) == (
        3, "ssh.user-remove", "node:n1", "ssh.user-create", ref,
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
    assert (state.cleanup_pending, state.owed, state.v) == (False, (), 3)
