"""The garbage collector of a process that has loaded much, and keeps it."""

import gc
from typing import Final

# Objects more than before until the youngest are gone through, then how many such passes until the next older ones are:
# a turn makes hundreds that go by their reference counts. Python's own (700, 10, 10) took 7 % of a busy runtime's time.
THRESHOLDS: Final = (10_000, 10, 50)


def spare_collector() -> None:
    """Let no full garbage collection go through what is loaded and lasts: it held the loop up for a tenth of a second.

    What of it is dropped later goes by its reference count, as before; only cycles among it would stay.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
