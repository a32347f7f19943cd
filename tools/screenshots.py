"""Pictures of every page of the console, light and dark, wide and on a phone, of a demo that is kept running.

    ./run demo --keep                                   # prints a link that logs in once
    .venv/bin/python -m tools.screenshots 'LINK'        # writes docs/console/*.webp and docs/console/README.md

Needs Chromium. One picture per page: above in light, below in dark. A page that cannot be reached ends it.
"""

import asyncio
import base64
import shutil
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

OUT: Final = Path(__file__).parents[1] / "docs" / "console"
WIDE, PHONE = (1280, 900), (412, 900)
SCALE: Final = 0.75  # of what is pasted up
QUALITY: Final = 72
# name → (address, what is followed from there: the first link to such a page in a line with that text), what it shows
PAGES: Final = {
    "now": ("/", "", "", "what is open or wrong, and the last hour"),
    "cases": ("/cases?state=resolved", "", "", "cases of a state"),
    "case": ("/cases?state=resolved", "/cases/", "", "one case: evidence, runbook, and while it is open its commands"),
    "runs": ("/runs", "", "", "recovery runs"),
    "run": ("/runs", "/runs/", "R02", "a run as a waterfall: failures, actions and compensations in their order"),
    "fleet": ("/fleet", "", "", "every node by site and state"),
    "node": ("/fleet", "/nodes/", "", "a node: what can be done, its story, its audit"),
    "allocations": ("/allocations", "", "", "rentals"),
    "allocation": ("/allocations", "/allocations/", "failed", "a rental: the story, the money, the traces"),
    "attachments": ("/attachments", "", "", "storage that is or was attached"),
    "attachment": ("/attachments", "/attachments/", "", "one of them"),
    "accounts": ("/accounts", "", "", "accounts"),
    "account": ("/accounts", "/accounts/", "", "one of them: its statement"),
    "matrix": ("/matrix", "", "", "the fourteen rows with runs and outcomes"),
    "audit": ("/audit?verify=yes", "", "", "the log, and the chain checked on demand"),
    "system": ("/system", "", "", "the supervision tree, and every figure"),
}  # fmt: skip


async def main(link: str) -> None:
    """All of them."""
    OUT.mkdir(exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("needs Chromium (Debian: apt install chromium)")
    parts = urlsplit(link)
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = await browser.new_context(base_url=f"{parts.scheme}://{parts.netloc}")
        page = await context.new_page()
        await page.goto(f"{parts.path}?{parts.query}")
        pictures = {"login": await _four(page)}
        await page.get_by_role("button").click()
        for name, (start, leads_to, beside, _) in PAGES.items():
            await page.goto(start)
            if leads_to:
                await _follow(page, leads_to, beside)
            pictures[name] = await _four(page)
            print(f"{name}: {urlsplit(page.url).path}")
        pictures["sure"] = await _sure(page)
        pictures["whatif"] = await _lost(page)
        for name, four in pictures.items():
            (OUT / f"{name}.webp").write_bytes(await _pasted(browser, four))
        await browser.close()
    _written()


async def _follow(page: Page, leads_to: str, beside: str) -> None:
    lines = page.locator("tbody tr, ul.grid li").filter(has=page.locator(f"a[href^='{leads_to}']"))
    line = lines.filter(has_text=beside).first if beside else lines.first
    where = await line.locator(f"a[href^='{leads_to}']").first.get_attribute("href")
    assert where
    await page.goto(where)


async def _sure(page: Page) -> list[bytes]:
    """What is asked before something is done, and then it is left."""
    await page.goto("/fleet")
    await _follow(page, "/nodes/", "ready")
    form = page.locator("form", has=page.locator("input[name=subject][value='ops.node.drain']"))
    await page.locator("details", has=form).locator("summary").click()
    await form.locator("input[name='field.reason']").fill("a new disk")
    await form.get_by_role("button", name="Look at it once more").click()
    return await _four(page)


async def _lost(page: Page) -> list[bytes]:
    """What the loss of a node would do."""
    await page.goto("/fleet")
    await _follow(page, "/nodes/", "")
    await page.locator("a[href^='/lost/']").first.click()
    return await _four(page)


async def _four(page: Page) -> list[bytes]:
    found = []
    for scheme in ("light", "dark"):
        for width, height in (WIDE, PHONE):
            await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            await page.set_viewport_size({"width": width, "height": height})
            found.append(await page.screenshot())
    return found


async def _pasted(browser: Browser, four: list[bytes]) -> bytes:
    """Side by side, as WebP."""
    width = int((WIDE[0] + PHONE[0]) * SCALE) + 36
    context: BrowserContext = await browser.new_context(viewport={"width": width, "height": int(1800 * SCALE) + 36})
    page = await context.new_page()
    shown = "".join(
        f"<img height={int(900 * SCALE)} src='data:image/png;base64,{base64.b64encode(each).decode()}'>"
        for each in four
    )
    await page.set_content(f"<body style='margin:12px;background:#808488;display:flex;flex-wrap:wrap;gap:12px'>{shown}")
    session = await context.new_cdp_session(page)
    taken = await session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    await context.close()
    return base64.b64decode(taken["data"])


def _written() -> None:
    told = {"login": "before anything else"} | {name: text for name, (_, _, _, text) in PAGES.items()}
    told["sure"] = "a command is shown once more before it is sent"
    told["whatif"] = "what the loss of a node would undo, credit and tell"
    lines = [
        "# The console in pictures",
        "",
        "Of a demo that was kept running (`./run demo --keep`), by `python -m tools.screenshots LINK`; each",
        "page in light and dark, wide and on a phone.",
    ]
    for name, text in told.items():
        lines += ["", f"## {name.capitalize()}: {text}", "", f"![{name}: {text}]({name}.webp)"]
    (OUT / "README.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
