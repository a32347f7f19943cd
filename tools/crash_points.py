"""The part of docs/reliability.md that the crash sweep writes: points of each built row's story, by kind."""

import re
from collections import Counter
from pathlib import Path
from typing import Final

from supervisors.simulation.points import MODES, Point, Points
from supervisors.simulation.stories import STORIES
from supervisors.simulation.world import World

PAGE: Final = Path(__file__).parents[1] / "docs" / "reliability.md"
BLOCK: Final = re.compile(r"(<!-- generated: crash-points -->\n).*?(<!-- /generated -->)", re.DOTALL)
KINDS: Final = {"read": "reads", "commit": "commits", "document": "commits", "lease": "commits", "publish": "publishes"}


def points_of(number: int) -> list[Point]:
    """All points of the `number`-th story, told without a crash."""
    world, points = World(1, **STORIES[number].limits), Points()
    STORIES[number].breaks(world)
    assert world.run(STORIES[number].tell, points)
    return points.seen


def table() -> list[str]:
    """The lines of the table."""
    lines = ["| row | reads | commits | publishes | steps | points | crashes |", "|---|---|---|---|---|---|---|"]
    for number, story in enumerate(STORIES):
        points = points_of(number)
        kinds = Counter(KINDS.get(point.what.partition(" ")[0], "steps") for point in points)
        counts = [kinds[kind] for kind in ("reads", "commits", "publishes", "steps")]
        cells = [story.row, *map(str, counts), str(len(points)), str(len(points) * len(MODES))]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def page() -> str:
    """The page as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    return BLOCK.sub(lambda found: found[1] + "\n".join(table()) + "\n" + found[2], text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.name} written")
