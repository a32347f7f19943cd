"""What a planted bug is: a text of one file, what stands in its place, and the check that must see it by name.

A text that is not found exactly once is an error: whoever edits near it mends the bug with it. Nothing of the product
is imported here, since the one who plants must be there before it.
"""

from pathlib import Path
from typing import Final

from msgspec import Struct

ROOT: Final = Path(__file__).parents[2]
ALL_MODES: Final = ("before", "lost", "after")


class Sweep(Struct, frozen=True):
    """The story of a matrix row, told without a crash and then with one at each point; `at`: only at those points.

    `finds`: the name under which it shows there, where that is another one than the invariant's that is broken first.
    """

    row: str
    modes: tuple[str, ...] = ALL_MODES
    at: str = ""
    finds: str = ""

    @property
    def command(self) -> str:
        """The sound one, which must hold."""
        return f"amends prove {self.row}"


class Test(Struct, frozen=True):
    """One test; it must fail by what it asserts."""

    node: str

    @property
    def command(self) -> str:
        """The sound one, which must pass."""
        return f"./run test {self.node}"


class Bug(Struct, frozen=True):
    """`invariant`: its name in `docs/reliability.md`; a sweep must find it under a name."""

    name: str
    invariant: str
    file: str
    old: str
    new: str
    check: Sweep | Test

    def planted(self) -> str:
        """The file's text with the bug; raises `ValueError` where its place is not there, or there twice."""
        text = (ROOT / self.file).read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: its old text stands {count} times in {self.file}, and must stand once")
        return text.replace(self.old, self.new)

    @property
    def expected(self) -> str:
        """By what name it must be caught."""
        if isinstance(self.check, Sweep):
            return self.check.finds or self.invariant
        return self.check.node.rpartition("::")[2].partition("[")[0]
