"""What a node's agent names is kept in a bounded way."""

import msgspec

from amends.ports.steps import Outcome
from tests.actors.node_life import ready, returning


def test_an_inventory_is_audited_as_counts_and_a_hash_however_much_an_agent_names() -> None:
    life = ready()
    asked = returning(life)
    names = [f"/mnt/{number:05}/" + "x" * 240 for number in range(1024)]
    life.end(asked, Outcome("done", data={"mounts": [], "users": [], "foreign": names}))
    (entry,) = [audit for audit in life.turn.audits if audit.action == "node.reconciled"]
    kept = entry.details["inventory"]
    assert (kept["foreign"], kept["users"], len(kept["sha256"])) == (1024, 0, 64)
    assert len(msgspec.json.encode(entry.details)) < 300
    assert life.node.state == "ready"
