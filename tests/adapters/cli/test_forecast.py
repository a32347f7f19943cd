"""Forecasts as a person sees them."""

import json
from pathlib import Path
from typing import Any

from tests.adapters.cli.conftest import Amends, FakeRuntime
from tools.reference_examples import FORECASTS

LOSS, FORCE, COMMAND, RETIRE = FORECASTS
ALLOCATION = FORECASTS[FORCE][0]["allocation_id"]


async def test_a_loss_is_a_page_of_what_the_records_would_say(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers[LOSS] = FORECASTS[LOSS][1]
    said = await amends("whatif", "node-loss", "node-1")
    assert (said.status, runtime.asked[0][:2]) == (0, (LOSS, {"node_id": "node-1"}))
    headings = ("Changes", "Failures", "Compensated", "Recovery runs", "Ledger", "Accounts, in minor units", "Told",
                "Not foretold, or owed until the node is back", "Assumed")  # fmt: skip
    lines = said.out.splitlines()
    assert lines[0].endswith("Nothing was written, and nobody was told.")
    assert [line for line in lines if line in headings] == list(headings)
    for text in ("cancel", "state_change", "-2.44 usd", "C(", "4756", "allocation.failed", "ssh.user-lock"):
        assert text in said.out, said.out
    assert "Cases" not in lines, "of what is empty nothing is said"


async def test_what_would_be_refused_says_why_and_is_no_error(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers[RETIRE] = FORECASTS[RETIRE][1]
    said = await amends("whatif", "retire", "node-1", "--acknowledge-lost")
    assert (said.status, runtime.asked[0][1]) == (0, {"node_id": "node-1", "acknowledge_lost": True})
    assert "It would be refused: illegal_transition: a node that is ready cannot be retired" in said.out


async def test_json_is_the_answer_as_it_came(runtime: FakeRuntime, amends: Amends) -> None:
    runtime.answers[FORCE] = FORECASTS[FORCE][1]
    said = await amends("whatif", "force-release", ALLOCATION, "--reason-code", "platform_fault", "--json")
    assert runtime.asked[0][1] == FORECASTS[FORCE][0]
    assert json.loads(said.out) == FORECASTS[FORCE][1]


async def test_what_is_not_there_is_an_error(runtime: FakeRuntime, amends: Amends) -> None:
    refused: dict[str, Any] = {"code": "not_found", "message": "there is no node 'x'", "retryable": False}
    runtime.answers[LOSS] = refused
    said = await amends("whatif", "node-loss", "x")
    assert (said.status, "there is no node 'x'" in said.err) == (1, True)


async def test_any_command_is_tried_with_its_data_as_json(runtime: FakeRuntime, amends: Amends, tmp_path: Path) -> None:
    runtime.answers[COMMAND] = FORECASTS[COMMAND][1]
    said = await amends("whatif", "command", "ops.cleanup.retry", "--data", json.dumps(FORECASTS[COMMAND][0]["data"]))
    assert runtime.asked[0][1] == FORECASTS[COMMAND][0]
    assert "ssh.user-remove" in said.out
    (tmp_path / "data.json").write_text('{"node_id": "n1"}')
    await amends("whatif", "command", "ops.node.drain", "--data", f"@{tmp_path}/data.json")
    assert runtime.asked[1][1] == {"subject": "ops.node.drain", "data": {"node_id": "n1"}}
    wrong = await amends("whatif", "command", "ops.node.drain", "--data", "{node}")
    assert wrong.status == 2
    assert "--data is not JSON" in wrong.err
