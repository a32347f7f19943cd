"""The verbs `amends simulate` and `amends prove`: what was typed, checked by name, and what comes of it.

Exit status: 0 nothing is broken, 1 something is. Wrong options raise `BadConfiguration`.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from amends.ports.journal import Commit
from amends.values.errors import BadConfiguration
from supervisors.policy_file import load as load_policy
from supervisors.settings import load
from supervisors.simulation import prove, report
from supervisors.simulation.fault_kinds import BY_NAME
from supervisors.simulation.points import MODES
from supervisors.simulation.random_world import Found, RandomWorld, Wish
from supervisors.simulation.stories import STORIES, Story
from supervisors.simulation.world import Terms

DONE: Final = 0
BROKEN: Final = 1
MOST_HOURS: Final = 160  # kept replies are forgotten after a week, and customers ask with the same keys
MOST_NODES: Final = 1000
Environ = Mapping[str, str]
WriteTraces = Callable[[Sequence[Commit], Path], int]  # Jaeger's JSON of what was committed; how many traces


def terms_of(config: Path | None, policy: str | Path | None, environ: Environ) -> tuple[Terms, int]:
    """Somebody's own policy and timing, and the policy's unit in microseconds. Raises `BadConfiguration`."""
    if config is not None and not Path(config).is_file():
        raise BadConfiguration(f"--config {config}: there is no such file")
    if policy is not None and not Path(policy).is_file():
        raise BadConfiguration(f"--policy {policy}: there is no such file")
    settings = load(config, environ)
    read, text = load_policy(policy or settings.policy_file)
    timing = settings.limits()
    beat_ms = timing["heartbeat_interval_ms"]
    assert isinstance(beat_ms, int)
    return Terms(text.decode(), timing, beat_ms / 1000), read.time.unit_us


def kinds_of(said: str) -> tuple[str, ...]:
    """Kinds of faults by name, in their own order; `all`, `none`. Raises `BadConfiguration`."""
    if said in ("all", "none"):
        return tuple(BY_NAME) if said == "all" else ()
    names = [name.strip() for name in said.split(",") if name.strip()]
    unknown = [name for name in names if name not in BY_NAME]
    if unknown or not names:
        what = ", ".join(unknown) or "nothing"
        raise BadConfiguration(f"--faults: {what} is no kind of fault; there are all, none, {', '.join(BY_NAME)}")
    return tuple(name for name in BY_NAME if name in names)


def wish_of(o: argparse.Namespace, environ: Environ) -> Wish:
    """What was typed after `simulate`. Raises `BadConfiguration`."""
    try:
        hours = float(o.hours)
    except ValueError:
        raise BadConfiguration(f"--hours: a number of hours, not {o.hours!r}") from None
    if not 0 < hours <= MOST_HOURS:
        raise BadConfiguration(f"--hours: above 0 and at most {MOST_HOURS}, not {o.hours}")
    if not 1 <= o.nodes <= MOST_NODES:
        raise BadConfiguration(f"--nodes: from 1 to {MOST_NODES}, not {o.nodes}")
    terms, _ = terms_of(o.config, o.policy, environ)
    seed = o.seed if o.replay is None else o.replay
    if o.trace is not None:
        _check_writable(o.trace)
    return Wish(seed=seed, hours=hours, nodes=o.nodes, terms=terms, kinds=kinds_of(o.faults),
                records=o.trace is not None)  # fmt: skip


def simulate(o: argparse.Namespace, environ: Environ = os.environ, write: WriteTraces | None = None) -> int:
    """`amends simulate`; exit status. `write` writes traces, where a file is asked for."""
    wish = wish_of(o, environ)
    if o.replay is not None:
        return _replay(wish, o.trace, write)
    found = _run(wish)
    _traced(found, o.trace, write)
    said = report.summary(found)
    print(json.dumps(said, indent=2) if o.json else report.page(said))
    return BROKEN if found.violations else DONE


def _traced(found: Found, file: Path | None, write: WriteTraces | None) -> None:
    """Write the traces where they are wanted, and say so."""
    if file is not None and write is not None:
        print(f"writing the spans of {len(found.commits)} commits", file=sys.stderr)
        print(f"{write(found.commits, file)} traces in {file}: open it in Jaeger's UI (upload)", file=sys.stderr)


def _check_writable(file: Path) -> None:
    """Raise `BadConfiguration` before anything has been simulated in vain."""
    was_there = file.exists()
    try:
        file.open("ab").close()
    except OSError as error:
        raise BadConfiguration(f"--trace {file}: {error.strerror}") from None
    if not was_there:
        file.unlink()


def _replay(wish: Wish, trace: Path | None, write: WriteTraces | None) -> int:
    """The events of that seed up to what does not hold; the last sound moment is found first, then all is watched."""
    found = _run(wish)
    if found.violations:
        again = msgspec.structs.replace(wish, keeps=True, watch_from_s=found.sound_s)
        found = _run(again)
    else:
        found = _run(msgspec.structs.replace(wish, keeps=True))
    for event in found.happened:
        print(event)
    _traced(found, trace, write)
    for each in found.violations:
        print(f"BROKEN   {each.name} {each.ref}: {each.what}")
    return BROKEN if found.violations else DONE


def _run(wish: Wish) -> Found:
    logging.disable(logging.CRITICAL)  # what the runtime says of its faults is not what was asked for
    last = -1

    def progress(now_s: float) -> None:
        nonlocal last
        tenths = int(now_s / 360)
        if tenths != last and sys.stderr.isatty():
            last = tenths
            print(f"\r{tenths / 10:.1f} of {wish.hours:g} simulated hours ", end="", file=sys.stderr, flush=True)

    try:
        return RandomWorld(wish, progress).run()
    finally:
        logging.disable(logging.NOTSET)
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


# --- prove -------------------------------------------------------------------------------------------


def prove_rows(o: argparse.Namespace, environ: Environ = os.environ, workers: int | None = None) -> int:
    """`amends prove`; exit status. `workers`: as many processes, one for each core if it is not said."""
    row = (o.row or "").upper()
    stories = prove.stories_of(row)
    if not stories:
        raise BadConfiguration(f"ROW: {o.row!r} is no row that is built; there are {', '.join(s.row for s in STORIES)}")
    terms, unit_us = terms_of(o.config, o.policy, environ)
    terms = prove.with_windows(terms, unit_us)
    proofs = []
    for proof in _proofs(stories, terms, workers or os.cpu_count() or 1):
        proofs.append(proof)
        if not o.json:
            print(*prove.page(proof, points=bool(row)), sep="\n", flush=True)
    if o.json:
        print(json.dumps(prove.summary(proofs), indent=2))
    return DONE if all(proof.holds for proof in proofs) else BROKEN


def _proofs(stories: list[Story], terms: Terms, workers: int) -> Iterator[prove.Proof]:
    """Each row's, in their order; the ways to die are proved side by side."""
    work = [(STORIES.index(story), terms, mode) for story in stories for mode in MODES]
    parts: Iterator[prove.Proof]
    if workers == 1:
        parts = map(_part, work)
        yield from _joined(parts, len(stories))
        return
    with ProcessPoolExecutor(min(workers, len(work)), initializer=_quiet) as pool:
        yield from _joined(pool.map(_part, work), len(stories))


def _joined(parts: Iterator[prove.Proof], count: int) -> Iterator[prove.Proof]:
    for _ in range(count):
        own = [next(parts) for _ in MODES]
        crashes = [crash for part in own for crash in part.crashes]
        yield msgspec.structs.replace(own[0], crashes=crashes)


def _quiet() -> None:
    logging.disable(logging.CRITICAL)


def _part(work: tuple[int, Terms, str]) -> prove.Proof:
    number, terms, mode = work
    was = logging.root.manager.disable
    _quiet()
    try:
        return prove.prove(STORIES[number], terms, (mode,))
    finally:
        logging.disable(was)
