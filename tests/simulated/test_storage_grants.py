"""Access to a namespace that several share: who may write beside it, who still needs it, and what is left of it."""

import json
from typing import Any

import pytest

from actors.attachment import r10_precheck
from actors.attachment.state import Attachment
from amends.turn.decision import Decision
from supervisors.simulation.storage_stories import QUOTA, attach, holds, rented
from supervisors.simulation.world import Refused, Running, World
from tests.simulated.storage import cases, once_active, outcomes, play, undone

CASE = "provider_drift"  # of access that failed before its mount; after it the case is `detach_failed`


async def _detached(running: Running, attachment: str) -> None:
    await running.ask("cmd.attachment.detach", f"detach-{attachment}", attachment_id=attachment)
    await running.until(lambda: running.state("attachment", attachment) == "detached")


def modes(running: Running) -> dict[str, str]:
    """Of who may mount the namespace, by node."""
    return {node: mode for (_, node), mode in running.world.provider().access.items()}


# --- one writer -------------------------------------------------------------------------------------------------


def test_while_a_reader_shares_a_writers_access_no_other_node_may_write() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        other = await once_active(running, "rent-2", "n2")
        writer = await attach(running, allocation, "writer")
        reader = await attach(running, allocation, "reader", mode="ro", mount_path="/mnt/more")
        await _detached(running, writer)
        assert modes(running) == {"n1": "rw"}
        refused = await attach(running, other, "busy")
        assert running.body("attachment", refused)["reason"] == "namespace_busy"
        assert running.state("attachment", await attach(running, other, "too", mode="ro")) == "attached"
        again = await attach(running, allocation, "again", mount_path="/mnt/again")
        assert running.state("attachment", again) == "attached"
        await _detached(running, again)
        await _detached(running, reader)
        assert running.state("attachment", await attach(running, other, "free", mount_path="/mnt/w")) == "attached"
        await running.quiet()

    play(tell)


def test_the_access_of_a_writer_goes_with_it_where_the_readers_beside_it_have_their_own() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        other = await once_active(running, "rent-2", "n2")
        reader = await attach(running, allocation, "reader", mode="ro")
        writer = await attach(running, allocation, "writer", mount_path="/mnt/more")
        assert modes(running) == {"n1": "rw"}
        await _detached(running, writer)
        assert modes(running) == {"n1": "ro"}
        assert running.state("attachment", await attach(running, other, "other")) == "attached"
        assert running.state("attachment", reader) == "attached"
        await running.quiet()

    play(tell)


def test_a_provider_that_allows_several_writers_lets_another_node_write_beside_a_shared_access() -> None:
    async def tell(running: Running) -> None:
        running.world.provider().capabilities["multi_attach"] = True
        allocation = await rented(running)
        other = await once_active(running, "rent-2", "n2")
        writer = await attach(running, allocation, "writer")
        await attach(running, allocation, "reader", mode="ro", mount_path="/mnt/more")
        await _detached(running, writer)
        assert running.state("attachment", await attach(running, other, "other")) == "attached"
        await running.quiet()

    play(tell)


def test_after_a_start_it_is_still_known_which_node_may_write() -> None:
    rentals: list[str] = []

    async def before(running: Running) -> None:
        rentals.append(await rented(running))
        rentals.append(await once_active(running, "rent-2", "n2"))
        writer = await attach(running, rentals[0], "writer")
        await attach(running, rentals[0], "reader", mode="ro", mount_path="/mnt/more")
        await _detached(running, writer)

    async def after(running: Running) -> None:
        await running.until(lambda: running.state("node", "n2") == "ready")
        refused = await attach(running, rentals[1], "busy")
        assert running.body("attachment", refused)["reason"] == "namespace_busy"

    assert play(before).run(after)


# --- drift ------------------------------------------------------------------------------------------------------


async def _drifted(running: Running, allocation: str, attachment: str) -> None:
    """A detach whose access the provider does not take back."""
    running.world.provider().break_next("revoke", "fail", 99)
    await running.ask("cmd.attachment.detach", "detach", attachment_id=attachment)
    await running.until(lambda: running.state("attachment", attachment) == "detach_failed")
    await running.until(lambda: bool(running.body("namespace", "data").get("drift")))
    blocked = await attach(running, allocation, "blocked", mode="ro", mount_path="/mnt/blocked")
    assert running.body("attachment", blocked)["reason"] == "blocked_by_drift"
    await running.quiet()


async def _reconcile(running: Running, key: str = "reconcile") -> None:
    await running.ask("ops.provider.reconcile", key, namespace_id="data", node_id="n1", reason="it is back")


async def _settled(running: Running, kind: str, ref: str = "resolve") -> str:
    """What an operator hears who resolves the open case of that kind by hand."""
    rows = running.world.database.tables.rows["ops_case"].values()
    (case,) = [row for row in rows if row["kind"] == kind and row["state"] != "resolved"]
    with pytest.raises(Refused) as refused:
        await running.ask("ops.case.resolve", ref, case_id=case["case_id"], reason="looks fine")
    assert refused.value.code == "debt_open"
    return str(refused.value)


@pytest.mark.parametrize("word", ["reconcile", "retry_detach"])
def test_access_that_a_detach_could_not_give_back_is_shown_and_settled_by_either_command(word: str) -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        await _drifted(running, allocation, attachment)
        assert running.body("namespace", "data")["drift"]["n1"]["attachments"] == [attachment]
        assert "ops.attachment.retry_detach" in await _settled(running, "detach_failed")
        running.world.provider().mend()
        if word == "reconcile":
            await _reconcile(running)
        else:
            await running.ask("ops.attachment.retry_detach", "retry", attachment_id=attachment, reason="it is back")
        await running.until(lambda: running.state("attachment", attachment) == "detached")
        await running.until(lambda: not running.body("namespace", "data").get("drift"))
        assert running.state("attachment", await attach(running, allocation, "again")) == "attached"
        await running.quiet()

    world = play(tell)
    assert cases(world, "detach_failed") == ["resolved"]
    assert cases(world, "provider_drift") == []


def test_access_that_was_the_fence_of_a_lost_node_is_settled_by_a_reconcile() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        running.world.provider().break_next("revoke", "fail", 99)
        running.world.machine("n1").up = False
        await running.until(lambda: running.state("attachment", attachment) == "detach_failed")
        await running.until(lambda: bool(running.body("namespace", "data").get("drift")))
        running.world.provider().mend()
        await _reconcile(running)
        await running.until(lambda: running.state("attachment", attachment) == "detached")
        running.world.machine("n1").up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()
        assert not running.world.machine("n1").mounts.mounted

    world = play(tell)
    assert cases(world, "detach_failed") == ["resolved"]


@pytest.mark.parametrize("kind", ["provider_drift", "detach_failed"])
def test_a_drift_has_one_case_that_follows_what_is_tried_and_is_not_settled_by_hand(kind: str) -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        provider = running.world.provider()
        if kind == "provider_drift":
            provider.break_next("grant", "partial", 99)
            provider.break_next("revoke", "keep", 99)
            await attach(running, allocation)
        else:
            await _drifted(running, allocation, await attach(running, allocation))
        await running.quiet()
        assert cases(running.world, kind) == ["open"]
        await _settled(running, kind)
        await _reconcile(running, "in-vain")
        await running.until(lambda: cases(running.world, kind) == ["retrying"])
        await running.until(lambda: outcomes(running.world, "R11").count("failed") == (2 if kind == CASE else 1))
        await running.until(lambda: cases(running.world, kind) == ["open"])
        await _settled(running, kind, "resolve-2")
        provider.mend()
        await _reconcile(running)
        await running.until(lambda: cases(running.world, kind) == ["resolved"])
        await running.until(lambda: not running.body("namespace", "data").get("drift"))
        await running.quiet()

    world = play(tell)
    assert len(world.database.tables.rows["ops_case"]) == 1


def test_a_writers_drift_beside_readers_leaves_them_their_access_through_its_reconcile() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        reader = await attach(running, allocation, "reader", mode="ro")
        writer = await attach(running, allocation, "writer", mount_path="/mnt/more")
        await _drifted(running, allocation, writer)
        other = await attach(running, await once_active(running, "rent-2", "n2"), "other")
        assert running.body("attachment", other)["reason"] == "namespace_busy"
        running.world.provider().mend()
        await _reconcile(running)
        await running.until(lambda: running.state("attachment", writer) == "detached")
        assert modes(running) == {"n1": "ro"}
        assert running.state("attachment", reader) == "attached"
        await running.quiet()

    play(tell)


# --- checked again when access is there -------------------------------------------------------------------------


async def _asked(running: Running, allocation: str) -> str:
    """An attachment whose provider takes its time with the grant."""
    running.world.provider().break_next("grant", "hang", 1)
    wish = {"allocation_id": allocation, "namespace_id": "data", "mode": "rw", "mount_path": "/mnt/data"}
    attachment = str((await running.ask("cmd.attachment.attach", "attach", **wish))["attachment"]["attachment_id"])
    await running.until(lambda: running.state("attachment", attachment) == "validated")
    return attachment


async def _draining(running: Running) -> None:
    await running.ask("ops.node.drain", "drain", node_id="n1", reason="a new disk")


async def _quarantined(running: Running) -> None:
    await running.ask("ops.node.quarantine", "quarantine", node_id="n1", reason="it smells")


async def _full(running: Running) -> None:
    holds(running.world, "data").used_bytes = 2 * QUOTA
    await running.until(lambda: running.body("namespace", "data").get("flag") == "over")


async def _read_only(running: Running) -> None:
    running.world.provider().capabilities["modes"] = ["ro"]
    await running.until(lambda: running.body("namespace", "data")["capabilities"]["modes"] == ["ro"])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_draining, "node_not_ready"),
        (_quarantined, "node_not_ready"),
        (_full, "quota_blocked"),
        (_read_only, "capability_missing"),
    ],
)
def test_what_holds_no_more_when_access_is_there_fails_and_access_is_given_back(spoil: Any, reason: str) -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await _asked(running, allocation)
        await spoil(running)
        await running.until(lambda: running.state("attachment", attachment) in ("attached", "failed"))
        body = running.body("attachment", attachment)
        assert set(reason.split(",")) <= set(body["reason"].split(","))
        assert body["grant_id"] == running.world.provider().calls[-1][1]["grant_id"]
        assert modes(running) == {}
        holds(running.world, "data").used_bytes = 0
        await running.until(lambda: not running.body("namespace", "data").get("flag"))
        await running.quiet()

    world = play(tell, provider_timeout_ms=3000)
    assert undone(world, "R11") == [("reverse·external_call", "provider", "success")]
    assert {op for op, _ in world.provider().calls} == {"usage", "grant", "verify", "revoke"}


def _older(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node's going is seen at the second look: a fact may be older than the commit of what it led to."""
    look, older = r10_precheck.failing, ["node_not_ready"]

    def failing(s: Attachment, own_id: str, d: Decision, *, again: bool = False) -> list[str]:
        found = look(s, own_id, d, again=again)
        if found == older:
            older.clear()
            return []
        return found

    monkeypatch.setattr(r10_precheck, "failing", failing)


@pytest.mark.parametrize("spoil", [_draining, _quarantined])
def test_what_is_not_so_any_more_when_that_turn_commits_is_looked_at_anew(
    spoil: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tell(running: Running) -> None:
        attachment = await _asked(running, await rented(running))
        await spoil(running)
        _older(monkeypatch)
        await running.until(lambda: running.state("attachment", attachment) in ("attached", "failed"))
        assert running.body("attachment", attachment)["reason"] == "node_not_ready"
        await running.quiet()

    world = play(tell, provider_timeout_ms=3000)
    assert not any(each["to_state"] == "granted" for each in world.database.tables.rows["audit_log"].values())


@pytest.mark.parametrize(("silent", "reason"), [(False, "node_not_ready"), (True, "node_suspect")])
def test_a_mount_that_cannot_go_out_says_whether_its_node_is_silent_or_out_of_service(
    silent: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node goes between the turn that takes its access in and the one that sends the task."""

    async def tell(running: Running) -> None:
        attachment = await _asked(running, await rented(running))
        if silent:
            running.world.machine("n1").beats = False
            await running.until(lambda: running.state("node", "n1") == "suspect")
        else:
            await _quarantined(running)
        _older(monkeypatch)
        monkeypatch.setattr(r10_precheck, "require", lambda s, d: None)
        await running.until(lambda: running.state("attachment", attachment) in ("attached", "failed"))
        assert running.body("attachment", attachment)["reason"] == reason
        running.world.machine("n1").beats = True
        await running.quiet()

    play(tell, provider_timeout_ms=3000, suspect_after_ms=500, offline_after_ms=60_000)


def test_what_is_detached_before_access_is_there_names_the_grant_that_was_asked_for() -> None:
    async def tell(running: Running) -> None:
        attachment = await _asked(running, await rented(running))
        await running.ask("cmd.attachment.detach", "detach", attachment_id=attachment)
        await running.until(lambda: running.state("attachment", attachment) == "failed")
        (row,) = running.world.database.tables.rows["provider_grants"].values()
        assert running.body("attachment", attachment)["grant_id"] == row["grant_id"]
        await running.quiet()

    play(tell)


# --- taking back ------------------------------------------------------------------------------------------------


def test_a_revoke_that_is_done_and_not_answered_is_asked_about_and_is_no_drift() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        running.world.provider().break_next("revoke", "lose", 99)
        await _detached(running, attachment)
        await running.quiet()

    world = play(tell)
    assert [op for op, _ in world.provider().calls if op in ("revoke", "verify")] == ["verify", "revoke", "verify"]
    assert not world.database.tables.rows["ops_case"]
    assert [row["state"] for row in world.database.tables.rows["provider_grants"].values()] == ["revoked"]


def test_a_revoke_that_never_reaches_its_provider_is_tried_as_often_as_it_may_be() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        running.world.provider().break_next("revoke", "hang", 2)
        await _detached(running, attachment)
        await running.quiet()

    world = play(tell, revoke_tries=3)
    verified = [op for op, _ in world.provider().calls if op == "verify"]
    assert len(verified) == 1 + 2 + 1  # of the grant, of each silence, of the revoke


def actions(world: World, row: str) -> list[list[tuple[str, str, str]]]:
    """(what, outcome, code) of all actions of each run of the row, in their order."""
    rows = world.database.tables.rows
    found = sorted(rows["recovery_action"].values(), key=lambda each: int(each["sequence"]))
    return [
        [
            (each["what"], each["outcome"], json.loads(each["metadata"]).get("code", ""))
            for each in found
            if each["recovery_trace_id"] == run["recovery_trace_id"]
        ]
        for run in rows["recovery_run"].values()
        if run["matrix_row"] == row
    ]


TRIES = [("revoke", "failure", "provider_failed")] * 2
IN_VAIN = ("reverse grant", "failure", "provider_failed")


def test_each_try_to_take_access_back_is_an_action_of_the_run_that_it_belongs_to() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        await _drifted(running, allocation, await attach(running, allocation))
        await _reconcile(running, "in-vain")
        await running.until(lambda: outcomes(running.world, "R11") == ["failed"])
        running.world.provider().mend()
        running.world.provider().break_next("revoke", "fail", 2)
        await _reconcile(running)
        await running.until(lambda: not running.body("namespace", "data").get("drift"))
        await running.quiet()

    world = play(tell, revoke_tries=3)
    detach, settled = actions(world, "R13")
    assert detach[:-1] == [*TRIES, IN_VAIN, ("compensate detach", "failure", "provider_failed")]
    assert settled == [("compensate detach", "success", "")]
    in_vain, good = actions(world, "R11")
    assert in_vain[:-1] == [*TRIES, IN_VAIN]
    assert good == [*TRIES, ("reverse grant", "success", "")]


@pytest.mark.parametrize("row", ["R11", "R12", "R13"])
def test_tries_before_the_one_that_goes_well_are_actions_too(row: str) -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        provider = running.world.provider()
        provider.break_next("revoke", "fail", 2)
        if row == "R11":
            provider.break_next("grant", "fail", 99)
        elif row == "R12":
            running.world.machine("n1").break_next("mount", "fail", 99)
        attachment = await attach(running, allocation)
        if row == "R13":
            await _detached(running, attachment)
        await running.quiet()

    world = play(tell, revoke_tries=3, grant_tries=2)
    last = ("revoke" if row == "R13" else "reverse grant", "success", "")
    (found,) = actions(world, row)
    assert [each for each in found if each[0] in ("revoke", "reverse grant")] == [*TRIES, last]
    assert outcomes(world, row) == ["recovered"]


def test_a_mount_that_keeps_its_access_is_one_case_whoever_tries_again_in_vain() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        machine, provider = running.world.machine("n1"), running.world.provider()
        machine.break_next("mount", "lose", 99)
        provider.break_next("revoke", "keep", 99)
        wish = {"allocation_id": allocation, "namespace_id": "data", "mode": "rw", "mount_path": "/mnt/data"}
        data = await running.ask("cmd.attachment.attach", "attach", **wish)
        attachment = data["attachment"]["attachment_id"]
        await running.until(lambda: attachment in machine.mounts.mounted)
        machine.beats = False
        await running.until(lambda: running.state("attachment", attachment) == "detach_failed")
        machine.beats = True
        again = {"namespace_id": "data", "node_id": "n1", "reason": "once more"}
        await running.until(lambda: "n1" in running.body("namespace", "data").get("drift", {}))
        await running.ask("ops.provider.reconcile", "in-vain", **again)
        await running.until(lambda: not running.body("namespace", "data").get("runs"))
        assert cases(running.world, "provider_drift") == []
        assert cases(running.world, "detach_failed") == ["open"]
        provider.mend()
        machine.mend()
        await running.ask("ops.attachment.retry_detach", "retry", attachment_id=attachment, reason="it is mended")
        await running.until(lambda: running.state("attachment", attachment) == "detached")
        assert not running.body("namespace", "data").get("drift")
        await running.quiet()

    world = play(tell, suspect_after_ms=500, offline_after_ms=60_000)
    assert cases(world, "detach_failed") == ["resolved"]


def test_an_attach_that_is_called_off_beside_another_takes_nothing_back_and_says_so() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        await attach(running, allocation, "first", mode="ro")
        wish = {"allocation_id": allocation, "namespace_id": "data", "mode": "ro", "mount_path": "/mnt/more"}
        asked = await running.ask("cmd.attachment.attach", "second", **wish)
        second = asked["attachment"]["attachment_id"]
        await running.ask("cmd.attachment.detach", "detach", attachment_id=second)
        await running.until(lambda: running.state("attachment", second) in ("failed", "detached"))
        assert modes(running) == {"n1": "ro"}
        await running.quiet()

    world = play(tell)
    tables = world.database.tables.rows
    found = [row for row in tables["recovery_action"].values() if row["action_type"] == "fallback"]
    assert [(row["what"], row["outcome"], json.loads(row["metadata"])) for row in found] == [
        ("grant", "success", {"access": "shared"})
    ]
