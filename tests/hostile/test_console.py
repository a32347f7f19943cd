"""The console's addresses and forms, whoever made them: a page, a refusal, or a way that stays in this console."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request
from hypothesis import example
from hypothesis import strategies as st

from adapters.cli.verbs import all_verbs
from adapters.http.console.ports import Operator
from adapters.http.console.render import href
from adapters.http.console.routes import COOKIE, Console, _found, _next
from adapters.http.console.sessions import Sessions
from amends.domain.domain import requests_of
from amends.values.errors import Rejected
from supervisors.boot.console import Desk
from supervisors.rental import RENTAL
from tests.hostile.values import given, words

LOOP: Final = asyncio.Runner()
NONE: Any = None
VERBS: Final = tuple(all_verbs(requests_of((RENTAL,)).values()))
ADDRESSES: Final = (
    "/", "/cases", "/cases/case_1?x=1", "/nodes/n1", "/lost/n%31", "//evil", "/\\evil", "https://evil/",
    "/cases/../x", "/nodes/%2e%2e", "/nodes/a/b", "/find?q=x", "/login", "/runs?matrix_row=R01", "/\tevil",
    "/nodes/[", "http://[", "/?", "/nodes/%ff", "/nodes/" + "a" * 5000, "/\ud800",
)  # fmt: skip
addresses = (
    st.sampled_from(ADDRESSES) | words | st.builds("{}{}".format, st.sampled_from(ADDRESSES), st.text(max_size=4))
)


@given(addresses)
def test_one_goes_on_to_a_page_of_this_console_and_nowhere_else(wanted: str) -> None:
    found = _next({"next": wanted})
    parts = urlsplit("http://console" + found)
    assert found.startswith("/")
    assert not found.startswith(("//", "/\\"))
    assert parts.netloc == "console"
    assert _found(found) is not None
    assert found in (wanted, "/")
    web.HTTPSeeOther(found.encode(errors="replace").decode())


class Runtime:
    """Knows one node, and takes every command."""

    async def ask(self, subject: str, data: Mapping[str, Any]) -> dict[str, Any]:
        return {"items": []}

    async def story(self, identifier: str) -> Any:
        return None

    async def command(self, subject: str, data: Mapping[str, Any], key: str) -> dict[str, Any]:
        return {}

    async def forecast(self, subject: str, data: Mapping[str, Any]) -> dict[str, Any]:
        raise Rejected("invalid_request", "it cannot be told")

    async def settling(self, case: Mapping[str, Any]) -> Sequence[Any]:
        return ()


class Known(Desk):
    """The real desk without a runtime behind it; one token is good."""

    def __init__(self) -> None:
        super().__init__(NONE, (), VERBS, NONE, silent=NONE, fleet=NONE, now=NONE, samples=NONE, turns=NONE)

    def log_in(self, token: str) -> Operator:
        if token != "good":
            raise Rejected("unauthenticated", "this token is not known")
        return Operator("olga", "operator")

    def runtime(self, token: str) -> Any:
        return Runtime()


SESSIONS: Final = Sessions()
CONSOLE: Final = Console(Known(), SESSIONS)
NAME: Final = SESSIONS.open("good", Operator("olga", "operator"))
OPEN: Final = SESSIONS._sessions[NAME]
ROUTES: Final = {(method, path): handler for method, path, handler in CONSOLE.routes()}


async def answered(method: str, path: str, where: str, headers: Mapping[str, str], body: bytes) -> int:
    """The status of an answer; what the server answers a refusal with counts."""
    payload = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
    payload.feed_data(body)
    payload.feed_eof()
    request = make_mocked_request(method, where, headers=headers, payload=payload)
    try:
        response = await ROUTES[method, path](request)
    except Rejected as error:
        return error.http
    except web.HTTPException as error:
        return error.status
    if response.status == 303:
        location = response.headers["Location"]
        assert location.startswith("/")
        assert not location.startswith(("//", "/\\"))
    return response.status


def asked(method: str, path: str, where: str, headers: Mapping[str, str], body: bytes) -> int:
    """As above, with the loop of all of them."""
    return LOOP.run(answered(method, path, where, headers, body))


KINDS: Final = (
    "application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=utf-16",
    "application/x-www-form-urlencoded; charset=nonsense", "multipart/form-data; boundary=b", "multipart/form-data",
    "application/json", "text/plain", "multipart/form-data; boundary=" + "b" * 100, "a/b; charset=idna",
)  # fmt: skip
PART: Final = b"--b\r\nContent-Disposition: form-data; name=%s\r\n%s\r\n\xff\r\n--b--\r\n"
fields = st.dictionaries(
    st.sampled_from(("csrf", "subject", "next", "sure", "key", "token", "field.reason", "field.node_id", "known.x"))
    | words, st.sampled_from((OPEN.csrf, "ops.node.drain", "good", "x", "/cases")) | addresses, max_size=6,
)  # fmt: skip
forms = fields.map(lambda given_: urlencode(given_, errors="replace").encode())
bodies = (
    forms | forms.map(lambda form: form + b"&csrf=" + OPEN.csrf.encode() + b"&subject=ops.node.drain&field.node_id=n1")
    | st.binary(max_size=60) | st.builds(lambda name, more: PART % (name, more), st.binary(max_size=6),
                                         st.sampled_from((b"", b"Content-Type: a; charset=x\r\n", b"\x00: b\r\n",
                                                          b"Content-Encoding: gzip\r\n")))
)  # fmt: skip
header_sets = st.fixed_dictionaries({"Content-Type": st.sampled_from(KINDS), "Host": st.just("console")}, optional={
    "Cookie": st.sampled_from((f"{COOKIE}={NAME}", f"{COOKIE}=x", "=;;", f"{COOKIE}={NAME}; {COOKIE}=y")),
    "Origin": st.sampled_from(("http://console", "http://evil", "null", "http://[")),
    "Referer": st.sampled_from(ADDRESSES[:8]),
    "Sec-Fetch-Site": st.sampled_from(("same-origin", "cross-site", "none")),
})  # fmt: skip
POSTS: Final = ("/do", "/login", "/logout")
FINE: Final = (200, 303, 400, 401, 403, 404, 413, 415)


@given(st.sampled_from(POSTS), header_sets, bodies, st.booleans())
@example("/login", {"Content-Type": KINDS[2], "Host": "console"}, b"token=good", False)
@example("/login", {"Content-Type": KINDS[0], "Host": "console"}, b"token=\xff", False)
@example("/login", {"Content-Type": KINDS[1], "Host": "console"}, b"token=x", False)
@example("/login", {"Content-Type": KINDS[4], "Host": "console"}, b"", False)
@example("/login", {"Content-Type": KINDS[3], "Host": "console"}, b"--c\r\n\r\n", False)
@example("/login", {"Content-Type": KINDS[3], "Host": "console"}, PART % (b"a", b"Content-Encoding: x\r\n"), False)
def test_a_form_of_anybodys_is_answered_or_refused(path: str, headers: dict[str, str], body: bytes, ours: bool) -> None:
    if ours:
        headers = {"Content-Type": KINDS[0], "Host": "console", "Cookie": f"{COOKIE}={NAME}"}
    status = asked("POST", path, path, headers, body)
    SESSIONS._sessions[NAME] = OPEN  # who logs out is back in for the next example
    assert status in FINE


@given(words | st.sampled_from(("case_1", "a" * 32, "node:n1", "node:", ":", "alloc_" + "0" * 26)), header_sets)
def test_whatever_is_looked_for_is_a_page_or_not_found(text: str, headers: dict[str, str]) -> None:
    where = "/find?" + urlencode({"q": text}, errors="replace")
    assert asked("GET", "/find", where, {**headers, "Cookie": f"{COOKIE}={NAME}"}, b"") in (303, 404)
    assert asked("GET", "/find", where, {"Host": "console"}, b"") == 303


@given(addresses)
def test_a_page_to_come_back_to_is_kept_or_dropped(wanted: str) -> None:
    where = "/login?" + urlencode({"next": wanted, "key": wanted}, errors="replace")
    assert asked("GET", "/login", where, {"Host": "console"}, b"") == 200


@given(words, words)
def test_a_reference_is_an_address_of_this_console_or_none(column: str, text: str) -> None:
    found = href(column, text)
    assert found == "" or (found.startswith("/") and found.isascii() and not found.startswith("//"))
