"""Ids, back-off and the audit chain are pure: the same input gives the same output, within stated bounds."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amends.values import ids
from amends.values.backoff import Backoff
from amends.values.canonical import ZERO_HASH, canonical, chain_hash
from amends.values.errors import CODES, Rejected


@given(st.integers(0, (1 << 48) * 1000 - 1), st.binary(min_size=10, max_size=10))
def test_a_type_id_is_a_uuid_version_7_of_its_time(now_us: int, randomness: bytes) -> None:
    made = ids.type_id("alloc", now_us, randomness)
    assert ids.is_type_id(made, "alloc")
    value = 0
    for character in ids.suffix(made):
        value = value * 32 + "0123456789abcdefghjkmnpqrstvwxyz".index(character)
    assert value >> 80 == now_us // 1000
    assert (value >> 76) & 0xF == 7
    assert (value >> 62) & 0b11 == 0b10


@given(st.integers(0, 10**15), st.integers(1, 10**12), st.binary(min_size=10, max_size=10))
def test_later_ids_sort_behind_earlier_ones(now_us: int, later_us: int, randomness: bytes) -> None:
    first, second = (ids.type_id("evt", at, randomness) for at in (now_us, now_us + later_us + 1000))
    assert first < second


@pytest.mark.parametrize("name", ["a", "n1", "a-b-c", "0", "a" * 63])
def test_names_callers_may_give(name: str) -> None:
    assert ids.is_name(name)


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a" * 64, "a\n", "ä", "a b", "a/b", "a.b"])
def test_names_that_are_refused(name: str) -> None:
    assert not ids.is_name(name)


@given(st.integers(1, 60), st.integers(1, 1000), st.integers(0, 10**6), st.text(max_size=20), st.integers(0, 2**32))
def test_a_wait_stays_within_its_ceiling_and_replays(attempt: int, first: int, more: int, key: str, seed: int) -> None:
    backoff = Backoff(first, first + more)
    delay = backoff.delay_us(attempt, key, seed)
    assert 1000 <= delay <= max(1000, min(first + more, first * 2 ** (attempt - 1)) * 1000)
    assert delay == backoff.delay_us(attempt, key, seed)


def test_waits_differ_between_entities_so_that_retries_do_not_march_in_step() -> None:
    backoff = Backoff(1000, 60_000)
    assert len({backoff.delay_us(3, f"e{number}") for number in range(100)}) > 95


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical({"b": 1, "a": [{"d": 2, "c": 3}]}) == canonical({"a": [{"c": 3, "d": 2}], "b": 1})


def test_the_chain_hash_depends_on_its_predecessor_and_every_field() -> None:
    fields = ("aud_1", 1, {"a": 1})
    first = chain_hash(ZERO_HASH, fields)
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    assert first == chain_hash(ZERO_HASH, fields)
    assert len({first, chain_hash(first, fields), chain_hash(ZERO_HASH, ("aud_1", 2, {"a": 1}))}) == 3


@pytest.mark.parametrize(("code", "http"), sorted(CODES.items()))
def test_an_error_says_its_number_and_whether_trying_again_helps(code: str, http: int) -> None:
    body = Rejected(code, "no", field="x").body()
    assert body == {
        "code": code, "http": http, "message": "no", "retryable": http in (429, 503, 504), "details": {"field": "x"},
    }  # fmt: skip
