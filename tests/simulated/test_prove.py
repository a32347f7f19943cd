"""`amends prove`: a row's sweep by somebody's own policy and timing holds, and a planted bug is named by its point."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from amends.delivery.notices import NoticeRunner
from amends.ports.steps import Outcome, StepCall
from amends.values.errors import BadConfiguration
from supervisors.policy_file import BUILT_IN
from supervisors.simulation import program, prove
from supervisors.simulation.stories import STORIES
from supervisors.simulation.world import WINDOW_US, usual_terms

CONSOLE = Path(sys.executable).with_name("amends")
BY_ROW = {story.row: story for story in STORIES}


def typed(row: str, **more: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"row": row, "policy": None, "config": None, "json": False, **more})


def test_a_row_holds_at_every_point_by_another_policy_and_timing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, config = tmp_path / "policy.toml", tmp_path / "amends.toml"
    policy.write_text(BUILT_IN.read_text().replace("bp = 10000", "bp = 0"))  # nothing is paid back any more
    config.write_text("[timing]\nssh_step_timeout_ms = 20000\n")
    assert program.prove_rows(typed("r09", policy=policy, config=config), {}, workers=1) == 0
    first, *points = capsys.readouterr().out.splitlines()
    assert "0 did not, 0 were not reached" in first
    assert len(points) > 30
    assert all("3 of 3 ended as they must" in line for line in points)
    assert any("commit allocation releasing" in line for line in points)


def test_a_planted_bug_is_named_with_its_point(monkeypatch: pytest.MonkeyPatch) -> None:
    real, sent = NoticeRunner.run, [0]

    async def minted(self: NoticeRunner, call: StepCall) -> Outcome:
        sent[0] += 1
        args = {**call.args, "message_id": f"minted-{sent[0]}"}
        return await real(self, msgspec.structs.replace(call, args=args))

    monkeypatch.setattr(NoticeRunner, "run", minted)
    proof = prove.prove(BY_ROW["R04"], usual_terms(), ("lost",))
    assert not proof.holds
    broken = [crash for crash in proof.crashes if crash.violations]
    assert "publish ntf" in {crash.what for crash in broken}
    lines = list(prove.page(proof, points=False))
    assert any("publish ntf: 0 of 1" in line for line in lines)
    assert any("BROKEN, died with its reply lost: C2" in line for line in lines)


def test_a_point_that_is_not_reached_is_named() -> None:
    crash = prove.Crash(4, "read head", "after", reached=False)
    proof = prove.Proof("R02", 4, [crash])
    assert not proof.holds
    assert any("NOT REACHED" in line for line in prove.page(proof, points=False))


def test_windows_are_shortened_and_no_shorter_than_a_unit() -> None:
    terms = usual_terms()
    assert f"window_us = {WINDOW_US}" in prove.with_windows(terms, 1).policy_text
    assert "window_us = 60000000" in prove.with_windows(terms, 60_000_000).policy_text


def test_a_row_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(BadConfiguration, match="R99"):
        program.prove_rows(typed("R99"), {})


def test_the_verb_by_itself() -> None:
    ended = subprocess.run([CONSOLE, "prove", "R02", "--json"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    said = json.loads(ended.stdout)
    assert said["holds"]
    assert [row["row"] for row in said["rows"]] == ["R02"]
