"""What the service keeps, for how long, and what it refuses. No NATS: requests are handed to it."""

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from adapters.nats.keyed_lock import KeyedLock
from adapters.nats.provider_service import MAX_UNDER_WAY, ProviderService
from adapters.nats.provider_store import LEAP, TOMBSTONE_US, Held, ProviderStore
from adapters.nats.provider_words import NEEDED
from amends.values.errors import BadConfiguration
from tests.adapters.providers.benches import Scripted

GRANT = {
    "runtime_epoch": 1, "grant_id": "grant_1", "namespace_id": "data", "node_id": "n1", "node_address": "10.0.0.5",
    "mode": "rw",
}  # fmt: skip


class Clock:
    now_us = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.now_us


class Made:
    """A service that can be started again, over a backend that stays."""

    def __init__(self, base: Path) -> None:
        self._base, self.clock, self.backend = base, Clock(), Scripted()
        self.service = ProviderService("p1", self.backend, base, now_us=self.clock)

    async def ask(self, op: str, **changes: Any) -> dict[str, Any]:
        return await self.service.answer(op, json.dumps({**GRANT, **changes}).encode())

    async def again(self, before: Callable[[], None] = lambda: None) -> None:
        await self.service.close()
        before()
        self.service = ProviderService("p1", self.backend, self._base, now_us=self.clock)
        await self.service.restore()


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


async def test_a_tombstone_is_kept_for_thirty_days_and_then_forgotten(made: Made, tmp_path: Path) -> None:
    await made.ask("grant")
    await made.ask("revoke")
    made.clock.now_us += TOMBSTONE_US - 1
    await made.again()
    assert (await made.ask("grant"))["code"] == "revoked"
    made.clock.now_us += 1
    await made.ask("revoke", grant_id="grant_2")
    assert [path.stem for path in (tmp_path / "grants").iterdir()] == ["grant_2"]
    assert (await made.ask("grant"))["status"] == "ok"


async def test_a_tombstone_whose_access_is_not_known_to_be_gone_is_kept_longer(made: Made) -> None:
    await made.ask("grant")
    made.backend.faults = [("revoke", "fail")]
    assert (await made.ask("revoke"))["code"] == "scripted"
    made.clock.now_us += TOMBSTONE_US
    await made.ask("revoke", grant_id="grant_2")
    assert made.backend.table != {}
    await made.again()  # a start takes up what was owed
    assert made.backend.table == {}
    assert (await made.ask("grant"))["code"] == "revoked"


async def test_after_a_restart_of_the_host_access_is_as_it_was_granted(made: Made) -> None:
    await made.ask("grant")
    await made.ask("grant", grant_id="grant_2", node_id="n2", node_address="10.0.0.6", mode="ro")
    await made.ask("grant", grant_id="grant_3", node_id="n3", node_address="10.0.0.7")
    await made.ask("revoke", grant_id="grant_3", node_id="n3")
    await made.again(made.backend.table.clear)
    assert made.backend.table == {("data", "10.0.0.5"): "rw", ("data", "10.0.0.6"): "ro"}


async def test_what_somebody_else_gave_is_told_and_neither_taken_over_nor_taken_away(made: Made) -> None:
    made.backend.table["data", "10.0.0.5"] = "ro"
    refused = await made.ask("grant")
    assert (refused["status"], refused["code"], refused["retryable"]) == ("error", "foreign_grant", False)
    assert (await made.ask("revoke"))["status"] == "ok"
    assert made.backend.table == {("data", "10.0.0.5"): "ro"}


async def test_what_somebody_else_gave_after_a_revoke_is_not_hidden(made: Made) -> None:
    await made.ask("grant")
    await made.ask("revoke")
    made.backend.table["data", "10.0.0.5"] = "ro"
    assert (await made.ask("revoke"))["status"] == "ok"
    assert (await made.ask("verify"))["observed"] == {"granted": True, "mode": "ro"}
    assert made.backend.table == {("data", "10.0.0.5"): "ro"}


async def test_a_backend_that_says_done_and_has_not_is_found_out(made: Made) -> None:
    made.backend.faults = [("grant", "lie"), ("revoke", "keep")]
    assert (await made.ask("grant"))["code"] == "not_applied"
    assert (await made.ask("grant"))["status"] == "ok"
    reply = await made.ask("revoke")
    assert (reply["status"], reply["code"], reply["retryable"]) == ("partial", "still_granted", True)


async def test_a_grant_that_was_begun_and_never_seen_is_not_given_by_a_restart(made: Made) -> None:
    made.backend.faults = [("grant", "fail")]
    assert (await made.ask("grant"))["status"] == "error"
    await made.again()
    assert made.backend.table == {}
    assert (await made.ask("revoke"))["status"] == "ok"
    assert (await made.ask("grant"))["code"] == "revoked"


async def test_an_epoch_far_above_all_others_is_no_runtimes_and_is_not_remembered(made: Made) -> None:
    refused = await made.ask("grant", runtime_epoch=LEAP + 1)
    assert (refused["code"], "no runtime's" in refused["message"]) == ("stale_epoch", True)
    assert (await made.ask("grant"))["status"] == "ok"
    assert (await made.ask("grant", runtime_epoch=2**32 + 1))["status"] == "ok"


@pytest.mark.parametrize(("shared", "code"), [(True, ""), (False, "address_ambiguous")])
async def test_two_nodes_of_one_address_are_refused_where_nobody_can_tell_them_apart(
    made: Made, shared: bool, code: str
) -> None:
    made.backend.shared = shared
    await made.ask("grant")
    second = await made.ask("grant", grant_id="grant_2", node_id="n2", mode="ro")
    assert (second["code"], second["retryable"]) == (code, False)
    assert (await made.ask("grant", grant_id="grant_3"))["status"] == "ok"  # the same node's
    for grant_id in ("grant_1", "grant_3"):
        assert (await made.ask("revoke", grant_id=grant_id))["status"] == "ok"
    assert made.backend.table == ({("data", "10.0.0.5"): "ro"} if shared else {})
    # then it is free
    assert (await made.ask("grant", grant_id="grant_4", node_id="n2"))["status"] == "ok"


async def test_a_start_looks_once_at_what_there_is_however_much_was_granted(made: Made) -> None:
    for number in range(5):
        await made.ask("grant", grant_id=f"grant_{number}", node_id=f"n{number}", node_address=f"10.0.0.{number}")
    made.backend.looks = 0
    await made.again(made.backend.table.clear)
    assert (made.backend.looks, len(made.backend.table)) == (1, 5)


GRANTS = st.builds(
    Held, st.sampled_from("abcdef"), st.sampled_from(["data", "more"]), st.just("n1"),
    address=st.sampled_from(["", "10.0.0.5", "10.0.0.6"]), mode=st.sampled_from(["ro", "rw"]), applied=st.booleans(),
    revoked_us=st.none() | st.sampled_from([1, 2, TOMBSTONE_US, 2 * TOMBSTONE_US]), settled=st.booleans(),
)  # fmt: skip


@given(st.lists(GRANTS, max_size=12), st.booleans())
def test_what_is_looked_up_is_what_was_kept_also_after_a_start(puts: list[Held], again: bool) -> None:
    kept: dict[str, Held] = {}
    with TemporaryDirectory() as base:
        store = ProviderStore(Path(base))
        for put in puts:  # what a grant is of does not change, nor does the time of its revoke
            first = kept.get(put.grant_id, put)
            held = replace(
                put, namespace_id=first.namespace_id, address=first.address,
                revoked_us=put.revoked_us if first.revoked_us is None else first.revoked_us,
            )  # fmt: skip
            store.put(held)
            kept[held.grant_id] = held
        if again:
            store.close()
            store = ProviderStore(Path(base))

        def by_id(found: Iterable[Held]) -> list[Held]:
            return sorted(found, key=lambda held: held.grant_id)

        open_ones = [held for held in kept.values() if not held.settled]
        assert set(store.accesses()) == {(held.namespace_id, held.address) for held in open_ones}
        assert by_id(store.owed()) == by_id(held for held in open_ones if held.revoked_us is not None)
        for access in itertools.product(["data", "more"], ["", "10.0.0.5", "10.0.0.6"]):
            assert by_id(store.of(*access)) == by_id(h for h in open_ones if (h.namespace_id, h.address) == access)
        store.close()


@pytest.mark.parametrize(
    ("op", "changes"),
    [
        ("grant", {"mode": "rwx"}),
        ("grant", {"mode": None}),
        ("grant", {"grant_id": "../x"}),
        ("grant", {"grant_id": ""}),
        ("grant", {"namespace_id": "../x"}),
        ("grant", {"namespace_id": "data\n"}),
        ("grant", {"node_address": "-o"}),
        ("grant", {"node_address": "*"}),
        ("grant", {"node_address": "10.0.0.0/8"}),
        ("grant", {"runtime_epoch": -1}),
        ("grant", {"runtime_epoch": None}),
        ("verify", {"grant_id": None}),
        ("revoke", {"node_id": None}),
        ("usage", {"namespace_id": None}),
        ("usage", {"more": "x" * 70_000}),
    ],
)
async def test_a_request_that_is_none_is_refused_and_nothing_is_written(
    made: Made, tmp_path: Path, op: str, changes: dict[str, Any]
) -> None:
    reply = await made.ask(op, **changes)
    assert (reply["status"], reply["code"], reply["retryable"]) == ("error", "invalid_request", False)
    assert list((tmp_path / "grants").iterdir()) == []
    assert not (tmp_path / "provider.json").exists()


async def test_there_is_no_other_verb(made: Made) -> None:
    assert (await made.ask("delete"))["code"] == "unsupported_op"


async def test_a_disk_that_cannot_be_written_is_a_failure_that_another_try_may_mend(made: Made, tmp_path: Path) -> None:
    await made.ask("verify")
    (tmp_path / "grants").rmdir()
    reply = await made.ask("grant")
    assert (reply["status"], reply["code"], reply["retryable"]) == ("error", "provider_failed", True)
    assert made.backend.table == {}  # what is not written down is not done
    (tmp_path / "grants").mkdir()
    assert (await made.ask("grant"))["status"] == "ok"


def test_a_directory_has_one_provider_and_what_it_holds_is_read_or_refused(tmp_path: Path) -> None:
    store = ProviderStore(tmp_path)
    with pytest.raises(BadConfiguration, match="in use by another provider"):
        ProviderStore(tmp_path)
    store.put(Held("grant_1", "data", "n1"))
    store.close()
    (tmp_path / "grants" / "grant_1.json").write_text("{")
    with pytest.raises(BadConfiguration, match=r"grant_1\.json cannot be read"):
        ProviderStore(tmp_path)
    (tmp_path / "grants" / "grant_1.json").unlink()
    ProviderStore(tmp_path).close()


async def test_turns_are_kept_only_while_somebody_waits() -> None:
    turns = KeyedLock()
    async with turns.of("a"), turns.of("b"):
        assert len(turns) == 2
    assert len(turns) == 0


async def test_too_many_requests_at_once_are_told_to_come_again(made: Made) -> None:
    replies: list[dict[str, Any]] = []

    async def respond(data: bytes) -> None:
        replies.append(json.loads(data))

    made.backend.faults = [("grant", "hang")]
    body = json.dumps(GRANT).encode()
    message: Any = SimpleNamespace(subject="amends.v1.provider.p1.grant", data=body, reply="_INBOX.x", respond=respond)
    for _ in range(MAX_UNDER_WAY + 1):
        await made.service._on_request(message)
    assert [(reply["code"], reply["retryable"]) for reply in replies] == [("busy", True)]
    await made.service.close()


@given(st.sampled_from([*NEEDED, "delete", ""]), st.binary(max_size=100))
async def test_bytes_of_any_kind_are_no_request(op: str, data: bytes) -> None:
    with TemporaryDirectory() as base:
        made = Made(Path(base))
        reply = await made.service.answer(op, data)
        assert (reply["status"], reply["code"] in ("invalid_request", "unsupported_op")) == ("error", True)
        assert list((Path(base) / "grants").iterdir()) == []
        await made.service.close()
