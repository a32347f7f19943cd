"""Who may ask what, from outside: tokens, roles, accounts, keys of requests, expected versions, queries."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from tests.acceptance.hostile import COMMANDS
from tests.acceptance.machine import CUSTOMER_KEY
from tests.acceptance.records import all_is_well
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKENS = {name: secrets.token_urlsafe(24) for name in ("front", "corner", "boss", "eye")}
HASHES = {name: hashlib.sha256(token.encode()).hexdigest() for name, token in TOKENS.items()}
CONFIG = f"""
[callers]
front = {{ token_sha256 = "{HASHES["front"]}", accounts = ["*"], commands_per_s = 10000 }}
corner = {{ token_sha256 = "{HASHES["corner"]}", accounts = ["acme", "none-yet"], open_requests = 3 }}
[prices]
small = 250
[operators]
boss = {{ token_sha256 = "{HASHES["boss"]}", role = "operator" }}
eye = {{ token_sha256 = "{HASHES["eye"]}", role = "viewer" }}
"""
WRONG_TOKENS = ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKENS['boss']}", TOKENS["boss"],
                f"Bearer {TOKENS['boss']}x", f"Bearer {TOKENS['boss'][:-1]}", f"Bearer {HASHES['boss']}",
                "Bearer " + "x" * 10_000, "Bearer ä", "Bearer ' OR 1=1 --"]  # fmt: skip
NOBODY = "alloc_01kb0000000000000000000000"
ENTITIES = ("account", "node", "allocation", "debt", "meter", "ledger_entry", "notification", "outbox", "step",
            "failure", "recovery_run", "recovery_action", "compensation", "audit_log", "ops_case")  # fmt: skip


def bearer(name: str) -> dict[str, str]:
    """The header of that caller or operator."""
    return {"Authorization": f"Bearer {TOKENS[name]}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(module_dir: Path) -> AsyncIterator[World]:
    """A runtime that knows its callers and operators."""
    known = World(module_dir, CONFIG)
    known.operator_token, known.caller_token = TOKENS["boss"], TOKENS["front"]
    async with known.running() as world:
        await world.account("acme")
        yield world
        await all_is_well(world)
    assert "Traceback" not in world.log_text(), world.log_text()[-5000:]
    for token in TOKENS.values():
        assert token not in world.log_text(), "U5: a token was logged"


async def test_without_a_good_token_every_subject_is_refused_and_nothing_changes(world: World) -> None:
    before = await world.counts()
    wrong = []
    for subject, role in (await world.endpoint_roles()).items():
        body = COMMANDS[subject][0] if subject in COMMANDS else {}
        refusal = ("bad_signature", 400) if role == "signed" else ("unauthenticated", 401)
        for token in WRONG_TOKENS:
            reply = await world.ask(subject, body, headers={"Authorization": token})
            if reply["ok"] or (reply["error"]["code"], reply["error"]["http"]) != refusal:
                wrong.append(f"{subject} with {token[:30]!r}: {reply}")
    assert wrong == [], "\n".join(wrong)
    assert await world.counts() == before


async def test_a_bad_token_is_told_before_what_else_is_wrong(world: World) -> None:
    for subject in ("cmd.account.create", "ops.node.drain", "ops.tree.show", "qry.node.get"):
        for body in (b"{", {"unknown": 1}, b"[" * 1000):
            await world.refused(subject, body, "unauthenticated", headers={"Authorization": "Bearer wrong"}, key="")


async def test_a_viewer_may_look_and_change_nothing(world: World) -> None:
    before = await world.counts()
    roles = await world.endpoint_roles()
    for subject, role in roles.items():
        if role == "operator":
            await world.refused(subject, COMMANDS[subject][0], "forbidden", headers=bearer("eye"))
    for subject in ("ops.tree.show", "ops.matrix.show", "ops.audit.verify", "ops.case.list", "qry.node.list"):
        assert (await world.ask(subject, {}, headers=bearer("eye")))["ok"], subject
    assert await world.counts() == before


async def test_a_caller_is_no_operator_and_a_viewer_changes_nothing(world: World) -> None:
    for subject, role in (await world.endpoint_roles()).items():
        if role in {"operator", "viewer"}:
            body = COMMANDS[subject][0] if subject in COMMANDS else {}
            await world.refused(subject, body, "forbidden", headers=bearer("front"))
    body = {"account_id": world.new_name("acct"), "currency": "usd"}
    await world.refused("cmd.account.create", body, "forbidden", headers=bearer("eye"))


async def test_an_operator_may_send_commands_and_is_audited_as_one(world: World) -> None:
    allocation_id = await world.request(node_labels={"zone": "nowhere"})
    await world.ok("cmd.allocation.release", {"allocation_id": allocation_id}, headers=bearer("boss"))
    rows = await world.rows(
        "SELECT actor FROM public_v1.audit_log WHERE target_ref = $1 AND action = 'allocation.failed'",
        f"allocation:{allocation_id}",
    )
    assert rows == [{"actor": "operator:boss"}]


async def test_a_caller_speaks_for_its_own_accounts_only(world: World) -> None:
    # given an allocation of another account
    other = await world.account()
    theirs = await world.request(other, node_labels={"zone": "nowhere"})
    corner = bearer("corner")
    # then the caller may neither ask for it nor for that account
    body = {"account_id": other, "ssh_public_key": CUSTOMER_KEY, "price": "small"}
    await world.refused("cmd.allocation.request", body, "forbidden", headers=corner)
    await world.refused("cmd.allocation.release", {"allocation_id": theirs}, "forbidden", headers=corner)
    await world.refused("cmd.account.create", {"account_id": "mine", "currency": "usd"}, "forbidden", headers=corner)
    assert (await world.allocation(theirs))["state"] == "requested"
    # and its own work
    own = {**body, "account_id": "acme", "node_labels": {"zone": "nowhere"}}
    asked = (await world.ok("cmd.allocation.request", own, headers=corner))["allocation"]
    mine = asked["allocation_id"]
    assert asked["rate_uminor_per_hour"] == 250
    await world.ok("cmd.allocation.release", {"allocation_id": mine}, headers=corner)
    # even once the other's has ended and left the runtime's memory
    await world.release(theirs)
    await world.allocation_is(theirs, "failed")
    await world.refused("cmd.allocation.release", {"allocation_id": theirs}, "forbidden", headers=corner)


async def test_a_caller_of_single_accounts_sets_no_rate_and_makes_no_machine_known(world: World) -> None:
    corner = bearer("corner")
    body = {"account_id": "acme", "ssh_public_key": CUSTOMER_KEY}
    for rates, code, field in (
        ({"rate_uminor_per_hour": 0}, "forbidden", "rate_uminor_per_hour"),
        ({"price": "free"}, "invalid_request", "price"),
        ({}, "invalid_request", "price"),
        ({"price": "small", "rate_uminor_per_hour": 1}, "invalid_request", "price"),
    ):
        error = await world.refused("cmd.allocation.request", {**body, **rates}, code, headers=corner)
        assert error["details"]["field"] == field
    ssh = {"host": "127.0.0.1", "port": 22, "host_key": (await world.add_machine()).ssh.host_key}
    await world.refused("cmd.node.register", {"node_id": "mine", "ssh": ssh}, "forbidden", headers=corner)
    # a caller of every account may say either
    by_rate = {**body, "rate_uminor_per_hour": 7, "node_labels": {"zone": "nowhere"}}
    found = await world.ok("cmd.allocation.request", by_rate, headers=bearer("front"))
    await world.release(found["allocation"]["allocation_id"])


async def test_beyond_its_limit_a_caller_hears_which_and_when_to_come_again(world: World) -> None:
    body = {"account_id": "acme", "ssh_public_key": CUSTOMER_KEY, "price": "small", "node_labels": {"zone": "nowhere"}}
    waiting = [
        (await world.ok("cmd.allocation.request", body, headers=bearer("corner")))["allocation"]["allocation_id"]
        for _ in range(3)
    ]
    error = await world.refused("cmd.allocation.request", body, "throttled", headers=bearer("corner"))
    assert (error["details"]["limit"], error["details"]["retry_after_ms"] > 0) == ("open_requests", True)
    for allocation_id in waiting:
        await world.release(allocation_id)
    burst = [world.ask("cmd.allocation.release", {"allocation_id": waiting[0]}, headers=bearer("corner"))
             for _ in range(80)]  # fmt: skip
    codes = [reply["error"]["details"].get("limit") for reply in await asyncio.gather(*burst) if not reply["ok"]]
    assert set(codes) == {"commands_per_s"}
    # and another caller's are not fewer for that
    assert (await world.ask("cmd.allocation.release", {"allocation_id": waiting[0]}, headers=bearer("front")))["ok"]


async def test_a_trace_goes_on_for_those_who_are_trusted_and_is_a_link_for_others(world: World) -> None:
    foreign, span = "ab" * 16, "cd" * 8
    body = {"account_id": "acme", "ssh_public_key": CUSTOMER_KEY, "price": "small", "node_labels": {"zone": "nowhere"}}
    for who, own in (("corner", True), ("front", False)):
        headers = bearer(who) | {"traceparent": f"00-{foreign}-{span}-01"}
        made = (await world.ok("cmd.allocation.request", body, headers=headers))["allocation"]
        assert (made["trace_id"] != foreign) == own
        rows = await world.rows(
            "SELECT parent_span_id, links FROM public_v1.span WHERE trace_id = $1 AND name = 'cmd.allocation.request'"
            " AND attributes ->> 'amends.entity' = $2", made["trace_id"], f"allocation:{made['allocation_id']}",
        )  # fmt: skip
        links = [(link["trace_id"], link["span_id"]) for link in rows[0]["links"]]
        assert (rows[0]["parent_span_id"], links) == ((None, [(foreign, span)]) if own else (span, []))
        await world.release(made["allocation_id"])


async def test_a_tenant_with_thousands_of_slow_questions_takes_no_place_of_anothers_commands(world: World) -> None:
    # given a ledger that stands still, and a tenant that asks for it four thousand times at once
    holder = await world.superuser()
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("LOCK TABLE ledger_entries IN ACCESS EXCLUSIVE MODE")
    flood = [asyncio.create_task(_ask_the_ledger(world)) for _ in range(4096)]
    over = asyncio.Event()
    going_on = [asyncio.create_task(_keep_asking(world, over)) for _ in range(4)]
    watcher = await world.superuser()
    await until(lambda: _waiting_readers(watcher), "the tenant's questions wait for the ledger")
    try:
        # then another's commands and questions, and the operators', are answered as ever
        for _ in range(100):
            body = {"account_id": world.new_name("acct"), "currency": "usd"}
            await world.ok("cmd.account.create", body, headers=bearer("front"))
        assert (await world.ok("qry.account.get", {"id": "acme"}, headers=bearer("front")))["account_id"] == "acme"
        assert await world.ok("ops.tree.show", {}, headers=bearer("eye"))
        # and the tenant's questions wait there still
        await until(lambda: _waiting_readers(watcher), "the tenant's questions wait for the ledger")
    finally:
        over.set()
        await transaction.rollback()
        await holder.close()
        await watcher.close()
        await asyncio.gather(*going_on)
    # and the tenant's own were answered, or refused as too many
    codes = {reply["error"]["code"] for reply in await asyncio.gather(*flood) if not reply["ok"]}
    assert codes <= {"throttled", "deadline_exceeded", "db_unavailable"}
    assert "throttled" in codes


async def _ask_the_ledger(world: World) -> dict[str, Any]:
    return await world.ask("qry.ledger_entry.list", {"account_id": "acme"}, headers=bearer("corner"))


async def _keep_asking(world: World, over: asyncio.Event) -> None:
    while not over.is_set():
        await _ask_the_ledger(world)


async def _waiting_readers(watcher: Any) -> int:
    waiting: int = await watcher.fetchval(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'ledger_entries'::regclass"
    )
    return waiting


async def test_a_caller_sees_its_own_accounts_only(world: World) -> None:
    other = await world.account()
    theirs = await world.request(other, node_labels={"zone": "nowhere"})
    corner = bearer("corner")
    for subject, data in (
        ("qry.account.get", {"id": other}), ("qry.allocation.get", {"id": theirs}),
        ("qry.account.statement", {"account_id": other}),
    ):  # fmt: skip
        reply = await world.ask(subject, data, headers=corner)
        assert not reply["ok"], f"{subject} shows another's account"
        assert reply["error"]["code"] in {"forbidden", "not_found"}
    for subject, column in (("qry.account.list", "account_id"), ("qry.allocation.list", "account_id")):
        reply = await world.ask(subject, {}, headers=corner)
        assert not reply["ok"] or {item[column] for item in reply["data"]["items"]} <= {"acme", "none-yet"}, subject
    await world.release(theirs)


async def test_refusals_are_audited_in_bulk_when_the_minute_is_over(world: World) -> None:
    # given refusals of one source and kind
    for _ in range(5):
        await world.refused("ops.node.drain", COMMANDS["ops.node.drain"][0], "forbidden", headers=bearer("eye"))
    # when the runtime ends its minute, by being stopped
    assert world.process is not None
    world.process.terminate()
    assert await world.process.wait() == 0
    await world.restart()
    # then the first of a minute has an entry at once, all that follow have one together, and no token is in it
    rows = await world.rows(
        "SELECT * FROM public_v1.audit_log WHERE action = 'auth.forbidden' AND actor LIKE '%eye%' ORDER BY seq"
    )
    *regular, _ = rows
    assert all(after["at_us"] - before["at_us"] >= 59_000_000 for before, after in pairwise(regular))
    assert sum(row["details"]["count"] for row in rows) >= 5
    everything = json.dumps(await world.rows("SELECT * FROM public_v1.audit_log"), default=str)
    assert not any(token in everything for token in TOKENS.values())


@pytest.mark.parametrize("key", ["", "a" * 129, "tab\there", "bell\x07", "é", "\u202e", " " * 129])
async def test_a_command_needs_a_printable_key_of_at_most_128_characters(world: World, key: str) -> None:
    await world.quiet()  # what an earlier test has left under way is counted before
    before = await world.counts()
    body = {"account_id": world.new_name("acct"), "currency": "usd"}
    error = await world.refused("cmd.account.create", body, "invalid_request", key=key)
    assert "Idempotency-Key" in f"{error['details']} {error['message']}"
    assert await world.counts() == before


async def test_a_key_of_128_characters_is_good(world: World) -> None:
    body = {"account_id": world.new_name("acct"), "currency": "usd"}
    key = (world.new_key() + " ~!" + "x" * 128)[:128]
    assert not (await world.ask("cmd.account.create", body, key=key))["duplicate"]
    assert (await world.ask("cmd.account.create", body, key=key))["duplicate"]


async def test_a_key_answers_for_one_request_over_all_subjects(world: World) -> None:
    # given a request under a key
    key, name = world.new_key(), world.new_name("acct")
    first = await world.ask("cmd.account.create", {"account_id": name, "currency": "usd"}, key=key)
    before = await world.counts()
    # then the same again is answered the same
    again = await world.ask("cmd.account.create", {"currency": "usd", "account_id": name}, key=key)
    assert again == {**first, "duplicate": True}
    # and another body or another subject is refused under it
    other = {"account_id": f"{name}-2", "currency": "usd"}
    error = await world.refused("cmd.account.create", other, "idempotency_mismatch", key=key)
    assert (error["http"], error["retryable"]) == (409, False)
    await world.refused("cmd.allocation.release", {"allocation_id": NOBODY}, "idempotency_mismatch", key=key)
    assert await world.counts() == before
    # while another caller has keys of its own
    await world.refused("cmd.account.create", other, "forbidden", key=key, headers=bearer("corner"))
    own = {"account_id": "none-yet", "currency": "usd"}
    assert not (await world.ask("cmd.account.create", own, key=key, headers=bearer("corner")))["duplicate"]


async def test_a_collision_is_kept_and_every_other_refusal_is_judged_anew(world: World) -> None:
    # given a release of nobody
    key = world.new_key()
    first = await world.ask("cmd.allocation.release", {"allocation_id": NOBODY}, key=key)
    assert (first["error"]["code"], first["error"]["http"]) == ("not_found", 404)
    again = await world.ask("cmd.allocation.release", {"allocation_id": NOBODY}, key=key)
    assert again["error"] == first["error"]
    assert again["request_id"] != first["request_id"]
    assert await world.rows("SELECT 1 FROM command_reply WHERE key = $1", key) == []  # refusals are not rows for ever
    # given an account that exists
    exists = {"account_id": "acme", "currency": "usd"}
    key = world.new_key()
    kept = await world.ask("cmd.account.create", exists, key=key)
    assert kept["error"]["code"] == "already_exists"
    assert (await world.ask("cmd.account.create", exists, key=key))["request_id"] == kept["request_id"]
    # given a malformed one, then its key is free for a good one
    key, name = world.new_key(), world.new_name("acct")
    await world.refused("cmd.account.create", {"account_id": name, "currency": "USD"}, "invalid_request", key=key)
    reply = await world.ask("cmd.account.create", {"account_id": name, "currency": "usd"}, key=key)
    assert (reply["ok"], reply["duplicate"]) == (True, False)


async def test_an_expected_version_must_be_the_one_that_stands(world: World) -> None:
    allocation_id = await world.request(node_labels={"zone": "nowhere"})
    version = (await world.allocation(allocation_id))["version"]
    release = {"allocation_id": allocation_id}
    for wrong in ("-1", "1.5", "abc", "9" * 30, "1; DROP", "٣"):
        error = await world.refused("cmd.allocation.release", release, "invalid_request",
                                    headers={"Expected-Version": wrong})  # fmt: skip
        assert "Expected-Version" in f"{error['details']} {error['message']}"
    stale = {"Expected-Version": str(version + 1)}
    error = await world.refused("cmd.allocation.release", release, "version_mismatch", headers=stale)
    assert error["http"] == 409
    assert (await world.allocation(allocation_id))["state"] == "requested"
    await world.ok("cmd.allocation.release", release, headers={"Expected-Version": str(version)})
    await world.allocation_is(allocation_id, "failed")


async def test_a_trace_is_continued_only_if_it_is_one(world: World) -> None:
    good = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    for header, continued in ((good, True), (good[:-1], False), (f"00-{'0' * 32}-{'1' * 16}-01", False),
                              (good.upper(), False), ("x" * 5000, False)):  # fmt: skip
        body = {"account_id": world.new_name("acct"), "currency": "usd"}
        reply = await world.ask("cmd.account.create", body, headers={"traceparent": header})
        assert (reply["trace_id"] == good.split("-")[1]) == continued, header
    spans = await world.rows("SELECT * FROM public_v1.span WHERE trace_id = $1", good.split("-")[1])
    assert [span["parent_span_id"] for span in spans] == [good.split("-")[2]]


@pytest.mark.parametrize("entity", ENTITIES)
async def test_a_hostile_query_is_answered_or_refused_by_its_field(world: World, entity: str) -> None:
    columns = await world.rows(
        "SELECT column_name AS name FROM information_schema.columns "
        "WHERE table_schema = 'public_v1' AND table_name = $1", entity
    )  # fmt: skip
    values: list[Any] = ["", "a\u0000b", "'; --", 2**63, -(2**63) - 1, 10**40, 1.5, True, [], {}, {"a": "\u0000"}]
    values.append("x" * 9000)
    wrong = []
    requests: list[tuple[str, Any]] = [(row["name"], {row["name"]: value}) for row in columns for value in values]
    limits: list[Any] = [0, -1, 501, 2**63, 1.5, "1", True, [], {}]
    cursors: list[Any] = ["", "x", "' OR 1=1", 5, [], {}, "a\u0000", "x" * 9000]
    requests += [("limit", {"limit": value}) for value in limits]
    requests += [("cursor", {"cursor": value}) for value in cursors]
    requests += [(name, {name: 1}) for name in ("nothing", "1=1; --", "xmin", "ctid", "\u0000", "")]
    for field, data in requests:
        reply = await world.ask(f"qry.{entity}.list", data)
        error = reply.get("error", {"http": 400, "details": {"field": field}})
        if (error["http"], error["details"].get("field")) != (400, field):
            wrong.append(f"{str(data)[:100]}: {error}")
        if reply["ok"] and field in {"limit", "cursor", "nothing", "xmin", "ctid"}:
            wrong.append(f"{data}: accepted")
    ids: list[Any] = [5, None, [], "", "a\u0000b", "x" * 300]
    for value in ids:
        await world.refused(f"qry.{entity}.get", {"id": value}, "invalid_request")
    for value in ("nothing", "' OR 1=1 --", "💣"):
        await world.refused(f"qry.{entity}.get", {"id": value}, "not_found")
    assert wrong == [], "\n".join(wrong)


async def test_hostile_times_of_a_statement_are_refused(world: World) -> None:
    values: list[Any] = [2**63, 10**40, 1.5, "1", True, [], {}]
    for field in ("since_us", "until_us"):
        for value in values:
            data = {"account_id": "acme", field: value}
            error = await world.refused("qry.account.statement", data, "invalid_request")
            assert field in str(error)
    await world.refused("qry.account.statement", {"account_id": "nobody"}, "not_found")
    assert (await world.ok("qry.account.statement", {"account_id": "acme"}))["entries"] == []


async def test_the_published_dsn_reads_the_views_and_nothing_else(world: World) -> None:
    reader = await asyncpg.connect(world.endpoints["postgres_dsn"])
    try:
        found = await reader.fetch("SELECT viewname FROM pg_views WHERE schemaname = 'public_v1'")
        views = [row["viewname"] for row in found]
        assert {*ENTITIES, "span", "invariant_violation"} <= set(views)
        for view in views:
            await reader.fetch(f"SELECT * FROM public_v1.{view} LIMIT 1")
        for query in ("SELECT * FROM allocations", "UPDATE accounts SET state = 'x'", "DELETE FROM public_v1.account",
                      "INSERT INTO public_v1.account DEFAULT VALUES", "CREATE TABLE public_v1.mine (a int)",
                      "SET ROLE amends", "SET ROLE postgres", "COPY (SELECT 1) TO PROGRAM 'id'"):  # fmt: skip
            with pytest.raises(asyncpg.PostgresError):
                await reader.execute(query)
    finally:
        await reader.close()


async def test_an_answer_cannot_be_made_an_event_or_a_call_of_jetstream(world: World) -> None:
    # given the events there are
    await world.quiet()
    before = len(await world.stored("AMENDS_EVT"))
    for reply in ("amends.v1.evt.allocation.a.released", "amends.v1.ntf.ops.ops.case.opened",
                  "$JS.API.STREAM.PURGE.AMENDS_EVT"):  # fmt: skip
        for subject, headers in (("qry.account.get", {}), ("cmd.account.create", {"Idempotency-Key": world.new_key()})):
            data = {"id": "acme"} if subject.startswith("qry") else {"account_id": "forged", "currency": "usd"}
            await world.nats.publish(
                f"amends.v1.{subject}", json.dumps(data).encode(), reply=reply, headers=headers or None
            )
    # then they are what they were, and what was asked was not done
    await world.ok("qry.account.get", {"id": "acme"})
    await world.quiet()
    assert len(await world.stored("AMENDS_EVT")) == before
    assert await world.rows("SELECT 1 FROM public_v1.account WHERE account_id = 'forged'") == []
