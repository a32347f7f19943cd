"""How the demo speaks: scenes, ticks with times, a board. Colour on a terminal, plain text anywhere else."""

import sys
import time
from collections.abc import Sequence

_CODES = {"green": "32", "red": "31", "dim": "2", "bold": "1", "yellow": "33"}


class Teller:
    """Prints as things happen. `slow` pauses between lines for an audience."""

    def __init__(self, *, slow: bool = False) -> None:
        self._colour = sys.stdout.isatty()
        self._slow = slow
        self._began = time.monotonic()

    def scene(self, title: str) -> None:
        """Begin a scene."""
        self._line("")
        self._line(self._paint(f"── {title} ", "bold") + "─" * max(3, 76 - len(title)))

    def tick(self, text: str, ms: float | None = None, *, good: bool = True) -> None:
        """One thing that has happened, with its time."""
        mark = self._paint("✓", "green") if good else self._paint("✗", "red")
        took = self._paint(f"  {ms:,.0f} ms", "dim") if ms is not None else ""
        self._line(f"  {mark} {text}{took}")

    def say(self, text: str) -> None:
        """A plain line."""
        self._line(f"    {text}")

    def command(self, text: str) -> None:
        """A command a person would type."""
        self._line(f"    {self._paint('$ ' + text, 'yellow')}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns as wide as they need."""
        widths = [max(len(str(row[place])) for row in (head, *rows)) for place in range(len(head))]
        for number, row in enumerate((head, *rows)):
            text = "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            self._line("  " + (self._paint(text, "bold") if number == 0 else text))

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self._colour else text

    def _line(self, text: str) -> None:
        print(text, flush=True)
        if self._slow and text:
            # --slow, for an audience: only the demo's own process stands still, runtime and machines are others.
            time.sleep(0.4)
