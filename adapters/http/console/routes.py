"""The console's addresses: who may see them, logging in, the forms, and pages that follow what happens.

A change needs the session, its token in the form, and a request that this console's own page has sent. The cookie is
never sent along from another site; who follows a link from there is shown the page again, from here.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from aiohttp import web

from adapters.http.answers import Handler, json_answer
from adapters.http.console.pages import PAGES, Asked, Make, Page, place_of
from adapters.http.console.ports import Desk, Runtime
from adapters.http.console.render import environment, href, plain
from adapters.http.console.sessions import LONGEST_S, Session, Sessions
from amends.values.errors import Rejected, Unavailable

log = logging.getLogger("amends.console")
COOKIE: Final = "amends_session"
FOLLOWERS: Final = 32  # pages that are followed at once
FOLLOW_S, QUIET_S = 1.0, 15.0  # between two looks; after which a line is sent though nothing has changed
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
UNKNOWN: Final = 500  # from here on a command may have been done all the same
SHARE: Final = 10  # a page is looked at again after so many times what it took
SLICE_S: Final = 0.005  # of rendering, before others have the loop
FORM: Final = "application/x-www-form-urlencoded"
MOST_FIELDS: Final = 100
ONCE: Final = ("verify",)  # what is asked for by hand is not asked for again and again
STATIC: Final = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
SPENT: Final = "this link has been used, or is too old; log in with a token"
SAID: Final = 400  # characters of a reply that are shown
AGAIN: Final = '<!doctype html><meta http-equiv="refresh" content="0"><title>Amends</title>'


class Console:
    """`routes` for the HTTP server, which it needs for nothing else."""

    def __init__(self, desk: Desk, sessions: Sessions | None = None, *, jaeger_url: str = "") -> None:
        self._desk = desk
        self._sessions = sessions if sessions is not None else Sessions()
        self._templates = environment(jaeger_url)
        self._followers = 0

    def routes(self) -> list[tuple[str, str, Handler]]:
        """(method, path, handler)."""
        pages = [("GET", path, self._page(make)) for path, make in PAGES.items()]
        return [
            *pages,
            ("GET", "/find", self._guarded(self._find)),
            ("POST", "/do", self._guarded(self._do)),
            ("GET", "/live", self._live),
            ("GET", "/login", self._login_page),
            ("POST", "/login", self._log_in),
            ("POST", "/logout", self._guarded(self._log_out)),
            *(("GET", f"/static/{name}", _static(name, kind)) for name, kind in STATIC.items()),
        ]

    def visitor(self, request: web.Request) -> str | None:
        """Who has logged in here and asks from a page of ours, or None."""
        session = self._session(request)
        if session is None or request.headers.get("Sec-Fetch-Site") not in (None, "same-origin", "none"):
            return None
        try:
            return self._desk.log_in(session.token).name  # the token may be good no more
        except Rejected:
            return None

    def guarded_routes(self) -> list[tuple[str, str, Handler]]:
        """Those for whoever has a bearer token."""
        return [("POST", "/login/links", self._link)]

    # --- logging in ----------------------------------------------------------------------------------

    async def _link(self, request: web.Request) -> web.StreamResponse:
        """A link that logs in once."""
        token = request.headers.get("Authorization", "").partition(" ")[2].strip()
        return json_answer({"path": f"/login?key={self._sessions.link(token)}"})

    async def _login_page(self, request: web.Request) -> web.StreamResponse:
        key = request.query.get("key", "")
        said = SPENT if key else ""
        good = self._sessions.is_good(key)
        said = "" if good else said
        return await self._html("login.html", key=key if good else "", said=said, next=_next(request.query))

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        _from_here(request)
        given = await _fields(request)
        token = self._sessions.redeem(given["key"]) if given.get("key") else given.get("token", "").strip()
        try:
            if given.get("key") and not token:
                raise Rejected("unauthenticated", SPENT)
            operator = self._desk.log_in(token)
        except Rejected as error:
            return await self._html("login.html", error.http, key="", said=error.message, next=_next(given))
        response = web.HTTPSeeOther(_next(given))
        name = self._sessions.open(token, operator)
        response.set_cookie(
            COOKIE, name, httponly=True, samesite="Strict", path="/", max_age=int(LONGEST_S),
            secure=request.headers.get("X-Forwarded-Proto", request.scheme) == "https",
        )  # fmt: skip
        return _plain(response)

    async def _log_out(self, request: web.Request, session: Session) -> web.StreamResponse:
        await self._filled_in(request, session)
        self._sessions.end(request.cookies.get(COOKIE, ""))
        response = web.HTTPSeeOther("/login")
        response.del_cookie(COOKIE, path="/")
        return _plain(response)

    # --- pages ---------------------------------------------------------------------------------------

    def _page(self, make: Make) -> Handler:
        async def show(request: web.Request, session: Session) -> web.StreamResponse:
            page = await make(self._asked(session, request.query, request.match_info.get("name", "")))
            return await self._shown(page, session, request.path_qs)

        return self._guarded(show)

    def _asked(self, session: Session, query: Mapping[str, str], name: str) -> Asked:
        return Asked(self._desk, self._runtime(session), query, name)

    def _runtime(self, session: Session) -> Runtime:
        return self._desk.runtime(session.token)

    async def _shown(self, page: Page, session: Session, path: str, status: int = 200) -> web.Response:
        said, session.said = session.said, ""
        return await self._html(page.template, status, **_values(page, session, path), done=said)

    async def _html(self, template: str, status: int = 200, **values: Any) -> web.Response:
        text = await self._rendered(template, {"bare": False, "done": "", **values})
        return web.Response(text=text, status=status, content_type="text/html", headers=HEADERS)

    async def _rendered(self, template: str, values: Mapping[str, Any]) -> str:
        """The text of a page; of a long one the loop is given away in between."""
        parts, clock = list[str](), asyncio.get_running_loop().time
        since = clock()
        for part in self._templates.get_template(template).generate(values):
            parts.append(part)
            if clock() - since > SLICE_S:
                await asyncio.sleep(0)
                since = clock()
        return "".join(parts)

    def _guarded(self, handler: Callable[[web.Request, Session], Awaitable[web.StreamResponse]]) -> Handler:
        """Whoever is not logged in is asked to; what goes wrong is a page that says so."""

        async def checked(request: web.Request) -> web.StreamResponse:
            session = self._session(request)
            if session is None:
                if request.method == "GET" and request.headers.get("Sec-Fetch-Site") == "cross-site":
                    return web.Response(text=AGAIN, content_type="text/html", headers=HEADERS)
                where = f"/login?{_query(request.path_qs)}" if request.method == "GET" else "/login"
                return _plain(web.HTTPSeeOther(where))
            try:
                return await handler(request, session)
            except (Rejected, Unavailable) as error:
                return await self._failed(error, request, session)

        return checked

    async def _failed(self, error: Rejected | Unavailable, request: web.Request, session: Session) -> web.Response:
        if isinstance(error, Rejected) and error.code == "unauthenticated":  # the token is good no more
            self._sessions.end(request.cookies.get(COOKIE, ""))
        status, code = (error.http, error.code) if isinstance(error, Rejected) else (503, "db_unavailable")
        values = {"code": code, "said": str(error), "back": _next({"next": _referred(request)})}
        return await self._shown(
            Page("error.html", "Not done", values, follows=False), session, request.path_qs, status
        )

    def _session(self, request: web.Request, *, used: bool = True) -> Session | None:
        return self._sessions.find(request.cookies.get(COOKIE, ""), used=used)

    async def _find(self, request: web.Request, session: Session) -> web.StreamResponse:
        where = await place_of(self._runtime(session), request.query.get("q", "").strip(), href)
        return _plain(web.HTTPSeeOther(where))

    # --- changes -------------------------------------------------------------------------------------

    async def _filled_in(self, request: web.Request, session: Session) -> dict[str, str]:
        """The fields of a form of this session's own; raises `Rejected`."""
        _from_here(request)
        given = await _fields(request)
        if not hmac.compare_digest(given.pop("csrf", "").encode(), session.csrf.encode()):
            raise Rejected("forbidden", "this form is not of your session: load the page again")
        return given

    async def _do(self, request: web.Request, session: Session) -> web.StreamResponse:
        given = await self._filled_in(request, session)
        known = {name.removeprefix("known."): value for name, value in given.items() if name.startswith("known.")}
        form = self._desk.form(given.get("subject", ""), known)
        if form is None:
            raise Rejected("invalid_request", "there is no such command", field="subject")
        fields = {name.removeprefix("field."): value for name, value in given.items() if name.startswith("field.")}
        data = self._desk.data(form, fields)
        if not given.get("sure"):
            values = {"form": form, "data": data, "given": given, "next": _next(given), "key": secrets.token_hex(16),
                      "unknown": "", **await self._forecast(session, form.subject, data)}  # fmt: skip
            page = Page("sure.html", form.words, values, follows=False)
            return await self._shown(page, session, "/do")
        try:
            reply = await self._runtime(session).command(form.subject, data, key=given.get("key", ""))
        except (Rejected, Unavailable) as error:
            if isinstance(error, Rejected) and error.http < UNKNOWN:
                raise
            kept = {name: value for name, value in given.items() if name not in ("sure", "key")}
            values = {"form": form, "data": data, "given": kept, "next": _next(given), "key": given.get("key", ""),
                      "forecast": None, "untold": "", "unknown": str(error)}  # fmt: skip
            return await self._shown(Page("sure.html", form.words, values, follows=False), session, "/do", UNKNOWN)
        session.said = f"Done: {form.words}. {plain(reply.get('data', {}))[:SAID]}"
        return _plain(web.HTTPSeeOther(_next(given)))

    async def _forecast(self, session: Session, subject: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """What the command would come to; that it cannot be told is no reason not to show the rest."""
        try:
            return {"forecast": await self._runtime(session).forecast(subject, data), "untold": ""}
        except (Rejected, Unavailable) as error:
            return {"forecast": None, "untold": str(error)}

    # --- following -----------------------------------------------------------------------------------

    async def _live(self, request: web.Request) -> web.StreamResponse:
        """A page's content, again whenever it has changed, as server-sent events."""
        session, path = self._session(request), request.query.get("page", "/")
        if session is None:
            raise Rejected("unauthenticated", "log in")
        if self._followers >= FOLLOWERS:
            raise Rejected("throttled", f"{FOLLOWERS} pages are followed already")
        found = _found(path)
        if found is None:
            raise Rejected("not_found", "that page is not followed")
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        self._followers += 1
        try:
            await response.prepare(request)
            await self._follow(response, request, found, path)
        except ConnectionResetError:
            log.debug("a page is followed no more")
        finally:
            self._followers -= 1
        return response

    async def _follow(
        self, response: web.StreamResponse, request: web.Request, found: tuple[Make, str, Mapping[str, str]], path: str
    ) -> None:
        make, name, query = found
        sent, changes, quiet_s, clock = "", -1, 0.0, asyncio.get_running_loop().time
        while (session := self._session(request, used=False)) is not None and _is_there(request):
            began = clock()
            if self._desk.changes != changes or quiet_s >= QUIET_S:
                changes, quiet_s = self._desk.changes, 0.0
                try:
                    page = await make(self._asked(session, query, name))
                except (Rejected, Unavailable):
                    await response.write(b": not now\n\n")
                else:
                    text = await self._rendered(page.template, {"bare": True, **_values(page, session, path)})
                    digest = hashlib.sha256(text.encode()).hexdigest()
                    lines = "".join(f"data: {line}\n" for line in text.splitlines())
                    await response.write(f"{lines}\n".encode() if digest != sent else b": nothing new\n\n")
                    sent = digest
            wait_s = max(FOLLOW_S, SHARE * (clock() - began))  # what is dear is looked at less often
            await asyncio.sleep(wait_s)
            quiet_s += wait_s


def _is_there(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _values(page: Page, session: Session, path: str) -> dict[str, Any]:
    """What a page's template is given."""
    common = {"operator": session.operator, "csrf": session.csrf, "title": page.title, "line": page.line}
    return {**common, "path": path, "follow": path if page.follows else "", **page.values}


def _found(path: str) -> tuple[Make, str, Mapping[str, str]] | None:
    """The page at an address: how it is made, the name in it, and its query."""
    parts = _split(path)
    query = {name: value for name, value in parse_qsl(parts.query) if name not in ONCE}
    if parts.path in PAGES:
        return PAGES[parts.path], "", query
    head, _, name = parts.path.rpartition("/")
    make = PAGES.get(f"{head}/{{name}}")
    return (make, unquote(name), query) if make is not None else None


def _next(given: Mapping[str, str]) -> str:
    """Where to go then: an address of this console and no other's."""
    wanted = given.get("next", "/")
    parts = _split(wanted)
    good = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and not parts.netloc and wanted.isprintable()
    return wanted if good and _found(wanted) is not None else "/"


def _split(address: str) -> SplitResult:
    """The parts of an address; of what is none nothing."""
    try:
        return urlsplit(address)
    except ValueError:
        return SplitResult("", "", "", "", "")


def _query(path: str) -> str:
    return urlencode({"next": path})


def _referred(request: web.Request) -> str:
    parts = _split(request.headers.get("Referer", ""))
    return f"{parts.path}?{parts.query}" if parts.query else parts.path or "/"


def _from_here(request: web.Request) -> None:
    """Raise `Rejected` for a form that a page of somebody else's has sent; browsers say whose it was."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if site not in (None, "same-origin", "none") or (origin is not None and _split(origin).netloc != request.host):
        raise Rejected("forbidden", "this was sent from another page than the console's")


async def _fields(request: web.Request) -> dict[str, str]:
    """The fields of a form as a browser sends ours; raises `Rejected` for any other body."""
    if request.content_type != FORM:
        raise Rejected("invalid_request", f"a form of this console comes as {FORM}")
    try:
        text = (await request.read()).decode()
        return dict(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS))
    except ValueError as error:
        raise Rejected("invalid_request", f"this form cannot be read: {error}") from None


def _plain(response: web.Response) -> web.Response:
    response.headers.update(HEADERS)
    return response


def _static(name: str, kind: str) -> Handler:
    body = files("adapters.http.console").joinpath("static", name).read_bytes()

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, headers={**HEADERS, "Cache-Control": "max-age=300"})

    return serve
