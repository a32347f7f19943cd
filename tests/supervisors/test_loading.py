"""What a start reads of the fleet: last-seen times, and the policies of meters that are open."""

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from actors.node.kind import NODE
from actors.node.state import Node
from actors.tables import NodesSeenRow
from amends.runtime.store import Store
from amends.values.limits import Limits
from supervisors.guards import Guards
from supervisors.last_seen import LastSeen
from supervisors.loading import load_policies, load_seen
from supervisors.policy_file import BUILT_IN, built_in
from supervisors.pool import Pool
from supervisors.timing import timing


class Kept:
    """A journal with some rows and documents."""

    def __init__(self, rows: list[Any], documents: dict[str, bytes] | None = None) -> None:
        self._rows, self._documents = rows, documents or {}

    async def live_rows(self, row: type[Any]) -> AsyncIterator[list[Any]]:
        yield [each for each in self._rows if isinstance(each, row)]

    async def documents(self, kind: str) -> dict[str, bytes]:
        return self._documents


@pytest.mark.parametrize(
    ("boot_id", "reasons", "expected"),
    [
        ("b1", [], 900),
        ("b2", [], None),
        ("b2", ["operator"], None),
        ("b2", ["identity_conflict"], 900),
        ("", [], 900),
    ],
)
async def test_of_two_machines_under_one_name_either_ones_word_counts_and_else_only_that_of_the_known_boot(
    boot_id: str, reasons: list[str], expected: int | None
) -> None:
    store = Store({"node": NODE})
    node = Node(
        state="quarantined" if reasons else "ready", ssh_host="h", ssh_port=22, ssh_host_key="k", registered_us=1,
        boot_id="b1", last_heartbeat_us=500, quarantine_reasons=reasons, version=1,
    )  # fmt: skip
    store.put("node", "n1", node)
    rows = [NodesSeenRow("00", json.dumps({"n1": [boot_id, 900]}))]
    assert (await load_seen(cast(Any, Kept(rows)), store)).get("n1") == expected


async def test_a_policy_that_an_older_release_took_is_read_and_named(caplog: pytest.LogCaptureFixture) -> None:
    # given what a meter may be open under, and what is no policy
    loose = BUILT_IN.read_text().replace("window_us", "colour = 1\nwindow_us", 1)
    documents = {"aa": json.dumps({"toml": loose}).encode(), "bb": b"{}"}
    pool = Pool(built_in(), LastSeen(), Guards(Limits(timing("acceptance", {}))))
    await load_policies(pool, cast(Any, Kept([], documents)))
    assert pool.policies["aa"].rules == built_in().rules
    assert "bb" not in pool.policies
    assert "unknown key `time.colour`" in caplog.text
    assert "bb cannot be read" in caplog.text
