"""The garbage collector of a process that has loaded much, and keeps it."""

import gc


def spare_collector() -> None:
    """Let no full garbage collection go through what is loaded and lasts: it held the loop up for a tenth of a second.

    What of it is dropped later goes by its reference count, as before; only cycles among it would stay.
    """
    gc.collect()
    gc.freeze()
