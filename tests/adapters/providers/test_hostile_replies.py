"""Whatever a provider replies, the runtime hears an outcome whose words are bounded and can be shown."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.nats.provider_words import MAX_REPLY_BYTES, MAX_SOURCE_BYTES
from adapters.nats.providers import ProviderSteps
from amends.ports.steps import Outcome
from tests.adapters.providers.benches import call

OPS = ("grant", "verify", "revoke", "usage", "capabilities")
NFS = {"type": "nfs", "server": "storage-1", "export": "/srv/data"}
SEEN = {"granted": True, "mode": "rw"}
MALFORMED = ("failed", "provider_malformed", True, {"retryable": True})


class Replying:
    """A client whose every request is answered with the same bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.sent: list[tuple[str, Any, dict[str, str]]] = []

    async def request(self, subject: str, payload: bytes, *, timeout: float, headers: dict[str, str]) -> Any:
        self.sent.append((subject, json.loads(payload), headers))
        return SimpleNamespace(data=self._data)


async def heard(op: str, reply: object) -> Outcome:
    client: Any = Replying(reply if isinstance(reply, bytes) else json.dumps(reply).encode())
    return await ProviderSteps(client).run(call(op, "grant_1", timeout_ms=1000, epoch=1))


def words(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [word for key, each in value.items() for word in (*words(key), *words(each))]
    return [word for each in value for word in words(each)] if isinstance(value, list) else []


def check(outcome: Outcome) -> None:
    assert outcome.kind in ("done", "failed")
    assert all(word.isprintable() for word in (outcome.code, outcome.message, *words(outcome.data)))
    assert len(outcome.message) <= 1000
    assert len(json.dumps(outcome.data)) <= 64 * 4200


@given(st.sampled_from(OPS), st.binary(max_size=200))
async def test_bytes_of_any_kind_are_a_failure(op: str, data: bytes) -> None:
    outcome = await heard(op, data)
    check(outcome)
    assert outcome.kind == "failed"


TEXT = st.text(max_size=40)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "status": st.sampled_from(["ok", "partial", "error"]) | TEXT,
    "retryable": st.booleans() | TEXT,
    "code": TEXT,
    "message": st.text(max_size=2000),
    "observed": st.fixed_dictionaries({"granted": st.booleans()}, optional={"mode": TEXT}) | TEXT,
    "source": st.dictionaries(st.sampled_from(["type", "server", "export", "path", "options"]), TEXT) | st.just(NFS),
    "modes": st.lists(st.sampled_from(["ro", "rw"]) | TEXT, max_size=10),
    "multi_attach": st.booleans(),
    "mount_path_prefixes": st.lists(TEXT.map(lambda text: "/" + text), max_size=70),
    "enforcement": st.text(max_size=70),
    "used_bytes": st.integers(),
    "as_of_us": st.integers(),
    "enforced": st.booleans(),
}


@given(st.sampled_from(OPS), st.fixed_dictionaries({}, optional=FIELDS))
async def test_fields_of_any_kind_are_an_outcome_that_can_be_kept(op: str, reply: dict[str, Any]) -> None:
    check(await heard(op, reply))


BAD = {
    "nothing": b"",
    "no object": [1],
    "deep": b"[" * 100_000,
    "huge": {"status": "ok", "source": NFS, "observed": SEEN, "message": "x" * MAX_REPLY_BYTES},
    "no status": {"source": NFS, "observed": SEEN},
    "another status": {"status": "fine", "source": NFS},
    "no source": {"status": "ok", "observed": SEEN},
    "another type of source": {"status": "ok", "source": {**NFS, "type": "smb"}},
    "a server that is an option": {"status": "ok", "source": {**NFS, "server": "-oproxy"}},
    "a server with blanks": {"status": "ok", "source": {**NFS, "server": "a b"}},
    "a server and a line": {"status": "ok", "source": {**NFS, "server": "a\n"}},
    "a path that goes up": {"status": "ok", "source": {**NFS, "export": "/srv/../etc"}},
    "a path that is none": {"status": "ok", "source": {**NFS, "export": "srv"}},
    "a path with a line": {"status": "ok", "source": {**NFS, "export": "/srv\n/x"}},
    "options with a line": {"status": "ok", "source": {**NFS, "options": "soft\n"}},
    "a large source": {"status": "ok", "source": {"type": "bind", "path": "/" + "ü" * (MAX_SOURCE_BYTES // 2)}},
    "no path": {"status": "ok", "source": {"type": "bind"}},
}


@pytest.mark.parametrize("reply", BAD.values(), ids=BAD.keys())
async def test_a_reply_to_a_grant_by_which_no_node_could_mount_is_malformed(reply: object) -> None:
    outcome = await heard("grant", reply)
    assert (outcome.kind, outcome.code, outcome.may_have_run, outcome.data) == MALFORMED
    check(outcome)


@pytest.mark.parametrize(
    ("op", "reply"),
    [
        ("verify", {"status": "ok"}),
        ("verify", {"status": "ok", "observed": {"granted": True}}),
        ("verify", {"observed": SEEN}),
        ("revoke", {}),
        ("usage", {"status": "ok", "used_bytes": 1, "as_of_us": 1}),
        ("usage", {"status": "ok", "used_bytes": -1, "as_of_us": 1, "enforced": True}),
        ("usage", {"status": "ok", "used_bytes": 2**63, "as_of_us": 1, "enforced": True}),
        ("usage", {"status": "ok", "used_bytes": 1.5, "as_of_us": 1, "enforced": True}),
        ("capabilities", {"status": "ok", "multi_attach": True}),
        ("capabilities", {"modes": ["rwx"]}),
        ("capabilities", {"modes": ["ro"], "mount_path_prefixes": ["mnt"]}),
        ("capabilities", {"modes": ["ro"], "enforcement": "\u202e"}),
        ("another", {"status": "ok"}),
    ],
)
async def test_a_reply_that_lacks_what_its_op_must_say_is_malformed(op: str, reply: object) -> None:
    client: Any = Replying(json.dumps(reply).encode())
    step = call("usage" if op == "another" else op, "grant_1", timeout_ms=1000, epoch=1)
    named = type(step)(
        **{**{field: getattr(step, field) for field in step.__struct_fields__}, "name": f"provider.{op}"}
    )
    outcome = await ProviderSteps(client).run(named)
    assert (outcome.kind, outcome.code, outcome.may_have_run, outcome.data) == MALFORMED


@pytest.mark.parametrize(("said", "word"), [(True, "on"), (False, "off"), (None, ""), ("quota", "quota")])
async def test_enforcement_is_a_word_for_people_whatever_it_was(said: object, word: str) -> None:
    outcome = await heard("capabilities", {"modes": ["ro"], "enforcement": said})
    assert (outcome.kind, outcome.data["enforcement"]) == ("done", word)


async def test_a_good_reply_is_taken_as_it_is_and_nothing_else_of_it() -> None:
    outcome = await heard("grant", {"status": "ok", "source": {**NFS, "sudo": "x"}, "observed": SEEN, "more": 1})
    assert outcome == Outcome("done", data={"source": NFS, "observed": SEEN})
    assert await heard("revoke", {"status": "ok"}) == Outcome("done")
    assert (await heard("verify", {"status": "ok", "observed": {"granted": False}})).data == {
        "granted": False,
        "mode": "",
    }
    used = {"used_bytes": 1, "as_of_us": 2, "enforced": False}
    assert (await heard("usage", used)).data == used


async def test_errors_and_half_done_ones_keep_their_code_and_say_whether_to_try_again() -> None:
    error = {"status": "error", "code": "quota", "message": "no\x1b[2Jroom", "retryable": True}
    assert await heard("grant", error) == Outcome("failed", "quota", "no?[2Jroom", data={"retryable": True})
    assert (await heard("grant", {"status": "error"})).code == "provider_error"
    half = await heard("revoke", {"status": "partial"})
    assert half == Outcome("failed", "partial", "", data={"retryable": False, "partial": True})


async def test_the_request_is_what_the_contract_says() -> None:
    client: Any = Replying(json.dumps({"status": "ok", "source": NFS, "observed": SEEN}).encode())
    await ProviderSteps(client).run(call("grant", "grant_1", timeout_ms=1000, epoch=7))
    ((subject, body, headers),) = client.sent
    assert subject == "amends.v1.provider.p1.grant"
    assert body == {
        "grant_id": "grant_1", "namespace_id": "data", "node_id": "n1", "node_address": "10.0.0.5", "mode": "rw",
        "runtime_epoch": 7,
    }  # fmt: skip
    assert headers == {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
