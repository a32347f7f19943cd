"""`amends simulate`: random worlds hold, a seed is one run, every kind of fault is met, and a planted bug is found."""

import argparse
import json
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.allocation import billing
from actors.money.metering import Window
from actors.tables import LedgerRow
from amends.runtime.writer import JournalWriter, Pending
from amends.turn.decision import Decision
from amends.values.errors import BadConfiguration
from supervisors.policy_file import BUILT_IN
from supervisors.simulation import program
from supervisors.simulation.fault_kinds import BY_NAME
from supervisors.simulation.random_world import Found, RandomWorld, Wish
from supervisors.simulation.world import Terms
from supervisors.timing import timing

SEEDS = range(1, 5)
HOURS = 0.02
CONSOLE = Path(sys.executable).with_name("amends")


def quick() -> Terms:
    """The built-in policy with windows of ten seconds, and the timing of the profile `acceptance`."""
    text = BUILT_IN.read_text(encoding="utf-8").replace("window_us = 3_600_000_000", "window_us = 10_000_000")
    return Terms(text, timing("acceptance", {}))


def wish(seed: int, **more: Any) -> Wish:
    usual = {"hours": HOURS, "nodes": 5, "terms": quick(), "kinds": tuple(BY_NAME)}
    return Wish(seed=seed, **{**usual, **more})


@cache
def lived(seed: int) -> Found:
    return RandomWorld(wish(seed)).run()


def typed(**more: Any) -> argparse.Namespace:
    usual = {"seed": 1, "hours": "0.02", "nodes": 4, "policy": None, "config": None, "faults": "all", "replay": None,
             "json": False, "trace": None}  # fmt: skip
    return argparse.Namespace(**{**usual, **more})


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_broken_in_a_random_world(seed: int) -> None:
    found = lived(seed)
    assert found.violations == []
    assert found.simulated_s >= HOURS * 3600
    assert found.rests >= 2
    assert found.customers > 5


def test_a_file_for_traces_that_cannot_be_written_is_refused_before_anything_is_simulated(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=r"--trace .*/nowhere/file: No such file or directory"):
        program.simulate(typed(trace=tmp_path / "nowhere" / "file"), {})
    with pytest.raises(BadConfiguration, match=r"--hours"):
        program.simulate(typed(hours="1000", trace=tmp_path / "file"), {})
    assert list(tmp_path.iterdir()) == []


def test_a_seed_decides_everything() -> None:
    again = RandomWorld(wish(3, keeps=True)).run()
    assert (again.digest, again.events) == (lived(3).digest, lived(3).events)
    assert again.world.database.head == lived(3).world.database.head
    assert len(again.happened) == again.events
    assert lived(4).digest != lived(3).digest


def test_to_watch_changes_nothing() -> None:
    assert (
        RandomWorld(wish(3, hours=0.02, watch_from_s=0)).run().digest == RandomWorld(wish(3, hours=0.02)).run().digest
    )


def test_every_kind_of_fault_is_met_over_a_handful_of_seeds() -> None:
    met = Counter[str]()
    for seed in SEEDS:
        met.update(lived(seed).faults)
    for name in set(BY_NAME) - {name for name, count in met.items() if count}:  # those of rare weather, alone
        met.update(RandomWorld(wish(1, kinds=(name,))).run().faults)
    assert {name for name, count in met.items() if count} == set(BY_NAME)


def test_without_faults_there_are_none() -> None:
    found = RandomWorld(wish(1, kinds=())).run()
    assert (found.faults, found.crashes, found.violations) == ({}, 0, [])


# --- planted bugs ------------------------------------------------------------------------------------------


def test_an_acknowledgement_before_its_commit_is_found_and_replayed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    real = JournalWriter.submit

    def early(self: JournalWriter, pending: Pending) -> None:
        done, pending.done = pending.done, lambda error: None
        real(self, pending)
        done(None)

    monkeypatch.setattr(JournalWriter, "submit", early)
    config = tmp_path / "amends.toml"
    config.write_text('profile = "acceptance"\n')
    assert program.simulate(typed(config=config, json=True), {}) == 1
    said = json.loads(capsys.readouterr().out)
    names = {each["name"] for each in said["violations"]}
    assert names
    assert program.simulate(typed(config=config, replay=1), {}) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "BROKEN" in lines[-1]
    assert any("commit " in line for line in lines)


def test_a_debit_that_is_too_much_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = billing._debit

    def more(d: Decision, window: Window, currency: str) -> LedgerRow:
        return real(d, msgspec.structs.replace(window, amount_minor=window.amount_minor + 1), currency)

    monkeypatch.setattr(billing, "_debit", more)
    found = RandomWorld(wish(1)).run()
    assert {each.name for each in found.violations} == {"B1"}


# --- the command line --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"hours": "soon"}, "--hours"), ({"hours": "0"}, "--hours"), ({"hours": "nan"}, "--hours"),
        ({"nodes": 0}, "--nodes"), ({"faults": "rain"}, "--faults"), ({"faults": ","}, "--faults"),
        ({"policy": Path("nowhere.toml")}, "--policy"), ({"config": Path("nowhere.toml")}, "--config"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(more: dict[str, Any], named: str) -> None:
    with pytest.raises(BadConfiguration, match=named):
        program.wish_of(typed(**more), {})


def test_some_kinds_of_faults_can_be_asked_for() -> None:
    assert program.kinds_of("crash, bus-away") == ("bus-away", "crash")
    assert program.kinds_of("none") == ()
    assert program.kinds_of("all") == tuple(BY_NAME)


def test_the_verb_by_itself() -> None:
    ended = subprocess.run(
        [CONSOLE, "simulate", "--seed", "2", "--hours", "0.2", "--nodes", "3", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    said = json.loads(ended.stdout)
    assert (said["seed"], said["nodes"], said["violations"]) == (2, 3, [])
    refused = subprocess.run([CONSOLE, "simulate", "--hours", "x"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--hours" in refused.stderr
