"""`./run campaign ci`: the layers of proof that are too long for the tests and short enough for every change.

Every schedule of every race with two deviations; random worlds of fresh seeds, each kind of fault met fifty times, one
of them lived twice; hostile input of every kind, and commands in any order; a soak beside them. The seeds are the
commit's: the same commit has the same ones anywhere. `--report` writes what it came to, with the figures of the last
`./run test`, into docs/reliability.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from benchmarks.flat import quantile
from supervisors.simulation.fault_kinds import BY_NAME
from supervisors.simulation.rivals import RACES
from tools.campaign import live, lived
from tools.ledger import quiet
from tools.planted.all import checked, number, part
from tools.races import all_of, joined
from tools.version import commit

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "reliability.md"
BLOCK: Final = re.compile(r"(<!-- figures -->\n).*?(<!-- /figures -->)", re.DOTALL)
STATE: Final = ROOT / ".proof"
TESTS: Final = STATE / "tests.json"
SEEDS: Final = 20
HOURS: Final = 3.0
NODES: Final = 10
DEVIATIONS: Final = 2
FLOOR: Final = 50  # of each kind of fault
EXAMPLES: Final = "examples by hypothesis"  # as `tests/proof.py` calls them
HOSTILE: Final = 20_000  # of those, at least
MINUTES, SOAKED = 3, 200  # minutes and nodes of a soak
Figure = tuple[str, str, str]  # what was tried, how much, the command that repeats it
Layer = Callable[[int, int], tuple[list[Figure], list[str]]]  # of a number and so many workers: figures, what is broken


def races(of: int, workers: int) -> tuple[list[Figure], list[str]]:
    """Every schedule with up to two deviations."""
    lines = all_of([race.name for race in RACES], DEVIATIONS, workers, STATE / "races.jsonl")
    if lines is None:
        raise KeyboardInterrupt
    found = joined(lines)
    broken = [f"{each.race} {list(broken.schedule)}: {broken.what}; ./run campaign races --race '{each.race}' "
              f"--schedule '{','.join(map(str, broken.schedule))}'"
              for each in found for broken in each.broken]  # fmt: skip
    runs = sum(each.runs for each in found)
    said = (f"schedules of {len(found)} races, {DEVIATIONS} deviations", str(runs),
            f"`./run campaign races --deviations {DEVIATIONS}`")  # fmt: skip
    return [said], broken


def worlds(of: int, workers: int) -> tuple[list[Figure], list[str]]:
    """Fresh seeds; the first of them twice."""
    first = of % 1_000_000 * SEEDS + 1
    lines = lived(range(first, first + SEEDS), HOURS, NODES, workers, STATE)
    if lines is None:
        raise KeyboardInterrupt
    again = f"amends simulate --hours {HOURS:g} --nodes {NODES} --replay"
    broken = [f"seed {line['seed']}: {each['name']} {each['ref']}: {each['what']}; {again} {line['seed']}"
              for line in lines for each in line["violations"]]  # fmt: skip
    quiet()
    if live(first, HOURS, NODES)["digest"] != lines[0]["digest"]:
        broken.append(f"seed {first}: lived twice, it came to two digests")
    faults = Counter[str]()
    for line in lines:
        faults.update(line["faults"])
    broken += [f"{name}: fired {faults[name]} times, and should {FLOOR}" for name in BY_NAME if faults[name] < FLOOR]
    hours, seconds = (sum(line[name] for line in lines) for name in ("hours", "seconds"))
    repeat = f"`./run campaign ci --number {of}`"
    rare = min(BY_NAME, key=lambda name: faults[name])
    return [
        ("simulated hours of random worlds", f"{hours:.0f}; {hours / seconds:.2f} a second of a core", repeat),
        (f"faults of {len(BY_NAME)} kinds", f"{sum(faults.values())}; the rarest, `{rare}`, {faults[rare]}", repeat),
        ("crashes of the runtime in them", str(sum(line["crashes"] for line in lines)), repeat),
        ("customers in them", str(sum(line["customers"] for line in lines)), repeat),
        ("seeds lived twice, to the same digest", "1", repeat),
    ], broken  # fmt: skip


def planted(of: int, workers: int) -> tuple[list[Figure], list[str]]:
    """Eight or nine bugs, each caught by name."""
    results = list(checked(part(of)))
    caught = sum(each.caught for each in results)
    said = ("planted bugs caught by name", f"{caught} of {len(results)}", f"`./run campaign planted --number {of}`")
    return [said], [f"planted: {each.said}; ./run campaign planted {each.bug.name}" for each in results
                    if not each.caught]  # fmt: skip


def hostile(of: int, workers: int) -> tuple[list[Figure], list[str]]:
    """Every property of `tests/hostile` with the profile `proof`: decoders, headers, files, forms."""
    file = STATE / "hostile.json"
    file.unlink(missing_ok=True)
    again = ["-m", "pytest", "tests/hostile", "--deselect", "tests/hostile/test_any_order.py",
             "--hypothesis-profile=proof", f"--hypothesis-seed={of}"]  # fmt: skip
    ran = subprocess.run(
        [sys.executable, *again, "-q", "-n", str(workers), f"--figures={file}"], cwd=ROOT, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    repeat = f"./run test {' '.join(again[2:])}"
    found = json.loads(file.read_text(encoding="utf-8")).get(EXAMPLES, 0) if file.exists() else 0
    broken = [f"hostile: {line}; {repeat}" for line in ran.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if ran.returncode and not broken:
        broken.append(f"hostile: pytest ended with {ran.returncode}: {ran.stdout[-500:]}; {repeat}")
    if found < HOSTILE:
        broken.append(f"hostile: {found} examples, and should be {HOSTILE}; {repeat}")
    return [("hostile examples by hypothesis", str(found), f"`{repeat}`")], broken


def soak(of: int, workers: int) -> tuple[list[Figure], list[str]]:
    """A runtime under load for three minutes, its servers and itself killed."""
    again = ["-m", "benchmarks.soak", "--minutes", str(MINUTES), "--nodes", str(SOAKED)]
    ran = subprocess.run([sys.executable, *again, "--json"], cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE)
    repeat = f"./run campaign soak {' '.join(again[2:])}"
    if not ran.stdout:
        return [], [f"soak: it ended with {ran.returncode}; {repeat}"]
    found = json.loads(ran.stdout)
    figures: list[Figure] = [("rentals under a soak", str(found["rentals"]), f"`{repeat}`")]
    for what, name in (("first step", "first_s"), ("all converged", "all_s")):
        values = found[name]
        said = f"p50 {quantile(values, 0.5):.1f} s, p99 {quantile(values, 0.99):.1f} s, n {len(values)}"
        figures.append((f"{what} after a kill of the runtime under it", said, f"`{repeat}`"))
    return figures, [f"soak: {each}; {repeat}" for each in found["broken"]]


LAYERS: Final[dict[str, Layer]] = {
    "soak": soak, "planted": planted, "races": races, "worlds": worlds, "hostile": hostile,
}  # fmt: skip
BESIDE: Final = ("soak",)  # mostly waits, so the others go on meanwhile


def tested() -> list[Figure]:
    """Figures of the last run of the tests."""
    if not TESTS.exists():
        return []
    return [(name, str(count), "`./run test`") for name, count in json.loads(TESTS.read_text(encoding="utf-8")).items()]


def table(figures: Sequence[Figure], seconds: float) -> str:
    """As Markdown."""
    lines = [f"At commit {commit()[:12]}; `./run campaign ci` took {seconds:.0f} s.", ""]
    lines += ["| what was tried | how much | again |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {what} | {count} | {repeat} |" for what, count, repeat in figures)])


def main(arguments: Sequence[str]) -> int:
    """0 if nothing is broken."""
    parser = argparse.ArgumentParser(prog="./run campaign ci", description="the longer layers of proof")
    parser.add_argument("--number", type=int, help="the number that seeds come from; without it the commit's")
    parser.add_argument("--layer", choices=tuple(LAYERS), action="append", help="only these")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes side by side")
    parser.add_argument("--report", action="store_true", help="write the figures into docs/reliability.md")
    o = parser.parse_args(arguments)
    of, began = number() if o.number is None else o.number, time.monotonic()
    for name in ("ledger.jsonl", "races.jsonl"):
        (STATE / name).unlink(missing_ok=True)
    figures, broken = tested(), list[str]()
    with ThreadPoolExecutor() as others:
        wanted = o.layer or tuple(LAYERS)
        beside = [others.submit(LAYERS[name], of, o.workers) for name in wanted if name in BESIDE]
        for name in wanted:
            if name not in BESIDE:
                print(f"ci: {name}", file=sys.stderr, flush=True)
                more, wrong = LAYERS[name](of, o.workers)
                figures += more
                broken += wrong
        for ended in beside:
            more, wrong = ended.result()
            figures += more
            broken += wrong
    print(table(figures, time.monotonic() - began))
    for each in broken:
        print(f"BROKEN {each}")
    if o.report:
        text = PAGE.read_text(encoding="utf-8")
        said = table(figures, time.monotonic() - began)
        PAGE.write_text(BLOCK.sub(lambda block: f"{block[1]}{said}\n{block[2]}", text), encoding="utf-8")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
