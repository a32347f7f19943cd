"""What strangers send, cheaply made: hostile values from a list, and good bodies of which one thing is changed."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import hypothesis
from hypothesis import settings
from hypothesis import strategies as st

from tests.profiles import share

HOSTILE: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**70), 10**30, 1e308,
    "", " ", "\0", "\n", "a\n", "a" * 64, "a" * 300, "a" * 5000, "..", "/", "//", "*", ">", "a.b", "a b", "A", "ä",
    "\u202e", "\ud7ff", "\U0001f4a9", "'; DROP TABLE nodes; --", "$(reboot)", "%s%n{0}", "<script>", "null", "true",
    "0", "-1", "1e9", "9" * 30, "9" * 5000, "٣", "inf", "nan", "node:n1", "alloc_", "alloc_" + "0" * 26,
    "case_" + "z" * 26, "2026-01-01", "2026-13-41T25:61:61Z", "0001-01-01T00:00:00+23:59",
    [], [[]], [None], ["a"] * 40, [1, "a"], {}, {"": ""}, {"a": {"a": {"a": 1}}}, {"a": "b"}, {"__class__": 1},
)  # fmt: skip
SHARE: Final = 2  # there are many of these tests, and each gets a part of the profile's examples
text = st.text(max_size=12)
values = st.sampled_from(HOSTILE) | text | st.integers(-(2**70), 2**70)
words = st.sampled_from(tuple(each for each in HOSTILE if isinstance(each, str))) | text


def given(*strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """As hypothesis' own."""
    number: Any = settings(max_examples=share(SHARE))
    made: Any = hypothesis.given(*strategies)

    def decorated(test: Callable[..., None]) -> Callable[..., None]:
        found: Callable[..., None] = number(made(test))
        return found

    return decorated


def places(body: Any, inside: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to each value of a body, its own included."""
    found: list[tuple[str | int, ...]] = [inside]
    inner: Sequence[tuple[Any, Any]] = ()
    if isinstance(body, dict):
        inner = list(body.items())
    elif isinstance(body, list):
        inner = list(enumerate(body))
    for name, value in inner:
        found += places(value, (*inside, name))
    return found


def put(body: Any, place: Sequence[str | int], value: Any) -> Any:
    """The body with another value there; what lies on the way is copied."""
    if not place:
        return value
    first, *rest = place
    if isinstance(body, list):
        return [put(each, rest, value) if number == first else each for number, each in enumerate(body)]
    return {**body, first: put(body.get(first, {}), rest, value)}


def without(body: Any, place: Sequence[str | int]) -> Any:
    """The body without what is there."""
    *way, last = place
    around = body
    for part in way:
        around = around[part]
    left = (
        {name: value for name, value in around.items() if name != last}
        if isinstance(around, dict)
        else [each for number, each in enumerate(around) if number != last]
    )
    return put(body, way, left)


def changed(body: Any, more: Sequence[str] = ("colour", "", "v")) -> st.SearchStrategy[Any]:
    """That body, or it with one or two values replaced, one left out, or one added."""
    all_of = places(body)
    inner = all_of[1:]
    one = st.builds(lambda place, value: put(body, place, value), st.sampled_from(all_of), values)
    two = st.builds(lambda place, value, name, other: put(put(body, place, value), (name,), other),
                    st.sampled_from(inner), values, st.sampled_from(more or ("a",)), values)  # fmt: skip
    fewer = st.sampled_from(inner or [("",)]).map(lambda place: without(body, place))
    return (one | two | fewer | st.just(body)) if isinstance(body, dict) and inner else one | st.just(body)


def sent(bodies: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """As bytes; some cut off, some with bytes put into them, some that are nothing at all."""
    whole = bodies.map(lambda body: json.dumps(body).encode())
    cut = st.builds(lambda data, at: data[: at % (len(data) + 1)], whole, st.integers(0, 2000))
    dirty = st.builds(lambda data, at, more: data[: at % (len(data) + 1)] + more + data[at % (len(data) + 1) :],
                      whole, st.integers(0, 2000), st.binary(max_size=4))  # fmt: skip
    return whole | whole | cut | dirty | st.sampled_from(RAW) | st.binary(max_size=40)


RAW: Final = (
    b"", b"null", b"[]", b"{}", b"1", b'"a"', b"{", b"\x00", b"\xff\xfe\x00", b'{"\xff": 1}', b'{"a": "\xed\xa0\x80"}',
    b'{"a": "\\ud800"}', b"[" * 30_000, b'{"a":' * 10_000, b"9" * 5_000, b"-", b"1e999", b"NaN", b'{"a": 1,}',
    b'{"a": 1, "a": 2}', b"\xef\xbb\xbf{}", b" " * 70_000, b'{"v": 99999999999999999999}', b'{"v": 0}', b'{"v": "1"}',
)  # fmt: skip


Kinds = type[BaseException] | tuple[type[BaseException], ...]


def tried(kinds: Kinds, call: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """(what it comes to, None), or (None, the error of these kinds that it raises); any other goes on."""
    try:
        return call(*args), None
    except kinds as error:
        return None, error


def as_text(known: Mapping[str, Sequence[str]]) -> st.SearchStrategy[dict[str, str]]:
    """Some of the known names, each with one of its good words or a hostile one."""
    each = {name: st.sampled_from(good) | words if good else words for name, good in known.items()}
    return st.fixed_dictionaries({}, optional=each)
