"""A real browser: Chromium without a screen, driven by Playwright; what goes wrong in a page is remembered."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, ConsoleMessage, Dialog, Page, Request, async_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "needs Chromium (Debian: apt install chromium); the same pages are read without a browser in test_console.py"
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
# Text whose contrast to what is behind it is below what WCAG 2.2 AA asks for: 4.5, of large text 3.
PALE = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(each => each / 255)
    .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = rgba(getComputedStyle(each).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return rgba(getComputedStyle(document.documentElement).colorScheme.includes("dark") &&
      matchMedia("(prefers-color-scheme: dark)").matches ? "black" : "white");
  };
  const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement, style = getComputedStyle(element);
    if (!walk.currentNode.data.trim() || !element.checkVisibility() || element.closest("[disabled], .skip")) continue;
    if (style.clipPath !== "none") continue; // for readers of screens alone
    const [high, low] = [light(rgba(style.color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const said = walk.currentNode.data.trim().slice(0, 40);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${element.tagName} ${said}`);
  }
  return [...new Set(found)];
}"""
UNNAMED = """() => [...document.querySelectorAll("input:not([type=hidden]), button, a, select, textarea")]
  .filter(each => !(each.labels?.length || each.textContent.trim() || each.getAttribute("aria-label")))
  .map(each => each.outerHTML)"""


class Looked:
    """What one page said of itself while it was looked at."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(f"an error in a script: {error}"))
        page.on("console", self._console)
        page.on("dialog", self._dialog)
        page.on("requestfailed", self._failed)

    def _console(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self.wrong.append(f"{said.text} {said.location.get('url')}")

    def _failed(self, request: Request) -> None:
        left = request.failure == "net::ERR_ABORTED" and request.url.endswith("/icon.svg")  # a page was left before it
        if "/live?" not in request.url and not left:  # the stream ends with the page
            self.wrong.append(f"not loaded: {request.url} {request.failure}")

    async def _dialog(self, dialog: Dialog) -> None:
        self.wrong.append(f"a dialog: {dialog.message}")
        await dialog.dismiss()

    async def faults(self) -> list[str]:
        """What a person would find wrong with it, in light and dark, wide and on a phone."""
        found = [f"without a name: {each}" for each in await self.page.evaluate(UNNAMED)]
        for scheme in ("dark", "light"):
            await self.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            found += [f"pale in {scheme}: {each}" for each in await self.page.evaluate(PALE)]
        for size in (PHONE, WIDE):
            await self.page.set_viewport_size({"width": size["width"], "height": size["height"]})
            wide = await self.page.evaluate("document.documentElement.scrollWidth")
            if wide > size["width"]:
                found.append(f"{wide} pixels wide on {size['width']}")
        return found


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """One, ended afterwards."""
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()
