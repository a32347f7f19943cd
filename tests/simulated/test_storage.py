"""Storage rows R10 to R13 beyond their stories: every precheck, drift, sharing, failed mounts, releases."""

import asyncio
from operator import itemgetter
from typing import Any

import pytest

from adapters.simulated.machine_mounts import HOLDER
from amends.domain.api import example_of
from amends.domain.domain import requests_of
from supervisors.rental import RENTAL
from supervisors.simulation.storage_stories import ENDED, QUOTA, attach, holds, rented
from supervisors.simulation.world import CUSTOMER_KEY, Refused, Running, World
from tests.simulated.storage import access, access_of, bodies, cases, namespace, outcomes, play, undone

# --- R10: prechecks ---------------------------------------------------------------------------------------------


async def _released(running: Running, allocation: str) -> dict[str, Any]:
    await running.release(allocation, "release")
    await running.until(lambda: running.state("allocation", allocation) == "released")
    await running.quiet()
    return {}


async def _foreign(running: Running, allocation: str) -> dict[str, Any]:
    await running.account("umbrella")
    await namespace(running, "theirs", account_id="umbrella")
    return {"namespace_id": "theirs"}


async def _draining(running: Running, allocation: str) -> dict[str, Any]:
    await running.ask("ops.node.drain", "drain", node_id="n1", reason="a new disk")
    return {}


async def _above(running: Running, allocation: str) -> dict[str, Any]:
    holds(running.world, "data").used_bytes = QUOTA + 10
    await running.until(lambda: running.body("namespace", "data")["usage"].get("used_bytes", 0) > QUOTA)
    return {}


async def _blocked(running: Running, allocation: str) -> dict[str, Any]:
    holds(running.world, "data").used_bytes = 2 * QUOTA
    await running.until(lambda: bool(running.body("namespace", "data").get("flag")))
    return {}


async def _archived(running: Running, allocation: str) -> dict[str, Any]:
    await running.ask("cmd.namespace.archive", "archive", namespace_id="data")
    return {}


async def _read_only(running: Running, allocation: str) -> dict[str, Any]:
    running.world.provider().capabilities["modes"] = ["ro"]
    await namespace(running, "paper")
    return {"namespace_id": "paper"}


async def _elsewhere(running: Running, allocation: str) -> dict[str, Any]:
    running.world.provider().capabilities["mount_path_prefixes"] = ["/mnt", "/srv"]
    await namespace(running, "strict")
    return {"namespace_id": "strict", "mount_path": "/mntx/data"}


async def _taken(running: Running, allocation: str) -> dict[str, Any]:
    await namespace(running, "other")
    await attach(running, allocation, "first", namespace_id="other")
    return {"mount_path": "/mnt/data/below"}


async def _busy(running: Running, allocation: str) -> dict[str, Any]:
    await attach(running, allocation, "first")
    return {"mount_path": "/mnt/more"}


async def _two(running: Running, allocation: str) -> dict[str, Any]:
    return {**await _above(running, allocation), **await _draining(running, allocation)}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(_released, "allocation_not_active", id="allocation_not_active"),
        pytest.param(_foreign, "account_mismatch", id="account_mismatch"),
        pytest.param(_draining, "node_not_ready", id="node_not_ready"),
        pytest.param(_above, "quota_exceeded", id="quota_exceeded"),
        pytest.param(_blocked, "quota_blocked", id="quota_blocked"),
        pytest.param(_archived, "grant_not_permitted", id="grant_not_permitted"),
        pytest.param(_read_only, "capability_missing", id="capability_missing"),
        pytest.param(_elsewhere, "mount_path_not_allowed", id="mount_path_not_allowed"),
        pytest.param(_taken, "mount_path_taken", id="mount_path_taken"),
        pytest.param(_busy, "namespace_busy", id="namespace_busy"),
        pytest.param(_two, "node_not_ready,quota_exceeded", id="all that fail"),
    ],
)
def test_what_cannot_be_attached_fails_before_anything_is_asked_of_anybody(spoil: Any, reason: str) -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        await running.until(lambda: running.body("namespace", "data").get("capabilities") is not None)
        more = await spoil(running, allocation)
        asked = len([op for op, _ in running.world.provider().calls if op == "grant"])
        attachment = await attach(running, allocation, **more)
        assert running.body("attachment", attachment)["reason"] == reason
        assert len([op for op, _ in running.world.provider().calls if op == "grant"]) == asked
        await asyncio.sleep(5)
        holds(running.world, "data").used_bytes = 0
        await running.until(lambda: not running.body("namespace", "data").get("flag"))

    world = play(tell, quota_interval_ms=300_000 if reason == "node_not_ready,quota_exceeded" else 300)
    assert undone(world, "R10") == [("cancel·decision", "attachment", "success")]
    assert outcomes(world, "R10") == ["recovered"]


def test_a_rental_nobody_knows_a_namespace_nobody_knows_and_a_path_into_a_home_are_refused() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        for number, (wrong, code) in enumerate((
            ({"allocation_id": "alloc_01kb0000000000000000000000"}, "not_found"),
            ({"namespace_id": "none"}, "not_found"),
            ({"mount_path": "/home"}, "invalid_request"),
            ({"mount_path": "/mnt/../root"}, "invalid_request"),
            ({"mount_path": "mnt"}, "invalid_request"), ({"mount_path": "/" + "é" * 2048}, "invalid_request"),
        )):  # fmt: skip
            with pytest.raises(Refused) as refused:
                await attach(running, allocation, f"wrong-{number}", **wrong)
            assert (wrong, refused.value.code) == (wrong, code)

    play(tell)


def test_what_is_not_there_and_what_is_there_already_is_refused_by_the_field_that_names_it() -> None:
    ids = {"allocation": "alloc", "attachment": "attach", "case": "case", "event": "evt", "notification": "ntf"}
    names = {
        **{each: f"{prefix}_01m8g43zg1e03vzpesz1t2e51q" for each, prefix in ids.items()},
        "host_key": CUSTOMER_KEY, "customer_key": CUSTOMER_KEY, "meter": f"alloc_{'0' * 26}",
    }  # fmt: skip
    found: dict[str, str] = {}

    requests = requests_of((RENTAL,))
    makes = [subject for subject in requests if subject.endswith((".create", ".register"))]

    async def tell(running: Running) -> None:
        # when everything is asked for before anything is there, and all is made twice
        for number, subject in enumerate((*(each for each in requests if each not in makes), *makes, *makes)):
            try:
                await running.ask(subject, f"key-{number}", **example_of(requests[subject], names))
            except Refused as refused:
                if refused.code in ("not_found", "already_exists"):
                    found[f"{subject}: {refused.code}"] = refused.details.get("field", "")

    World(1).run(tell)
    assert {"ops.node.drain: not_found", "cmd.namespace.archive: not_found", "cmd.account.create: already_exists",
            "ops.case.resolve: not_found"} <= found.keys()  # fmt: skip
    assert [name for name, field in found.items() if not field] == []


def test_of_twenty_that_want_to_write_at_once_one_may() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        wishes = [attach(running, allocation, f"attach-{n}", mount_path=f"/mnt/{n}") for n in range(20)]
        ends = [running.state("attachment", each) for each in await asyncio.gather(*wishes)]
        assert sorted(ends) == ["attached", *["failed"] * 19]

    world = play(tell)
    assert {each["reason"] for each in bodies(world, "attachment") if each["state"] == "failed"} == {"namespace_busy"}


def test_of_twenty_that_want_one_path_at_once_one_may() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        wishes = [
            attach(running, allocation, f"attach-{n}", mode="ro", mount_path="/mnt/a" + "/b" * n) for n in range(20)
        ]
        ends = [running.state("attachment", each) for each in await asyncio.gather(*wishes)]
        assert sorted(ends) == ["attached", *["failed"] * 19]

    world = play(tell)
    assert {each["reason"] for each in bodies(world, "attachment") if each["state"] == "failed"} == {"mount_path_taken"}


# --- R11: access ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["fail", "partial", "hang", "lose", "lie", "fail_final"])
def test_access_that_is_not_granted_for_good_is_taken_back(fault: str) -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        running.world.provider().break_next("grant", fault, 99)
        attachment = await attach(running, allocation)
        assert running.state("attachment", attachment) == "failed"
        await running.quiet()

    world = play(tell)
    assert undone(world, "R11") == [("reverse·external_call", "provider", "success")]
    assert outcomes(world, "R11") == ["recovered"]


def test_access_that_the_provider_keeps_blocks_the_pair_until_an_operator_has_it_reconciled() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        providers = running.world.provider()
        providers.break_next("grant", "partial", 99)
        providers.break_next("revoke", "keep", 99)
        attachment = await attach(running, allocation)
        assert running.state("attachment", attachment) == "failed"
        assert cases(running.world, "provider_drift") == ["open"]
        providers.mend()
        second = await attach(running, allocation, "again")
        assert running.body("attachment", second)["reason"] == "blocked_by_drift"
        with pytest.raises(Refused, match="drifted"):
            await running.ask("ops.provider.reconcile", "wrong", namespace_id="data", node_id="n2", reason="no")
        await running.ask("ops.provider.reconcile", "reconcile", namespace_id="data", node_id="n1", reason="it is back")
        await running.until(lambda: not running.body("namespace", "data").get("drift"))
        third = await attach(running, allocation, "once more")
        assert running.state("attachment", third) == "attached"
        await running.quiet()

    world = play(tell)
    assert undone(world, "R11") == [
        ("reverse·external_call", "provider", "failure"), ("compensate·state_change", "namespace", "success"),
        ("reverse·external_call", "provider", "success"),
    ]  # fmt: skip
    assert outcomes(world, "R11") == ["failed", "recovered"]
    assert cases(world, "provider_drift") == ["resolved"]


def test_two_of_one_namespace_and_node_share_the_access_and_the_last_one_gives_it_back() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        first = await attach(running, allocation, "first", mode="ro")
        second = await attach(running, allocation, "second", mode="ro", mount_path="/mnt/more")
        grants = access(running)
        assert len(grants) == 1
        for number, attachment in enumerate((first, second)):
            await running.ask("cmd.attachment.detach", f"detach-{number}", attachment_id=attachment)
            await running.until(lambda: running.state("attachment", attachment) == "detached")  # noqa: B023
            assert access(running) == (grants if attachment == first else [])
        await running.quiet()

    play(tell)


# --- R12: mounts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "fault"),
    [
        ("mount", "fail"),
        ("mount", "fail_mounted"),
        ("mount", "hang"),
        ("probe_mount", "stale"),
        ("probe_mount", "hang"),
        ("probe_mount", "missing"),
    ],
)
def test_a_mount_that_fails_or_is_not_well_is_undone_and_access_given_back(op: str, fault: str) -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        running.world.machine("n1").break_next(op, fault, 99)
        attachment = await attach(running, allocation)
        assert running.state("attachment", attachment) == "failed"
        await running.quiet()

    world = play(tell)
    known_absent = fault in ("fail", "missing")  # the agent said: not mounted
    unmounted = [] if known_absent else [("reverse·side_effect", "node", "success")]
    assert undone(world, "R12") == [*unmounted, ("reverse·external_call", "provider", "success")]
    assert outcomes(world, "R12") == ["recovered"]


@pytest.mark.parametrize("mount_timeout_ms", [900, 60_000])
def test_while_the_node_is_silent_access_goes_first_and_the_unmount_is_owed(mount_timeout_ms: int) -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        machine = running.world.machine("n1")
        machine.break_next("mount", "lose", 99)
        data = await running.ask("cmd.attachment.attach", "attach", allocation_id=allocation, namespace_id="data",
                                 mode="rw", mount_path="/mnt/data")  # fmt: skip
        attachment = data["attachment"]["attachment_id"]
        await running.until(lambda: attachment in machine.mounts.mounted)
        machine.beats = False
        await running.until(lambda: running.state("attachment", attachment) == "failed")
        assert running.state("node", "n1") == "suspect"
        assert not access(running)
        assert not any(each["settled_us"] for each in running.world.database.tables.rows["debts"].values())
        machine.beats = True
        await running.until(lambda: not machine.mounts.mounted)
        await running.quiet()

    world = play(tell, mount_timeout_ms=mount_timeout_ms, suspect_after_ms=500, offline_after_ms=60_000)
    assert undone(world, "R12") == [
        ("reverse·external_call", "provider", "success"), ("reverse·side_effect", "node", "partial"),
        ("reverse·side_effect", "node", "success"),
    ]  # fmt: skip
    assert outcomes(world, "R12") == ["recovered"]


def test_an_undo_that_cannot_unmount_on_a_living_node_ends_as_a_detach_that_was_given_up() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        machine = running.world.machine("n1")
        machine.break_next("mount", "fail_mounted", 99)
        machine.break_next("unmount", "busy", 999)
        attachment = await attach(running, allocation, "attach", "detach_failed")
        assert access(running)
        machine.mend()
        await running.ask("ops.attachment.retry_detach", "retry", attachment_id=attachment, reason="it has ended")
        await running.until(lambda: running.state("attachment", attachment) == "detached")
        await running.quiet()

    world = play(tell, unmount_tries=2)
    assert outcomes(world, "R12") == ["failed"]
    assert outcomes(world, "R13") == ["recovered"]


# --- R13: detaches ----------------------------------------------------------------------------------------------


def test_a_release_goes_on_without_what_cannot_be_unmounted_and_its_node_is_nobodys_until_then() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        machine = running.world.machine("n1")
        machine.break_next("unmount", "busy", 999)
        await running.release(allocation, "release")
        await running.until(lambda: running.state("allocation", allocation) == "released")
        assert running.state("attachment", attachment) == "detach_failed"
        assert running.body("attachment", attachment)["mount"]["holders"] == [HOLDER]
        assert cases(running.world, "detach_failed") == ["open"]
        assert running.core.pool.is_dirty("n1")
        with pytest.raises(Refused, match="detach_failed"):
            await running.ask("cmd.attachment.detach", "detach", attachment_id=attachment)
        with pytest.raises(Refused, match="retry"):
            await running.ask("ops.attachment.acknowledge_node_lost", "gone", attachment_id=attachment, reason="no")
        machine.mend()
        await running.ask("ops.attachment.retry_detach", "retry", attachment_id=attachment, reason="it has ended")
        await running.until(lambda: running.state("attachment", attachment) == "detached")
        await running.quiet()
        assert not running.core.pool.is_dirty("n1")

    world = play(tell, unmount_tries=2)
    assert cases(world, "detach_failed") == ["resolved"]


def test_a_release_detaches_what_is_attached_before_it_commits() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        await running.release(allocation, "release")
        await running.until(lambda: running.state("allocation", allocation) == "released")
        assert running.state("attachment", attachment) == "detached"
        await running.quiet()

    world = play(tell)
    assert not access_of(world)
    assert outcomes(world, "R13") == []
    moves = [row["action"] for row in sorted(world.database.tables.rows["audit_log"].values(), key=itemgetter("seq"))]
    assert moves.index("attachment.detached") < moves.index("allocation.released")


@pytest.mark.parametrize("force", [False, True])
def test_a_release_in_the_middle_of_an_attach_undoes_what_was_done_of_it(*, force: bool) -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        running.world.machine("n1").break_next("mount", "slow", 99)
        wish = {"allocation_id": allocation, "namespace_id": "data", "mode": "rw", "mount_path": "/mnt/data"}
        await running.ask("cmd.attachment.attach", "attach", **wish)
        if force:
            await running.force(allocation, "force", "platform_fault")
        else:
            await running.release(allocation, "release")
        await running.until(lambda: running.state("allocation", allocation) == "released")
        await running.quiet()

    world = play(tell)
    assert {each["state"] for each in bodies(world, "attachment")} <= set(ENDED)
    assert not access_of(world)
