"""The console in a real browser: every page in light and dark, wide and on a phone; by keyboard; live; hostile."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from adapters.http.console.pages import PAGES
from tests.acceptance.chromium import CHROMIUM, MISSING, Looked, chromium
from tests.acceptance.console import HOSTILE, something_of_everything
from tests.acceptance.machine import Machine
from tests.acceptance.records import all_is_well
from tests.acceptance.world import World
from tests.patience import PATIENCE_S

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # A program of the system, which a newcomer may lack; .ci/run installs it.
    pytest.mark.skipif(CHROMIUM is None, reason=MISSING),
]
PATIENCE_MS = PATIENCE_S * 1000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(module_dir: Path) -> AsyncIterator[World]:
    """A runtime with its generated operator."""
    async with World(module_dir).running() as world:
        await world.account("acme")
        yield world
        await all_is_well(world)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One for all tests of this file."""
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def looked(world: World, browser: Browser) -> AsyncIterator[Looked]:
    """A person who is logged in, in a context of its own; nothing may have gone wrong in a page."""
    context = await browser.new_context(base_url=world.endpoints["http_url"])
    looked = Looked(await context.new_page())
    looked.page.set_default_timeout(PATIENCE_MS)
    await log_in(looked.page, world.endpoints["operator_token"])
    yield looked
    await context.close()
    assert looked.wrong == []


async def log_in(page: Page, token: str) -> None:
    """With a token, as one types it."""
    await page.goto("/login")
    await page.get_by_label("Token").fill(token)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Now")


async def test_every_page_can_be_read_in_light_and_dark_wide_and_on_a_phone(
    world: World, machine: Machine, looked: Looked
) -> None:
    names, _ = await something_of_everything(world, machine)
    paths = [path.replace("{name}", names.get(path.rpartition("/")[0], "")) for path in PAGES]
    shown = [path for path in paths if not path.endswith("/") or path == "/"]
    assert len(shown) >= len(names) + 8
    for path in shown:
        # when
        await looked.page.goto(path)
        # then
        assert await looked.faults() == [], path
        await expect(looked.page.get_by_role("heading", level=1)).to_be_visible()
    await world.release(names["/allocations"])
    await world.cleaned(names["/allocations"])


async def test_a_command_is_given_by_keyboard_alone(world: World, machine: Machine, looked: Looked) -> None:
    page = looked.page
    await page.goto(f"/nodes/{machine.node_id}")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    form = page.locator("form", has=page.locator("input[name=subject][value='ops.node.drain']"))
    for _ in range(60):  # on to the command, as somebody without a mouse
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.closest('details')?.querySelector('[value=\"ops.node.drain\"]')"
                               " !== null && document.activeElement.tagName === 'SUMMARY'"):  # fmt: skip
            break
    await page.keyboard.press("Enter")
    await form.locator("input[name='field.reason']").focus()
    await page.keyboard.type("a new disk")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Do it")).to_be_focused()
    assert await looked.faults() == []
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_contain_text(machine.node_id)
    assert (await world.node(machine.node_id))["state"] == "draining"
    await world.ok("ops.node.undrain", {"node_id": machine.node_id, "reason": "it is in"})
    await world.node_is(machine.node_id, "ready")


async def test_a_page_shows_what_happens_without_being_loaded_anew(
    world: World, machine: Machine, looked: Looked
) -> None:
    page = looked.page
    await page.goto(f"/nodes/{machine.node_id}")
    await page.evaluate("window.same = true")
    await world.ok("ops.node.drain", {"node_id": machine.node_id, "reason": HOSTILE})
    await expect(page.locator("main")).to_contain_text("draining", timeout=PATIENCE_MS)
    await expect(page.locator("main")).to_contain_text(HOSTILE[:20])
    assert await page.evaluate("window.same"), "it was loaded anew"
    assert await page.locator("main img").count() == 0
    await world.ok("ops.node.undrain", {"node_id": machine.node_id, "reason": "seen"})
    await world.node_is(machine.node_id, "ready")


async def test_without_scripts_all_can_be_read_and_sent(world: World, machine: Machine, browser: Browser) -> None:
    context = await browser.new_context(base_url=world.endpoints["http_url"], java_script_enabled=False)
    page = await context.new_page()
    await log_in(page, world.endpoints["operator_token"])
    await page.goto(f"/nodes/{machine.node_id}")
    form = page.locator("form", has=page.locator("input[name=subject][value='ops.node.drain']"))
    await page.locator("details", has=form).locator("summary").click()
    await form.locator("input[name='field.reason']").fill("no scripts here")
    await form.get_by_role("button").click()
    await page.get_by_role("button", name="Do it").click()
    await expect(page.locator("main")).to_contain_text("no scripts here")
    assert (await world.node(machine.node_id))["state"] == "draining"
    await context.close()
    await world.ok("ops.node.undrain", {"node_id": machine.node_id, "reason": "seen"})
    await world.node_is(machine.node_id, "ready")
