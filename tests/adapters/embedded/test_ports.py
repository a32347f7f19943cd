"""A port that somebody has chosen is nobody else's while its server is down."""

import subprocess
import sys

from adapters.embedded import ports
from adapters.embedded.ports import HELD, free_port, hold

CHOOSE = "from adapters.embedded import ports; ports.stable_range = lambda: range({0}, {0} + 1); ports.free_port()"


def test_a_port_that_one_process_has_chosen_no_other_one_chooses() -> None:
    chosen = subprocess.run(
        [sys.executable, "-c", CHOOSE.format(free_port())], capture_output=True, text=True, check=False
    )
    assert "no free port" in chosen.stderr


def test_only_the_last_ones_are_held() -> None:
    first = free_port()
    for _ in range(HELD):
        free_port()
    assert len(ports._held) == HELD
    assert hold(first)
