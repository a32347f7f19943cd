"""A browser without a screen: follows links, fills in forms, keeps cookies."""

import asyncio
from html.parser import HTMLParser
from typing import Any, Self

import aiohttp
from msgspec import Struct

VOID = {"input", "link", "meta", "br", "hr", "img", "rect"}


class Form(Struct):
    """One of a page: where it goes, how, its fields and what they hold."""

    action: str
    method: str
    fields: dict[str, str] = {}


class Page(Struct):
    """What came back. `tags` are the elements in their order, `open` those that were never closed."""

    status: int
    url: str
    text: str
    forms: list[Form] = []
    links: list[str] = []
    tags: list[tuple[str, dict[str, str | None]]] = []
    left_open: list[str] = []

    def form(self, subject: str = "", action: str = "") -> Form:
        """The only one of a command, or of an address."""
        (form,) = [
            each for each in self.forms
            if (subject and each.fields.get("subject") == subject) or (action and each.action == action)
        ]  # fmt: skip
        return form


class _Reader(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.page.tags.append((tag, found))
        if tag not in VOID:
            self.page.left_open.append(tag)
        if tag == "form":
            self.page.forms.append(Form(found.get("action") or "", found.get("method") or "get", {}))
        elif tag == "input" and found.get("type") != "checkbox" and self.page.forms and found.get("name"):
            self.page.forms[-1].fields[str(found["name"])] = found.get("value") or ""
        elif tag == "a" and found.get("href"):
            self.page.links.append(str(found["href"]))

    def handle_endtag(self, tag: str) -> None:
        if self.page.left_open and self.page.left_open[-1] == tag:
            self.page.left_open.pop()
        elif tag in self.page.left_open:
            self.page.left_open.append(f"/{tag}")


class Browser:
    """Of one person."""

    def __init__(self, http_url: str) -> None:
        self.url = http_url
        self.session: aiohttp.ClientSession
        self.looked_at: Page  # before the last command was sent

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.session.close()
        await asyncio.sleep(0)  # transports let go of their sockets in the loop's next turn, and it may be the last

    async def get(self, path: str, **headers: str) -> Page:
        """A page, redirects followed."""
        async with self.session.get(self.url + path, headers=headers) as response:
            return await self._read(response)

    async def send(self, form: Form, headers: dict[str, str] | None = None, **fields: Any) -> Page:
        """A form, with these fields filled in (`field__name` for `field.name`)."""
        data = {**form.fields, **{name.replace("__", "."): str(value) for name, value in fields.items()}}
        origin = {"Origin": self.url, "Sec-Fetch-Site": "same-origin", **(headers or {})}
        async with self.session.post(self.url + form.action, data=data, headers=origin) as response:
            return await self._read(response)

    async def log_in(self, token: str) -> Page:
        """With a token; the page that follows."""
        page = await self.get("/login")
        return await self.send(page.form(action="/login"), token=token)

    async def do(self, page: Page, subject: str, **fields: Any) -> Page:
        """A command from its form to the end: filled in, looked at once more, done."""
        named = {f"field__{name}": value for name, value in fields.items()}
        sure = await self.send(page.form(subject), **named)
        assert sure.status == 200, sure.text
        self.looked_at = sure
        return await self.send(sure.form(action="/do"))

    async def _read(self, response: aiohttp.ClientResponse) -> Page:
        page = Page(response.status, str(response.url.relative()), await response.text())
        if response.content_type == "text/html":
            _Reader(page).feed(page.text)
        return page
