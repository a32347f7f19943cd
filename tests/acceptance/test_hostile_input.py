"""Hostile requests from outside: each is refused with its documented code, names the field, and changes nothing."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from tests.acceptance.hostile import COMMANDS, HOSTILE, RAW, replaced, without
from tests.acceptance.machine import CUSTOMER_KEY
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 64 * 1024
CODES = {"signed": "bad_signature"}  # by role; a signature is looked at before what it signs


async def unchanged(world: World, before: dict[str, int]) -> None:
    """No table has a row more or less."""
    after = await world.counts()
    assert after == before, {name: (before.get(name), n) for name, n in after.items() if n != before.get(name)}


async def complaints(
    world: World, subject: str, requests: Iterable[tuple[str, Any]], field: str = "", code: str = "invalid_request"
) -> list[str]:
    """What is wrong with the answers to requests that must all be refused with 400, under the name of each."""
    answers = [(name, await refusal(world, subject, data, field, code)) for name, data in requests]
    return [f"{subject}, {name}: {complaint}" for name, complaint in answers if complaint]


async def refusal(world: World, subject: str, data: Any, field: str = "", code: str = "invalid_request") -> str:
    """What is wrong with the answer to a request that must be refused with 400; empty if nothing."""
    try:
        reply = await world.ask(subject, data)
    except TimeoutError:
        return "no reply"
    if reply["ok"]:
        return "accepted"
    error = reply["error"]
    if (error["code"], error["http"], error["retryable"]) != (code, 400, False):
        return f"refused with {error}"
    if field and field.rpartition(".")[2] not in f"{error['details'].get('field', '')} {error['message']}":
        return f"the field is not named: {error}"
    return ""


async def quiet(world: World) -> dict[str, int]:
    """The counts of all tables, once nothing is under way."""
    found = {"counts": await world.counts()}

    async def same() -> bool:
        now = await world.counts()
        rest, found["counts"] = now == found["counts"], now
        return rest

    await until(same, "nothing is under way", pause_s=0.2)
    return found["counts"]


async def test_every_command_the_service_publishes_is_tried(world: World) -> None:
    roles = await world.endpoint_roles()
    changing = {subject for subject, role in roles.items() if role in {"caller", "operator"}}
    assert changing == set(COMMANDS)


@pytest.mark.parametrize("subject", COMMANDS)
async def test_a_hostile_value_is_refused_by_its_field_and_changes_nothing(world: World, subject: str) -> None:
    body, kinds, optional = COMMANDS[subject]
    before = await quiet(world)
    wrong = []
    for field, kind in kinds.items():
        requests = [(f"{field} = {str(value)[:80]!r}", replaced(body, field, value)) for value in HOSTILE[kind]]
        if field not in optional:
            requests += [(f"{field} null", replaced(body, field, None)), (f"no {field}", without(body, field))]
        wrong += await complaints(world, subject, requests, field)
    assert wrong == [], "\n".join(wrong)
    await unchanged(world, before)


@pytest.mark.parametrize("subject", COMMANDS)
async def test_unknown_fields_are_refused_by_their_name(world: World, subject: str) -> None:
    body, kinds, _ = COMMANDS[subject]
    before = await quiet(world)
    for name in ("colour", "__class__", "state", "'; --", "a" * 1000):
        assert await refusal(world, subject, {**body, name: 1}, name) == "", name
    if "ssh" in kinds:
        assert await refusal(world, subject, replaced(body, "ssh.password", "x"), "password") == ""
    await unchanged(world, before)


async def test_what_is_no_request_at_all_is_refused_on_every_subject(world: World) -> None:
    roles = await world.endpoint_roles()
    before = await quiet(world)
    wrong = []
    for subject, role in roles.items():
        bodies = [*RAW, b""] if subject in COMMANDS else RAW
        named = ((str(raw[:40]), raw) for raw in bodies)
        wrong += await complaints(world, subject, named, code=CODES.get(role, "invalid_request"))
    assert wrong == [], "\n".join(wrong)
    await unchanged(world, before)


async def test_a_request_may_have_64_kib_and_no_more(world: World) -> None:
    before = await quiet(world)
    for subject, role in (await world.endpoint_roles()).items():
        body = json.dumps(COMMANDS[subject][0] if subject in COMMANDS else {}).encode()
        code = CODES.get(role, "invalid_request")
        assert await refusal(world, subject, body.ljust(LIMIT + 1), code=code) == "", subject
        assert await refusal(world, subject, b'{"a": "' + b"x" * 900_000 + b'"}', code=code) == "", subject
    await unchanged(world, before)
    largest = json.dumps({"account_id": world.new_name("large"), "currency": "usd"}).encode().ljust(LIMIT)
    assert (await world.ask("cmd.account.create", largest))["ok"]


async def test_hostile_words_that_are_allowed_are_kept_as_they_are(world: World) -> None:
    # given text that would hurt if anybody pasted it into SQL or a shell
    words = ["'; DROP TABLE allocations; --", "$(reboot)`id`", "<script>alert(1)</script>", "%s%n{0}", "𝕬 ä \u202e"]
    for word in words:
        allocation_id = await world.request(node_labels={"zone": "nowhere"}, external_ref=word)
        # then it is a value, and nothing else
        row = await world.one("SELECT * FROM public_v1.allocation WHERE allocation_id = $1", allocation_id)
        assert row["external_ref"] == word
        got = await world.ok("qry.allocation.list", {"external_ref": word})
        assert [item["allocation_id"] for item in got["items"]] == [allocation_id]
        await world.release(allocation_id)


async def test_a_comment_in_a_key_never_reaches_a_machine(world: World) -> None:
    machine = await world.add_machine()
    allocation_id = await world.rent(
        node_id=machine.node_id, ssh_public_key=f'  {CUSTOMER_KEY} \' ; rm -rf / # "$(id)"  '
    )
    (user,) = machine.ssh.table.users.values()
    assert user.key_line.endswith(" ".join(CUSTOMER_KEY.split(" ")[:2]))
    assert user.key_line.startswith("restrict,pty,port-forwarding ")
    assert await machine.lets_in(allocation_id)
    await world.release(allocation_id)
    await world.cleaned(allocation_id)
    await machine.stop()


async def test_heartbeats_and_results_of_nobody_or_of_nonsense_change_nothing(world: World) -> None:
    # given
    machine = await world.add_machine()
    machine.beating = False
    before = await quiet(world)
    node = await world.node(machine.node_id)
    machine.beating = True
    bodies = [*RAW, b"", b'{"boot_id": 5}', b'{"boot_id": "' + b"x" * 100_000 + b'"}', b'{"boot_id": "a\\u0000b"}']
    # when
    for raw in bodies:
        for subject in (f"hb.{machine.node_id}", f"result.{machine.node_id}", "hb.unknown", "result.unknown", "hb.a.b"):
            await world.nats.publish(f"amends.v1.{subject}", raw)
    for beat in ({"boot_id": "other", "seq": 1, "sent_us": 1}, {"boot_id": "x", "seq": -1, "sent_us": 2**70}):
        await world.nats.publish("amends.v1.hb.unknown", json.dumps(beat).encode())
    await world.nats.flush()
    # then the node is what it was, and still beats
    now = await world.node_is(machine.node_id, "ready")
    assert (now["boot_id"], now["epoch"], now["state"]) == (node["boot_id"], node["epoch"], "ready")

    async def beats() -> bool:
        row = await world.node(machine.node_id)
        assert row["state"] in {"ready", "suspect"}
        return bool(row["last_heartbeat_us"] > node["last_heartbeat_us"] and row["state"] == "ready")

    await until(beats, "the node beats")
    after = await quiet(world)
    assert after["nodes"] == before["nodes"]
    assert after["message_quarantine"] == 0
    await machine.stop()


async def test_a_command_that_wants_no_reply_is_done_all_the_same(world: World) -> None:
    name = world.new_name("silent")
    body = json.dumps({"account_id": name, "currency": "usd"}).encode()
    await world.nats.publish("amends.v1.cmd.account.create", body, headers={"Idempotency-Key": name})

    async def there() -> Any:
        return await world.rows("SELECT * FROM public_v1.account WHERE account_id = $1", name)

    await until(there, "the account is there")
