"""The operators' console, as a person with a browser uses it: log in, look, settle; and as others would like to."""

import asyncio
import re
import shlex
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from adapters.http.console.pages import PAGES
from tests.acceptance.browser import Browser, Form, Page
from tests.acceptance.console import HOSTILE, something_of_everything
from tests.acceptance.machine import Machine
from tests.acceptance.records import all_is_well, cases
from tests.acceptance.world import World, until
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN, VIEWER = "an-operators-token", "a-viewers-token"
CONFIG = f"""[http]
jaeger_url = "http://jaeger.example:16686/"
[timing]
cleanup_backoff_ms = [100, 100]
[operators.olga]
token_sha256 = "{sha256(TOKEN.encode()).hexdigest()}"
role = "operator"
[operators.vera]
token_sha256 = "{sha256(VIEWER.encode()).hexdigest()}"
role = "viewer"
"""
DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(module_dir: Path) -> AsyncIterator[World]:
    """A runtime that knows its operators."""
    known = World(module_dir, CONFIG)
    known.operator_token = TOKEN
    async with known.running() as world:
        await world.account("acme")
        yield world
        await all_is_well(world)
    assert "Traceback" not in world.log_text(), world.log_text()[-5000:]
    for token in (TOKEN, VIEWER):
        assert token not in world.log_text(), "U5: a token was logged"


@pytest_asyncio.fixture(loop_scope="module")
async def browser(world: World) -> AsyncIterator[Browser]:
    """Olga's, who is logged in."""
    async with Browser(world.endpoints["http_url"]) as made:
        assert (await made.log_in(TOKEN)).status == 200
        yield made


async def said(world: World, target_ref: str) -> list[tuple[str, str]]:
    """Who has done something to it, and why."""
    rows = await world.sql.fetch("SELECT actor, reason FROM public_v1.audit_log WHERE target_ref = $1", target_ref)
    return [(row["actor"], row["reason"]) for row in rows]


def is_sound(page: Page) -> None:
    """Nothing of a page's content is markup, nothing runs, and a reader finds its way."""
    assert page.left_open == [], page.text
    assert "img" not in [tag for tag, _ in page.tags], page.text
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert [each for each in scripts if each != {"src": "/static/console.js", "defer": None}] == []
    assert [a for _, a in page.tags if any(name.startswith("on") or name == "style" for name in a)] == []
    tags = [tag for tag, _ in page.tags]
    assert (tags.count("h1"), tags.count("main"), tags.count("title")) == (1, 1, 1)
    labelled = {attributes.get("for") for tag, attributes in page.tags if tag == "label"}
    named = [a for tag, a in page.tags if tag == "input" and a.get("type") != "hidden" and "id" in a]
    assert {a["id"] for a in named} <= labelled


async def test_nobody_sees_anything_without_logging_in(world: World) -> None:
    async with Browser(world.endpoints["http_url"]) as anybody:
        for path in PAGES:
            page = await anybody.get(path.replace("{name}", "x"))
            assert page.url.startswith("/login"), path
        refused = await anybody.log_in("no token of anybody")
        assert (refused.status, "not known" in refused.text) == (401, True)
        async with anybody.session.get(f"{anybody.url}/live?page=/") as live:
            assert live.status == 401
        async with anybody.session.post(f"{anybody.url}/do", data={}, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (303, "/login")
        async with anybody.session.post(f"{anybody.url}/login/links") as response:
            assert response.status == 401


async def test_who_logs_in_comes_to_the_page_that_was_asked_for_and_no_script_reads_the_cookie(world: World) -> None:
    async with Browser(world.endpoints["http_url"]) as olga:
        page = await olga.get("/cases?state=resolved")
        form = page.form(action="/login")
        async with olga.session.post(
            f"{olga.url}/login", data={**form.fields, "token": TOKEN}, allow_redirects=False
        ) as response:
            assert (response.status, response.headers["Location"]) == (303, "/cases?state=resolved")
            cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        page = await olga.get("/")
        assert "olga" in page.text
        # a link from elsewhere: the cookie does not come along, and the page is asked for again from here
        async with (
            Browser(olga.url) as follower,
            follower.session.get(f"{olga.url}/cases", headers={"Sec-Fetch-Site": "cross-site"}) as response,
        ):
            assert 'http-equiv="refresh"' in await response.text()
        await olga.send(page.form(action="/logout"))
        assert (await olga.get("/")).url.startswith("/login")


@pytest.mark.parametrize(
    "place", ["//[", "//evil.example", "/\\evil.example", "https://evil.example/", "/nowhere", "/live"]
)
async def test_a_login_leads_nowhere_else(world: World, place: str) -> None:
    async with Browser(world.endpoints["http_url"]) as olga:
        page = await olga.get("/login")
        async with olga.session.post(
            f"{olga.url}/login", data={**page.form(action="/login").fields, "next": place, "token": TOKEN},
            allow_redirects=False,
        ) as response:  # fmt: skip
            assert (response.status, response.headers["Location"]) == (303, "/")


async def test_a_link_logs_in_once(world: World) -> None:
    async with Browser(world.endpoints["http_url"]) as olga:
        async with olga.session.post(
            f"{olga.url}/login/links", headers={"Authorization": f"Bearer {TOKEN}"}
        ) as response:
            path = (await response.json())["path"]
        await olga.get(path)  # to look at it spends nothing
        page = await olga.get(path)
        assert (await olga.send(page.form(action="/login"))).url == "/"
    async with Browser(olga.url) as other:
        assert (await other.send(page.form(action="/login"))).status == 401
        assert "has been used" in (await other.get(path)).text
        spent = await other.send((await other.get("/login")).form(action="/login"), key=path.partition("key=")[2])
        assert (spent.status, "has been used" in spent.text) == (401, True)


async def test_every_page_shows_what_is_there_and_nothing_of_it_is_markup(
    world: World, machine: Machine, browser: Browser
) -> None:
    made, failed = await something_of_everything(world, machine)
    rented, trace_id = made["/allocations"], made["/runs"]
    names = {f"{page}/{{name}}": name for page, name in {**made, "/allocations": failed}.items()}
    shown = {"/": "compensations", "/fleet": machine.node_id, "/allocations": rented, "/accounts": "acme",
             "/runs": trace_id, "/matrix": "R14", "/audit": "olga", "/system": "journal",
             "/runs/{name}": "reverse side_effect", "/nodes/{name}": "ops.node.drain", "/allocations/{name}": failed,
             "/lost/{name}": "node_offline", "/meters/{name}": rented, "/accounts/{name}": "Balance"}  # fmt: skip
    for path in PAGES:
        if "{name}" in path and path not in names:
            continue
        page = await browser.get(path.replace("{name}", names.get(path, "")))
        assert (page.status, path) == (200, path), page.text
        is_sound(page)
        assert shown.get(path, "") in page.text, (path, page.text)
    trace = f"http://jaeger.example:16686/trace/{trace_id}"
    assert trace in (await browser.get(f"/runs/{trace_id}")).links
    (search,) = [each for each in (await browser.get(f"/allocations/{failed}")).links if "jaeger" in each]
    assert search.startswith("http://jaeger.example:16686/search?service=amends&tags=")
    # a figure leads to its trace
    async with browser.session.get(
        f"{browser.url}/metrics", headers={"Accept": "application/openmetrics-text"}
    ) as told:
        families = {family.name: family for family in text_string_to_metric_families(await told.text())}  # type: ignore[no-untyped-call]
    marked = [each.exemplar.labels for each in families["amends_compensation_seconds"].samples if each.exemplar]
    assert {"trace_id": trace_id} in marked
    # what was looked for is found by what people have at hand
    for text in (failed, machine.node_id, "acme", f"node:{machine.node_id}"):
        assert (await browser.get(f"/find?q={text}")).status == 200
    assert (await browser.get(f"/find?q={trace_id}")).url.startswith("/runs/")
    short = await browser.get("/find?q=alloc_0")
    assert (short.status, "begins more than one id" in short.text) == (404, True)
    missing = await browser.get("/find?q=nothing-of-that-name")
    assert (missing.status, "nothing is known" in missing.text) == (404, True)
    nobody = {f"/nodes/{HOSTILE[:20].replace('/', '')}": 404, "/runs/x": 404, "/allocations/alloc_none": 404,
              "/cases/case_none": 400, f"/find?q={HOSTILE[:20]}": 404}  # fmt: skip
    for path, status in nobody.items():
        page = await browser.get(path)
        assert (page.status, path) == (status, path)
        is_sound(page)
    wrong = await browser.get("/allocations?cursor=nonsense")
    assert (wrong.status, "cursor" in wrong.text) == (400, True)
    # the chain is checked on demand
    verified = await browser.get("/audit?verify=yes")
    assert "The chain holds" in verified.text
    assert [attributes["data-live"] for tag, attributes in verified.tags if tag == "main"] == [""], "and not again"
    await world.release(rented)
    await world.cleaned(rented)


async def test_a_case_is_settled_by_who_knows_only_the_console(
    world: World, machine: Machine, browser: Browser
) -> None:
    # given a cleanup that retries could not settle
    allocation_id = await world.rent(node_id=machine.node_id)
    await machine.ssh.stop()
    await world.release(allocation_id)

    async def opened() -> bool:
        return bool([c for c in await cases(world, f"allocation:{allocation_id}") if c["kind"] == "cleanup_exhausted"])

    await until(opened, "the case is open")
    await world.node_is(machine.node_id, "quarantined")
    await machine.ssh.start()
    # when somebody comes from the first page to the case, and does what it says
    first = await browser.get("/")
    (link,) = {
        each for each in first.links
        if each.startswith("/cases/") and "cleanup_exhausted" in (await browser.get(each)).text.partition("</h1>")[0]
    }  # fmt: skip
    page = await browser.get(link)
    assert "Runbook" in page.text
    assert allocation_id in page.form("ops.cleanup.retry").fields["field.allocation_id"]
    missing = await browser.send(page.form("ops.cleanup.retry"))
    assert (missing.status, "reason" in missing.text or "why" in missing.text) == (400, True)
    after = await browser.do(page, "ops.cleanup.retry", reason="SSH is back")
    # then it is settled, in that person's name
    assert (after.status, after.url) == (200, link)
    await world.cleaned(allocation_id)
    await world.node_is(machine.node_id, "ready")
    assert [form for form in (await browser.get(link)).forms if form.action == "/do"] == []
    assert ("operator:olga", "SSH is back") in await said(world, f"allocation:{allocation_id}")


async def test_what_is_sent_twice_is_done_once_and_what_is_refused_is_said(
    world: World, machine: Machine, browser: Browser
) -> None:
    page = await browser.get(f"/nodes/{machine.node_id}")
    sure = await browser.send(page.form("ops.node.drain"), field__reason="maintenance")
    assert "maintenance" in sure.text
    assert (await world.node(machine.node_id))["state"] == "ready", "it was only looked at"
    for _ in range(2):
        assert (await browser.send(sure.form(action="/do"))).status == 200
    assert (await world.node(machine.node_id))["state"] == "draining"
    assert (await said(world, f"node:{machine.node_id}")).count(("operator:olga", "maintenance")) == 1
    # what its state does not allow
    page = await browser.get(f"/nodes/{machine.node_id}")
    refused = await browser.do(page, "ops.node.return_to_service", reason="it is not in quarantine")
    assert (refused.status, "illegal_transition" in refused.text) == (409, True)
    await browser.do(page, "ops.node.undrain", reason="done")
    await world.node_is(machine.node_id, "ready")


async def test_what_a_command_would_come_to_stands_where_it_is_looked_at_once_more(
    world: World, machine: Machine, browser: Browser
) -> None:
    rented = await world.rent(node_id=machine.node_id, external_ref=HOSTILE[:60])
    page = await browser.get(f"/allocations/{rented}")
    sure = await browser.send(
        page.form("ops.allocation.force_release"), field__reason=HOSTILE, field__reason_code="platform_fault"
    )
    is_sound(sure)
    for text in ("What would happen", "R09", "ssh.user-lock", "allocation.released", "force_platform_fault"):
        assert text in sure.text, sure.text
    assert (await world.allocation(rented))["state"] == "active", "it was only looked at"
    # what would be refused is said before it is sent
    node = await browser.get(f"/nodes/{machine.node_id}")
    assert f"/lost/{machine.node_id}" in node.links
    refused = await browser.send(node.form("ops.node.retire"), field__reason="scrapped")
    assert (refused.status, "It would be refused" in refused.text) == (200, True), refused.text
    # and so is what any other command would come to
    drain = await browser.send(node.form("ops.node.drain"), field__reason="scrapped")
    assert "What would happen</h2>" in drain.text
    assert "draining" in drain.text
    # who only looks may ask as well
    async with Browser(browser.url) as vera:
        await vera.log_in(VIEWER)
        lost = await vera.get(f"/lost/{machine.node_id}")
        is_sound(lost)
        assert "node_offline" in lost.text
    nobody = await browser.get("/lost/nobody")
    assert (nobody.status, "there is no node" in nobody.text) == (404, True)
    assert (await browser.send(sure.form(action="/do"))).status == 200
    await world.cleaned(rented)


async def test_what_was_refused_is_refused_again_and_what_is_not_known_can_be_sent_again(
    world: World, browser: Browser
) -> None:
    # a refusal that is kept under its key
    form = Form("/do", "post", {"subject": "cmd.account.create", "next": "/accounts"})
    form.fields["csrf"] = (await browser.get("/")).form(action="/logout").fields["csrf"]
    sure = (await browser.send(form, field__account_id="acme", field__currency="usd")).form(action="/do")
    for _ in range(2):
        refused = await browser.send(sure)
        assert (refused.status, "already_exists" in refused.text) == (409, True)
    # a database that takes nothing for a while: the same can be sent again, under the same key
    sure = (await browser.send(form, field__account_id="umbra", field__currency="usd")).form(action="/do")
    locker = await world.superuser()
    holding = locker.transaction()
    await holding.start()
    await locker.execute("LOCK TABLE journal_head IN ACCESS EXCLUSIVE MODE")
    unknown = await browser.send(sure)
    assert (unknown.status, "not known whether this was done" in unknown.text) == (500, True), unknown.text
    again = unknown.form(action="/do")
    assert again.fields == sure.fields
    await holding.rollback()
    await locker.close()

    async def done() -> bool:
        return (await browser.send(again)).url == "/accounts"

    await until(done, "it was done")
    rows = await world.rows("SELECT 1 FROM public_v1.account WHERE account_id = 'umbra'")
    assert len(rows) == 1


async def test_a_form_that_is_not_of_this_session_and_page_changes_nothing(
    world: World, machine: Machine, browser: Browser
) -> None:
    page = await browser.get(f"/nodes/{machine.node_id}")
    form = page.form("ops.node.drain")
    sure = (await browser.send(form, field__reason="x")).form(action="/do")
    foreign: list[dict[str, str]] = [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
    for headers in foreign:
        assert (await browser.send(sure, headers)).status == 403
    assert (await browser.send(sure, csrf="guessed")).status == 403
    async with Browser(browser.url) as other:
        await other.log_in(TOKEN)
        assert (await other.send(sure)).status == 403, "a form of another session"
    unknown = await browser.send(sure, subject="qry.node.list")
    assert (unknown.status, "no such command" in unknown.text) == (400, True)
    assert (await world.node(machine.node_id))["state"] == "ready"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("multipart/form-data; boundary=x", b"x"), ("multipart/form-data", b"x"), ("application/json", b"[]"),
        ("application/x-www-form-urlencoded", b"token=\xff"), ("application/x-www-form-urlencoded", b"token=%ff"),
        ("application/x-www-form-urlencoded; charset=nope", b"\xff"),
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % n for n in range(300))),
    ],
)  # fmt: skip
async def test_a_form_that_cannot_be_read_is_refused_whoever_sends_it(
    world: World, browser: Browser, kind: str, data: bytes
) -> None:
    async with Browser(world.endpoints["http_url"]) as anybody:
        for who, path in ((anybody, "/login"), (browser, "/do"), (browser, "/logout")):
            async with who.session.post(f"{who.url}{path}", data=data, headers={"Content-Type": kind}) as response:
                assert response.status == 400, await response.text()
            packed = {"Content-Type": kind, "Content-Encoding": "gzip"}
            async with who.session.post(f"{who.url}{path}", data=b"this is no gzip", headers=packed) as response:
                assert response.status == 400, await response.text()
    assert "Unhandled" not in world.log_text()


async def test_who_is_logged_in_may_look_at_traces_as_jaeger_does(world: World, browser: Browser) -> None:
    async with browser.session.get(f"{browser.url}/api/services") as response:
        assert (response.status, (await response.json())["data"]) == (200, ["amends"])
    for headers in ({"Authorization": "Bearer nobody"}, {"Sec-Fetch-Site": "cross-site"}):
        async with browser.session.get(f"{browser.url}/api/services", headers=headers) as response:
            assert response.status == 401
    async with browser.session.post(f"{browser.url}/login/links") as response:
        assert response.status == 401


async def test_what_is_typed_for_a_page_asks_for_what_it_shows(world: World, browser: Browser) -> None:
    hostile = "$(touch x);`id`'"
    for path, line in (
        (f"/allocations?state={quote(hostile)}", ["allocation", "list", "--where", f"state={hostile}"]),
        ("/cases?state=resolved", ["case", "list", "--where", "state=resolved"]),
        ("/runs?matrix_row=R02&final_outcome=open",
         ["recovery-run", "list", "--where", "matrix_row=R02", "--where", "final_outcome=null"]),
        ("/fleet?state=rented", ["node", "list", "--where", "allocated_to!=null"]),
        ("/audit?actor=olga", ["audit-log", "list", "--where", "actor=olga"]),
        (f"/allocations?state={quote(hostile + chr(27))}", []),
    ):  # fmt: skip
        page = await browser.get(path)
        copied = [
            attributes["data-copy"] for tag, attributes in page.tags if tag == "button" and "data-copy" in attributes
        ]
        assert [shlex.split(each or "") for each in copied] == ([["amends", *line]] if line else []), path
        is_sound(page)


async def test_a_viewer_sees_all_and_changes_nothing(world: World, machine: Machine, browser: Browser) -> None:
    path = f"/nodes/{machine.node_id}"
    sure = (await browser.send((await browser.get(path)).form("ops.node.drain"), field__reason="x")).form(action="/do")
    async with Browser(browser.url) as vera:
        assert (await vera.log_in(VIEWER)).status == 200
        page = await vera.get(path)
        assert [form for form in page.forms if form.action == "/do"] == []
        assert "you are a viewer" in page.text.lower()
        csrf = page.form(action="/logout").fields["csrf"]
        assert (await vera.send(sure, csrf=csrf)).status == 403
    assert (await world.node(machine.node_id))["state"] == "ready"


async def test_a_page_follows_what_happens(world: World, machine: Machine, browser: Browser) -> None:
    async with (
        asyncio.timeout(PATIENCE_S),
        browser.session.get(f"{browser.url}/live?page=/nodes/{machine.node_id}") as live,
    ):
        assert live.content_type == "text/event-stream"
        first = (await live.content.readuntil(b"\n\n")).decode()
        assert "<header" not in first
        assert "draining" not in first
        await world.ok("ops.node.drain", {"node_id": machine.node_id, "reason": "to be seen"})
        while "to be seen" not in (await live.content.readuntil(b"\n\n")).decode():
            pass
    await world.ok("ops.node.undrain", {"node_id": machine.node_id, "reason": "it was seen"})


async def test_the_labels_that_alerts_and_dashboard_go_by_are_told(world: World, browser: Browser) -> None:
    text = (await browser.get("/metrics")).text
    told: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(amends_[a-z_]+)(?:\{(.*)\})? ", text, re.MULTILINE):
        told.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    looked = "".join((DEPLOY / file).read_text() for file in ("prometheus/amends.rules.yml", "grafana/amends.json"))
    looked = looked.replace('\\"', '"')
    grouped = re.findall(r"by \((\w+)\) \(?(?:rate|increase)?\(?(amends_[a-z_]+)", looked)
    wanted = [
        *((name, label) for label, name in grouped),
        *((name, label) for name, label in re.findall(r'(amends_[a-z_]+)\{(\w+)[!=~]', looked)),
    ]  # fmt: skip
    assert {name for name, _ in wanted} >= {"amends_nodes", "amends_cases_open", "amends_failures_total"}
    assert [each for each in wanted if each[0] in told and each[1] not in told[each[0]]] == []


async def test_after_a_restart_one_logs_in_again(world: World, browser: Browser) -> None:
    world.kill()
    await world.restart()
    browser.url = world.endpoints["http_url"]
    assert (await browser.get("/fleet")).url.startswith("/login")
    assert (await browser.log_in(TOKEN)).status == 200
