"""Long work in parts, side by side, that goes on where it was stopped: a line of JSON for each part that has ended."""

import json
import logging
import sys
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from supervisors.boot.collector import spare_collector

Line = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)


def quiet() -> None:
    """What a worker does first: nothing is logged, and the collector of garbage is a runtime's."""
    logging.disable(logging.CRITICAL)
    spare_collector()


def lines_of(file: Path, key_of: Callable[[Line], Key | None]) -> dict[Key, Line]:
    """What has ended, by its key (None: it is of other work); a last line that was cut off by a kill is passed over."""
    found: dict[Key, Line] = {}
    if not file.exists():
        return found
    whole = file.read_text(encoding="utf-8")
    if whole and not whole.endswith("\n"):
        file.write_text(whole + "\n", encoding="utf-8")
    for text in whole.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if (key := key_of(line)) is not None:
            found[key] = line
    return found


def gone_through(
    wanted: Sequence[Key], file: Path, key_of: Callable[[Line], Key | None], do: Callable[[Key], Line], workers: int,
    said: Callable[[Line], str],
) -> list[Line] | None:  # fmt: skip
    """A line for each part that is wanted, of the file or done now; None if it was interrupted."""
    file.parent.mkdir(parents=True, exist_ok=True)
    done = lines_of(file, key_of)
    left = [key for key in wanted if key not in done]
    print(f"{len(wanted) - len(left)} parts are in {file}, {len(left)} are left", file=sys.stderr)
    with ProcessPoolExecutor(workers, initializer=quiet) as pool, file.open("a", encoding="utf-8") as ledger:
        try:
            keys = {pool.submit(do, key): key for key in left}
            for number, ended in enumerate(as_completed(keys), 1):
                line = done[keys[ended]] = ended.result()
                ledger.write(json.dumps(line) + "\n")
                ledger.flush()
                print(f"{said(line)}; {number} of {len(left)}", file=sys.stderr)
        except KeyboardInterrupt:  # what has ended is kept; the next one goes on from there
            pool.shutdown(wait=False, cancel_futures=True)
            return None
    return [done[key] for key in wanted]
