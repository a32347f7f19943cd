"""`amends simulate --trace`: a simulated run is looked at in Jaeger as a real one is."""

import json
from pathlib import Path

from supervisors.boot.simulated_traces import write
from supervisors.policy_file import BUILT_IN
from supervisors.simulation.fault_kinds import BY_NAME
from supervisors.simulation.random_world import RandomWorld, Wish
from supervisors.simulation.world import Terms
from supervisors.timing import timing


def test_every_compensation_of_the_run_is_a_span_and_every_parent_is_there(tmp_path: Path) -> None:
    # given a run among faults
    terms = Terms(BUILT_IN.read_text(encoding="utf-8"), timing("acceptance", {}))
    wish = Wish(seed=3, hours=0.02, nodes=5, terms=terms, kinds=tuple(BY_NAME), records=True)
    found = RandomWorld(wish).run()
    assert found.violations == []
    assert found.runtimes > 1
    # when
    file = tmp_path / "traces.json"
    written = write(found.commits, file)
    # then
    data = json.loads(file.read_text(encoding="utf-8"))["data"]
    assert written == len(data) > 50
    spans = {(span["traceID"], span["spanID"]) for trace in data for span in trace["spans"]}
    told = {tag["value"] for trace in data for span in trace["spans"] for tag in span["tags"]
            if tag["key"] == "recovery.action_id"}  # fmt: skip
    rows = found.world.database.tables.rows["compensation"].values()
    assert len(rows) > 5
    assert [row for row in rows if row["action_id"] not in told] == []
    parents = {
        (reference["traceID"], reference["spanID"])
        for trace in data for span in trace["spans"] for reference in span["references"]
        if reference["refType"] == "CHILD_OF" and reference["traceID"] == span["traceID"]
    }  # fmt: skip
    assert parents <= spans
