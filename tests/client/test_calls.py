"""A call is sent again under its key while that may help, is refused at once where not, and ends by its deadline."""

import json

import pytest

from amends_client import Refused, SshAddress, Unreachable
from amends_client.link import Silence
from tests.client.scripted import Script, no, ok, rental

ACCOUNT = ok(account={"account_id": "acme", "state": "open", "of_a_later_release": 1})


async def test_a_command_is_sent_again_under_one_key_until_it_is_answered() -> None:
    # given a runtime that is replaced
    script = Script(Silence("gone"), no("db_unavailable", 503), no("throttled", 429, retry_after_ms=3000), ACCOUNT)
    # when an account is made
    made = await script.client(token="secret").account.create(account_id="acme", currency="usd")
    # then every request was the same, and the pauses grew, or were those that were asked for
    assert made.row.account_id == "acme"
    assert {(one.subject, one.data, tuple(one.headers.items())) for one in script.asked} == {
        (
            "cmd.account.create",
            b'{"account_id": "acme", "currency": "usd"}',
            (("Idempotency-Key", script.asked[0].key), ("Authorization", "Bearer secret")),
        )
    }
    assert len(script.asked) == 4
    first, second, third = script.slept
    assert 0.05 <= first <= 0.1 <= second <= 0.2
    assert third == 3


async def test_every_call_has_a_key_of_its_own_or_the_callers() -> None:
    script = Script(ACCOUNT)
    client = script.client()
    for _ in "12":
        await client.account.create(account_id="acme", currency="usd")
    await client.account.create(account_id="acme", currency="usd", key="mine")
    with pytest.raises(ValueError, match="key is empty"):
        await client.account.create(account_id="acme", currency="usd", key="")
    first, second, third = (one.key for one in script.asked)
    assert len({first, second, third}) == 3
    assert third == "mine"


async def test_a_refusal_is_raised_at_once_with_all_that_was_said() -> None:
    script = Script(no("illegal_transition", 409, state="failed"))
    with pytest.raises(Refused, match="409 illegal_transition: no") as caught:
        await script.client().allocation.release(allocation_id="alloc_1", expected_version=3)
    error = caught.value
    assert (error.code, error.http, error.message, error.details) == (
        "illegal_transition",
        409,
        "no",
        {"state": "failed"},
    )
    assert (error.request_id, error.trace_id) == ("req_1", "a" * 32)
    assert script.slept == []
    assert script.asked[0].headers["Expected-Version"] == "3"


async def test_who_is_not_reached_until_the_deadline_is_told_the_key() -> None:
    script = Script(Silence("no answer"))
    with pytest.raises(Unreachable, match=r"it may have been done.*'mine'") as caught:
        await script.client().allocation.release(allocation_id="alloc_1", key="mine", deadline_s=12)
    assert caught.value.key == "mine"
    assert script.now <= 12
    assert [one.timeout_s for one in script.asked][:2] == [5, 5]


async def test_what_failed_inside_may_have_been_done_and_the_key_is_told() -> None:
    script = Script(no("internal", 500))
    with pytest.raises(Unreachable) as unknown:
        await script.client().account.create(account_id="acme", currency="usd")
    assert (unknown.value.key, len(script.asked)) == (script.asked[0].key, 1)
    with pytest.raises(Refused):  # a question has changed nothing
        await script.client().account.get("acme")


async def test_who_is_throttled_until_the_deadline_knows_that_nothing_was_done() -> None:
    script = Script(no("throttled", 429))
    with pytest.raises(Refused, match="throttled"):
        await script.client(deadline_s=1).account.create(account_id="acme", currency="usd")
    # but not if one of the tries may have been heard
    script = Script(Silence("no answer"), no("throttled", 429))
    with pytest.raises(Unreachable):
        await script.client(deadline_s=10).account.create(account_id="acme", currency="usd")


async def test_a_long_question_is_asked_once() -> None:
    script = Script(ok(valid=True, entries=7))
    answer = await script.client().ops.audit.verify(deadline_s=600)
    assert (answer.valid, answer.entries, answer.problem) == (True, 7, None)
    assert [(one.timeout_s, one.key) for one in script.asked] == [(600, None)]


async def test_an_object_in_a_request_is_sent_as_the_reference_has_it() -> None:
    script = Script(ok(node={"node_id": "n1", "state": "registered"}))
    ssh = SshAddress(host="10.0.0.1", port=22, host_key="ssh-ed25519 …")
    node = await script.client().node.register(node_id="n1", ssh=ssh, labels={"site": "a"})
    assert (node.id, node.row.state) == ("n1", "registered")
    assert json.loads(script.asked[0].data) == {
        "node_id": "n1",
        "ssh": {"host": "10.0.0.1", "port": 22, "host_key": "ssh-ed25519 …"},
        "labels": {"site": "a"},
    }


async def test_a_list_goes_on_where_the_page_before_ended() -> None:
    pages = [
        ok(items=[rental("active")], cursor="c1"),
        ok(items=[], cursor="c2"),
        ok(items=[rental("failed")], cursor=None),
    ]
    script = Script(*pages)
    found = [row.state async for row in script.client().allocation.list(account_id="acme", page=1, order="newest")]
    assert found == ["active", "failed"]
    assert [json.loads(one.data).get("cursor") for one in script.asked] == [None, "c1", "c2"]
    assert json.loads(script.asked[0].data) == {"account_id": "acme", "limit": 1, "order": "newest"}


async def test_a_webhook_is_handed_on_as_it_came() -> None:
    script = Script({**ok(duplicate=True), "duplicate": True})
    assert await script.client().forward_webhook(b'{"id": "evt_1"}', "t=1,v1=abc") is True
    (asked,) = script.asked
    assert (asked.subject, asked.data, asked.headers) == (
        "ingress.stripe",
        b'{"id": "evt_1"}',
        {"Stripe-Signature": "t=1,v1=abc"},
    )
