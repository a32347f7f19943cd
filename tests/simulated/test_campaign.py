"""`./run campaign` keeps a line for each seed, goes on where it was stopped, and says what it came to."""

import json
from pathlib import Path

import pytest

from supervisors.invariants.records import Violation
from tools import campaign, pairs
from tools.ledger import lines_of


def test_a_campaign_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, ledger = tmp_path / "reliability.md", tmp_path / "state" / "ledger.jsonl"
    page.write_text("before\n<!-- campaign -->\nold\n<!-- /campaign -->\nbehind\n")
    monkeypatch.setattr(campaign, "PAGE", page)
    words = ["--hours", "0.05", "--nodes", "3", "--state", str(ledger.parent), "--workers", "1"]
    assert campaign.campaign(campaign.parser().parse_args([*words, "--seeds", "1"])) == 0
    first = ledger.read_text()
    with ledger.open("a") as file:
        file.write('{"seed": 2, "asked_ho')  # killed while it wrote
    assert campaign.campaign(campaign.parser().parse_args([*words, "--seeds", "2", "--report"])) == 0
    assert ledger.read_text().startswith(first)
    assert "1 parts are in" in capsys.readouterr().err
    lines = lines_of(ledger, lambda line: line["seed"])
    assert sorted(lines) == [1, 2]
    assert {"hours", "faults", "violations", "seconds", "digest"} <= set(lines[1])
    assert page.read_text().startswith("before\n<!-- campaign -->\n2 seeds of 0.05 hours, 3 nodes: ")
    assert page.read_text().endswith("|\n<!-- /campaign -->\nbehind\n")


def test_a_seed_that_is_broken_is_told_and_fails_the_campaign(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"seed": 1, "nodes": 3, "hours": 1, "asked_hours": 1.0, "customers": 1, "crashes": 0, "events": 1,
            "digest": "", "faults": {}, "seconds": 1.0,
            "violations": [{"name": "A1", "ref": "node:n1", "what": "several live assignments"}]}  # fmt: skip
    (tmp_path / "ledger.jsonl").write_text(json.dumps(line) + "\n")
    words = ["--hours", "1", "--nodes", "3", "--seeds", "1", "--state", str(tmp_path), "--workers", "1"]
    assert campaign.campaign(campaign.parser().parse_args(words)) == 1
    assert "seed 1: A1 node:n1" in capsys.readouterr().out


def test_pairs_are_all_points_of_a_recovery_after_each_point(monkeypatch: pytest.MonkeyPatch) -> None:
    line = pairs.swept(("R02", "lost", 55))
    assert (line["row"], line["mode"], line["first"], line["broken"]) == ("R02", "lost", 55, [])
    assert line["pairs"] > 30
    assert pairs.key_of(line) == ("R02", "lost", 55)
    monkeypatch.setattr(pairs, "wrong", lambda story, world: [Violation("A1", "node:n1", "as planted")])
    line = pairs.swept(("R02", "lost", 62))
    assert line["broken"][0] == "died lost 62, and at 1 of the recovery: A1 node:n1: as planted"
    assert pairs.table([line]).startswith(f"{line['pairs']} pairs, {line['pairs']} of them broken.")
