"""How the demo speaks: scenes, ticks with times, a board. Colour on a terminal that wants it, plain text anywhere else.

No line is longer than the terminal, or than 80 characters where there is none.
"""

import asyncio
import os
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence

NARROWEST = 12  # of a column
PAUSE_S = 0.4  # between two lines, for an audience
_CODES = {"green": "32", "red": "31", "dim": "2", "bold": "1", "yellow": "33"}


class Teller:
    """Prints as things happen. `slow` pauses between lines for an audience."""

    def __init__(self, *, slow: bool = False) -> None:
        on_terminal = sys.stdout is not None and sys.stdout.isatty()
        self._colour = on_terminal and not os.environ.get("NO_COLOR")  # no-color.org
        self._width = max(40, shutil.get_terminal_size((80, 24)).columns)
        self._slow = slow
        self._began = time.monotonic()

    async def scene(self, title: str) -> None:
        """Begin a scene."""
        await self._line("")
        await self._line(self._paint(f"── {title} ", "bold") + "─" * max(3, min(self._width, 80) - 4 - len(title)))

    async def tick(self, text: str, ms: float | None = None, *, good: bool = True) -> None:
        """One thing that has happened, with its time."""
        mark = self._paint("✓", "green") if good else self._paint("✗", "red")
        took = f"  {ms:,.0f}\xa0ms" if ms is not None else ""
        first, *rest = self._wrapped(text + took, 4)
        if took and not rest:
            first = first.removesuffix(took) + self._paint(took, "dim")
        await self._line(f"  {mark} {first}".replace("\xa0", " "))
        for line in rest:
            await self._line(f"    {line}".replace("\xa0", " "))

    async def say(self, text: str) -> None:
        """A plain line, or as many as it takes."""
        for line in self._wrapped(text, 4):
            await self._line(f"    {line}".rstrip())

    async def command(self, text: str) -> None:
        """A command a person would type; broken so that it can still be copied."""
        words = " ".join(shlex.quote(word).replace(" ", "\0") for word in shlex.split(text))  # no break in quotes
        wrapped = textwrap.wrap(words, self._width - 12, break_long_words=False, break_on_hyphens=False)
        first, *rest = [line.replace("\0", " ") for line in wrapped]
        lines = [f"$ {first}", *(f"      {line}" for line in rest)]
        for number, line in enumerate(lines, 1):
            await self._line("    " + self._paint(line + (" \\" if number < len(lines) else ""), "yellow"))

    async def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns as wide as they need."""
        widths = [max(len(str(row[place])) for row in (head, *rows)) for place in range(len(head))]
        while sum(widths) + 2 * len(widths) > self._width and max(widths) > NARROWEST:
            widths[widths.index(max(widths))] -= 1
        for number, row in enumerate((head, *rows)):
            cells = [textwrap.wrap(str(cell), width) or [""] for cell, width in zip(row, widths, strict=True)]
            for place in range(max(map(len, cells))):
                parts = [cell[place] if place < len(cell) else "" for cell in cells]
                text = "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()
                await self._line("  " + (self._paint(text, "bold") if number == 0 else text))

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began

    def _wrapped(self, text: str, indent: int) -> list[str]:
        return textwrap.wrap(text, self._width - indent, break_long_words=False, break_on_hyphens=False) or [""]

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self._colour else text

    async def _line(self, text: str) -> None:
        print(text, flush=True)
        if self._slow and text:
            await asyncio.sleep(PAUSE_S)
