"""Whoever asks for whatever under whatever headers: it is read, or refused by a code of the contract and its field."""

import asyncio
import json
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import pytest
from hypothesis import example
from hypothesis import strategies as st

from amends.ports.journal import KeptReply
from amends.runtime.identity import Identity, trace_of
from amends.runtime.requests import MAX_BYTES, Endpoint, Entry, Reply, Requests, decode
from amends.values import ids
from amends.values.canonical import UNREADABLE, canonical, sha256
from amends.values.errors import CODES, KEPT, Rejected
from supervisors.api.auth import Gatekeeper
from supervisors.settings import Caller, Operator, Settings
from tests.acceptance.hostile import COMMANDS
from tests.hostile.values import RAW, as_text, changed, given, sent, tried, values, words
from tools.asyncapi import endpoints

TABLE: Final = {endpoint.subject: endpoint for endpoint in endpoints()}
GOOD: Final[Mapping[str, Any]] = {
    "ops.policy.evaluate": {
        "rate_uminor_per_hour": 10**9, "started_us": 1, "cause": "release", "stop_us": 7_200_000_000,
        "posted_through_us": 3_600_000_000, "reason": "x", "prior_credits": 1, "later_cause": "node_offline",
        "later_stop_us": 3_600_000_000,
    },
    "qry.account.statement": {"account_id": "acme", "since_us": 0, "until_us": 1, "cursor": "1:entry"},
    "ops.policy.backtest": {"toml": "a = 1", "since_us": 0, "cursor": "meter_" + "0" * 26},
    "ops.whatif.command": {"subject": "ops.node.drain", "data": {"node_id": "n1", "reason": "x"}},
    "ops.trace.export": {"limit": 1, "trace_id": "a" * 32},
    "ops.policy.show": {"sha256": "a" * 64},
    "ingress.stripe": {"id": "evt_1", "type": "refund.created", "data": {}},
    **{subject: {"id": "n1"} for subject in TABLE if subject.endswith(".get")},
    **{subject: body for subject, (body, _, _) in COMMANDS.items()},
}  # fmt: skip
BODIES: Final = {subject: changed(GOOD.get(subject, {"a": 1, "limit": 5})) for subject in TABLE}
asked = st.sampled_from(sorted(TABLE)).flatmap(lambda subject: st.tuples(st.just(subject), sent(BODIES[subject])))
TOKENS: Final = {"caller": "c" * 20, "operator": "o" * 20}
HEADERS: Final = {
    "Idempotency-Key": ("k1", "~" * 128), "Expected-Version": ("0", "9" * 18), "Authorization":
    ("Bearer " + TOKENS["caller"], "bearer  " + TOKENS["operator"], "Bearer", "Basic eDp5", "Bearer \udcff"),
    "Traceparent": (f"00-{'a' * 32}-{'b' * 16}-01", f"00-{'0' * 32}-{'b' * 16}-01", f"00-{'A' * 32}-{'b' * 16}-01"),
    "Stripe-Signature": ("t=1,v1=a",), "Colour": ("blue",),
}  # fmt: skip
headers = as_text(HEADERS)


def names_it(error: Rejected) -> bool:
    """Whether a refusal says where something is wrong, unless that is the body itself."""
    unknown = re.search(r"unknown field `(.*)`", error.message, re.DOTALL)
    if unknown:
        return bool(error.details["field"] == unknown[1].partition("` - at `$")[0])
    return bool(error.details.get("field")) or "at `" not in error.message


@given(asked)
@example(("cmd.namespace.archive", b'{"namespace_id": "data", "": null}'))
def test_a_request_is_read_or_refused_by_its_field(given_: tuple[str, bytes]) -> None:
    subject, data = given_
    found, error = tried(Rejected, decode, TABLE[subject], data)
    if error is not None:
        assert (error.code, error.http) == ("invalid_request", 400)
        assert names_it(error), error.message
        return
    # then it says the same when it is said again
    assert len(data) <= MAX_BYTES
    assert decode(TABLE[subject], msgspec.json.encode(found)) == found


@pytest.mark.parametrize("subject", sorted(GOOD))
def test_what_is_changed_here_is_good_by_itself(subject: str) -> None:
    assert decode(TABLE[subject], json.dumps(GOOD[subject]).encode()) is not None


# --- the whole way up to the actor ------------------------------------------------------------------------


SETTINGS: Final = Settings(callers={"shop": Caller(token_sha256=sha256(TOKENS["caller"].encode()), accounts=["acme"])})
OPERATORS: Final = {"olga": Operator(token_sha256=sha256(TOKENS["operator"].encode()), role="operator")}


class Kept:
    """Finds a reply under some keys: one that was given to this very body, or to another one."""

    def __init__(self, body_hash: str) -> None:
        self._body_hash = body_hash

    async def __call__(self, caller: str, key: str) -> KeptReply | None:
        fields: dict[str, Any] = dict.fromkeys(KeptReply.__struct_fields__, "")
        fields |= {"body_hash": self._body_hash, "reply": '{"data": {}}', "request_id": "req_1", "trace_id": "a" * 32}
        return KeptReply(**fields)


def requests(kept: Kept) -> Requests:
    writer = SimpleNamespace(known=lambda: None, trouble=False, full=False)
    engine: Any = SimpleNamespace(now_us=lambda: 1_768_478_400_000_000, entropy=lambda n: b"\7" * n, writer=writer)
    return Requests(engine, Gatekeeper(SETTINGS, OPERATORS), kept)


async def answered(endpoint: Endpoint, data: bytes, given_headers: Mapping[str, str], named: str, kept: Kept) -> Reply:
    """The reply, with as many places taken as before."""
    found = requests(kept)
    entry = found.enter(endpoint, given_headers)
    if isinstance(entry, Entry):
        entry = await found.handle(endpoint, data, given_headers, entry, named)
    assert isinstance(entry, Reply)
    assert len(found.places) == 0
    return entry


async def nothing(request: Any, identity: Identity) -> dict[str, Any]:
    return {}


async def nothing_raw(data: bytes, given_headers: Mapping[str, str], entry: Entry) -> dict[str, Any]:
    return {}


def _told(endpoint: Endpoint) -> Endpoint:
    """The endpoint with answers that need no runtime."""
    raw = nothing_raw if endpoint.raw is not None else None
    answer = nothing if endpoint.answer is not None else None
    return msgspec.structs.replace(endpoint, raw=raw, answer=answer, outcome=None)


TOLD: Final = {subject: _told(endpoint) for subject, endpoint in TABLE.items()}
LOOP: Final = asyncio.Runner()
ALLOWED: Final = {"invalid_request", "unauthenticated", "forbidden", "idempotency_mismatch"}
named = st.sampled_from(("", "", "n1", "acme", "*", "a.b", "\n")) | words


@given(asked, headers, named, st.booleans())
def test_under_any_headers_it_has_a_reply_that_the_contract_knows(
    given_: tuple[str, bytes], given_headers: dict[str, str], name: str, same: bool
) -> None:
    subject, data = given_
    name = name if TOLD[subject].keyed else ""
    reply = LOOP.run(answered(TOLD[subject], data, given_headers, name, Kept("" if same else "f" * 64)))
    body = reply.body
    json.dumps(body)
    assert ids.is_type_id(body["request_id"], "req") or body.get("duplicate")
    assert len(body["trace_id"]) == 32
    if not body["ok"]:
        error = body["error"]
        assert error["code"] in ALLOWED, error
        assert error["http"] == CODES[error["code"]]
        assert msgspec.json.encode(error)


@given(words, st.sampled_from(sorted(COMMANDS)), headers)
def test_only_printable_keys_come_by(key: str, subject: str, given_headers: dict[str, str]) -> None:
    data = json.dumps(COMMANDS[subject][0]).encode()
    full = {**given_headers, "Idempotency-Key": key, "Authorization": f"Bearer {TOKENS['operator']}"}
    error = LOOP.run(answered(TOLD[subject], data, full, "", Kept("f" * 64))).body.get("error", {})
    good = 1 <= len(key) <= 128 and key.isascii() and key.isprintable()
    version = given_headers.get("Expected-Version")
    counted = version is None or (version.isascii() and version.isdigit() and len(version) <= 18)
    if not good:
        assert error["details"] == {"field": "Idempotency-Key"}
    elif not counted:
        assert error["details"] == {"field": "Expected-Version"}
    else:
        assert error["code"] == "idempotency_mismatch"
        assert error["code"] in KEPT


@given(headers, st.sampled_from(("caller", "reader", "operator", "viewer", "signed")))
def test_who_asks_is_known_or_refused(given_headers: dict[str, str], role: str) -> None:
    found, error = tried(Rejected, Gatekeeper(SETTINGS, OPERATORS), given_headers, role)
    if error is not None:
        assert error.code in ("unauthenticated", "forbidden")
        return
    token = given_headers.get("Authorization", "").partition(" ")[2].strip()
    assert role == "signed" or token == TOKENS["operator" if found.operates else "caller"]
    assert found.operates or role not in ("operator", "viewer")


@given(st.sampled_from(HEADERS["Traceparent"]) | words | st.text("0123456789abcdef-", max_size=60), st.booleans())
def test_a_traceparent_is_gone_on_with_linked_to_or_left(text: str, trusted: bool) -> None:
    identity = Identity("a", accounts=("*",) if trusted else ("acme",))
    found = trace_of({"Traceparent": text}, "req_1", identity)
    own = ids.trace_id("request", "req_1")
    if found.trace_id != own:
        assert trusted
        assert text.startswith(f"00-{found.trace_id}-{found.parent_span_id}-")
    else:
        assert not found.parent_span_id
        assert found.link in ("", text[3:52].replace("-", ":"))


@given(values)
def test_what_is_hashed_is_hashed_alike_whatever_the_order(value: Any) -> None:
    text, error = tried(UNREADABLE, msgspec.json.decode, json.dumps({"b": value, "a": [value]}).encode())
    if error is not None:
        return
    again = msgspec.json.decode(json.dumps({"a": [value], "b": value}).encode())
    assert canonical(text) == canonical(again)
    assert msgspec.json.decode(canonical(text)) == text


@given(st.sampled_from(RAW) | st.binary(max_size=30), st.integers(1, 40))
def test_what_is_too_large_is_refused_before_it_is_read(data: bytes, times: int) -> None:
    large = data + b" " * (MAX_BYTES + times - len(data))
    with pytest.raises(Rejected, match=f"{MAX_BYTES} bytes"):
        decode(TABLE["cmd.account.create"], large)
