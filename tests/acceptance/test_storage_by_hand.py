"""R11 to R14 from outside, provider and agent both played by hand: each answer they may give, and what comes of it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from tests.acceptance.records import all_is_well, audit, cases, ended_run, runs
from tests.acceptance.storage import QUOTA, HandMachine, Storage
from tests.acceptance.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

Said = dict[str, Any]
OK = {"status": "ok", "retryable": False}
SOURCE = {"type": "bind", "path": "/srv/data"}
ACCESS, NONE = {"granted": True, "mode": "rw"}, {"granted": False, "mode": ""}
BACK = ("reverse", "external_call", "success")
UNMOUNTED = ("reverse", "side_effect", "success")
SILENCE: Said = {"silence": True}
NOBODY: Said = {}  # whatever the op says when nothing is wrong


class HandProvider:
    """A provider whose next answers are written down; without any it does what it is asked."""

    def __init__(self, world: World) -> None:
        self.world, self.provider_id = world, world.new_name("hand")
        self.granted: dict[str, str] = {}  # grant → mode
        self.next: dict[str, list[Said]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.used_bytes, self.enforced = 10, True
        self.can: Said = {
            "modes": ["ro", "rw"], "multi_attach": False, "mount_path_prefixes": ["/"], "enforcement": "quota",
        }  # fmt: skip

    async def start(self) -> None:
        """Serve."""
        self._subscription = await self.world.nats.subscribe(
            f"amends.v1.provider.{self.provider_id}.*", cb=self._answer
        )
        await self.world.nats.flush()

    async def stop(self) -> None:
        await self._subscription.unsubscribe()

    def ops(self) -> list[str]:
        """What it was asked about access, in order."""
        return [op for op, _ in self.asked if op not in ("usage", "capabilities")]

    async def _answer(self, message: Any) -> None:
        op, body = message.subject.rpartition(".")[2], json.loads(message.data)
        self.asked.append((op, body))
        waiting = self.next.get(op) or [NOBODY]
        said = waiting.pop(0)
        if not said.get("refuses"):
            self._do(op, body)
        if "silence" not in said:
            reply = {**self._plainly(op, body), **{key: value for key, value in said.items() if key != "refuses"}}
            await message.respond(said["raw"] if "raw" in said else json.dumps(reply).encode())

    def _do(self, op: str, body: dict[str, Any]) -> None:
        if op == "grant":
            self.granted[body["grant_id"]] = body["mode"]
        elif op == "revoke":
            self.granted.pop(body["grant_id"], None)

    def _plainly(self, op: str, body: dict[str, Any]) -> Said:
        if op == "capabilities":
            return self.can
        if op == "usage":
            return {"used_bytes": self.used_bytes, "as_of_us": time.time_ns() // 1000, "enforced": self.enforced}
        observed = {"granted": body["grant_id"] in self.granted, "mode": self.granted.get(body["grant_id"], "")}
        return {**OK, "observed": observed, **({"source": SOURCE} if op == "grant" else {})}


class ScriptedMachine(HandMachine):
    """A machine whose agent says what is written down; without any it does what it is told."""

    def __init__(self, world: World, node_id: str) -> None:
        super().__init__(world, node_id)
        self.next: dict[str, list[Said]] = {}
        self.mounted: set[str] = set()
        self.said: dict[str, Said] = {}

    async def _on_task(self, message: Any) -> None:
        task = json.loads(message.data)
        op = task["op"]
        if op == "reconcile":
            await super()._on_task(message)
            return
        if task["task_id"] not in self._tasks:
            self._tasks[task["task_id"]] = task
            script = self.next.get(op) or [NOBODY]
            said = script.pop(0)
            self.said[task["task_id"]] = {**self._do(task, keeps=bool(said.get("refuses"))), **said}
        result = self.said[task["task_id"]]
        if "silence" not in result:
            await self.says(task, **{key: value for key, value in result.items() if key != "refuses"})

    def _do(self, task: dict[str, Any], *, keeps: bool) -> Said:
        attachment = task["attachment_id"]
        if task["op"] == "mount" and not keeps:
            self.mounted.add(attachment)
        if task["op"] == "unmount" and not keeps:
            self.mounted.discard(attachment)
        return {"status": "ok", "observed": {"mounted": attachment in self.mounted, "mode": task["mode"]}}


class Hand(Storage[ScriptedMachine]):
    """A rental on such a machine, and a namespace of such a provider."""

    def __init__(self, world: World, provider: HandProvider, machine: ScriptedMachine) -> None:
        self.world, self.hand, self.machine = world, provider, machine

    async def begin(self) -> None:
        self.namespace = self.world.new_name("ns")
        self.allocation = await self.world.rent(node_id=self.machine.node_id)
        await self.world.ok("cmd.namespace.create", {
            "namespace_id": self.namespace, "account_id": "acme", "provider_id": self.hand.provider_id,
            "quota_bytes": QUOTA,
        })  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module")
async def hand(world: World) -> AsyncIterator[Hand]:
    """Ready to be attached; afterwards everything must be well."""
    provider = HandProvider(world)
    await provider.start()
    machine = await world.enlist(ScriptedMachine(world, world.new_name("h")))
    made = Hand(world, provider, machine)
    await made.begin()
    yield made
    await world.release(made.allocation)
    await world.cleaned(made.allocation)
    await all_is_well(world)
    await machine.stop()
    await provider.stop()


async def _told(hand: Hand, **can: Any) -> None:
    """The provider can something else from now on, and has said so."""
    hand.hand.can |= can
    await reads(hand, 1)


async def reads(hand: Hand, more: int) -> None:
    """So many more questions of usage are answered."""
    begun = sum(op == "usage" for op, _ in hand.hand.asked)

    async def check() -> bool:
        return sum(op == "usage" for op, _ in hand.hand.asked) > begun + more

    await until(check, f"{more} more reads")


async def _of_another(hand: Hand) -> None:
    """The namespace is another account's."""
    hand.namespace = hand.world.new_name("ns")
    account = await hand.world.account()
    await hand.world.ok("cmd.namespace.create", {
        "namespace_id": hand.namespace, "account_id": account, "provider_id": hand.hand.provider_id,
        "quota_bytes": QUOTA,
    })  # fmt: skip


async def _archived(hand: Hand) -> None:
    await hand.world.ok("cmd.namespace.archive", {"namespace_id": hand.namespace})


async def _released(hand: Hand) -> None:
    await hand.world.release(hand.allocation)


async def _draining(hand: Hand) -> None:
    """For good: it is released all the same."""
    await hand.world.ok("ops.node.drain", {"node_id": hand.machine.node_id, "reason": "a new disk"})


async def _one_read_above(hand: Hand) -> None:
    hand.hand.next["usage"] = [{"used_bytes": QUOTA + 1}, {**SILENCE}]
    await reads(hand, 1)


async def _far_above(hand: Hand) -> None:
    hand.hand.used_bytes = 2 * QUOTA

    async def check() -> Any:
        return (await hand.about())["rw_blocked"]

    await until(check, "blocked")


async def _taken(hand: Hand) -> None:
    await hand.attach("attached")


SPOILED: dict[str, Callable[[Hand], Awaitable[None]]] = {
    "allocation_not_active": _released,
    "account_mismatch": _of_another,
    "grant_not_permitted": _archived,
    "node_not_ready": _draining,
    "quota_exceeded": _one_read_above,
    "quota_blocked": _far_above,
    "capability_missing": partial(_told, modes=["ro"]),
    "mount_path_not_allowed": partial(_told, mount_path_prefixes=["/data"]),
    "mount_path_taken,namespace_busy": _taken,
}


@pytest.mark.parametrize("reason", SPOILED)
async def test_what_cannot_be_attached_has_failed_and_nobody_was_asked(hand: Hand, reason: str) -> None:
    await reads(hand, 1)  # the provider has answered once
    await SPOILED[reason](hand)
    asked, tasks = len(hand.hand.ops()), len(hand.machine.tasks("mount"))
    row = await hand.attach("failed")
    assert row["reason"] == reason
    run = await ended_run(hand.world, f"attachment:{row['attachment_id']}", "R10")
    assert (run.row["final_outcome"], undone(run)) == ("recovered", [("cancel", "decision", "success")])
    assert (len(hand.hand.ops()), len(hand.machine.tasks("mount"))) == (asked, tasks)
    assert row["grant_id"] is None


def undone(run: Any) -> list[tuple[str, str, str]]:
    return [(each["compensation_type"], each["compensated_action_type"], each["outcome"]) for each in run.compensations]


def error(code: str, *, retryable: bool = False, **more: Any) -> Said:
    return {"status": "error", "retryable": retryable, "code": code, "message": code, **more}


# What the provider answers, and the reason that the attachment failed with; "" where it is attached after all.
GRANTS: dict[str, tuple[dict[str, list[Said]], str]] = {
    "refused for good": ({"grant": [error("full", refuses=True)]}, "full"),
    "refused for good, and nothing seen": ({"grant": [error("full", refuses=True, observed={})]}, "full"),
    "refused for now, then granted": ({"grant": [error("busy", retryable=True, refuses=True)]}, ""),
    "refused for now, always": ({"grant": [error("busy", retryable=True, refuses=True)] * 9}, "busy"),
    "granted in part": ({"grant": [{"status": "partial", "code": "half", "retryable": False}]}, "half"),
    "granted, and nothing said": ({"grant": [SILENCE]}, ""),
    "never answered, nor granted": ({"grant": [{**SILENCE, "refuses": True}] * 9}, "provider_timeout"),
    "not a word of JSON": ({"grant": [{"raw": b"\xff{"}] * 9}, "provider_malformed"),
    "said to be granted, and is not": ({"grant": [{"refuses": True, "observed": ACCESS}] * 9}, "not_granted"),
}


@pytest.mark.parametrize("name", GRANTS)
async def test_each_answer_to_a_grant(hand: Hand, name: str) -> None:
    hand.hand.next, reason = GRANTS[name]
    hand.hand.next = {op: list(said) for op, said in hand.hand.next.items()}
    row = await hand.attach()
    assert (row["state"], row["reason"] or "") == ("failed" if reason else "attached", reason)
    if not reason:
        assert (hand.hand.ops()[-1], len(hand.hand.granted)) == ("verify", 1)
        run = await ended_run(hand.world, f"attachment:{row['attachment_id']}", "R11")  # of the first try
        assert (run.row["final_outcome"], undone(run)) == ("recovered", [])
        return
    run = await ended_run(hand.world, f"attachment:{row['attachment_id']}", "R11")
    assert (run.row["final_outcome"], undone(run)) == ("recovered", [BACK])
    assert hand.hand.ops()[-2:] == ["revoke", "verify"]
    assert (hand.hand.granted, hand.machine.tasks("mount")) == ({}, [])
    assert len({body["grant_id"] for _, body in hand.hand.asked if "grant_id" in body}) == 1


async def test_access_that_stays_after_its_revoke_is_a_drift(hand: Hand) -> None:
    hand.hand.next = {"grant": [{"status": "partial", "code": "half"}], "revoke": [{"refuses": True}] * 99}
    row = await hand.attach("failed")
    run = await ended_run(hand.world, f"attachment:{row['attachment_id']}", "R11")
    assert run.row["final_outcome"] == "failed"
    assert undone(run) == [("reverse", "external_call", "failure"), ("compensate", "state_change", "success")]
    (case,) = await cases(hand.world, f"attachment:{row['attachment_id']}")
    assert (case["kind"], case["state"]) == ("provider_drift", "open")
    assert (await hand.attach("failed"))["reason"] == "blocked_by_drift"
    hand.hand.next = {}
    await hand.world.ok("ops.provider.reconcile", {
        "namespace_id": hand.namespace, "node_id": hand.machine.node_id, "reason": "it is mended",
    })  # fmt: skip
    await ended_run(hand.world, f"namespace:{hand.namespace}", "R11")
    assert hand.hand.granted == {}


# What the agent says to mount and probe, the reason, and whether an unmount must go out.
NOT_MOUNTED: Said = {"observed": {"mounted": False}}
MOUNTED: Said = {"observed": {"mounted": True, "mode": "rw"}}
MOUNTS: dict[str, tuple[dict[str, list[Said]], str, bool]] = {
    "it fails and nothing is there": (
        {"mount": [error("mount_failed", refuses=True, **NOT_MOUNTED)]},
        "mount_failed",
        False,
    ),
    "it fails and is there": ({"mount": [error("mount_failed", **MOUNTED)]}, "mount_failed", True),
    "nothing is said": ({"mount": [SILENCE]}, "agent_timeout", True),
    "the probe misses it": ({"probe_mount": [error("missing", **NOT_MOUNTED)]}, "missing", False),
    "the probe finds it stale": ({"probe_mount": [error("stale", **MOUNTED)]}, "stale", True),
    "the probe finds it read-only": (
        {"probe_mount": [error("ro", observed={"mounted": True, "mode": "ro"})]},
        "ro",
        True,
    ),
    "the probe is well and read-only": ({"probe_mount": [{"observed": {"mounted": True, "mode": "ro"}}]}, "ro", True),
    "nothing is said of the probe": ({"probe_mount": [SILENCE]}, "agent_timeout", True),
}


@pytest.mark.parametrize("name", MOUNTS)
async def test_each_answer_to_a_mount_and_its_probe(hand: Hand, name: str) -> None:
    script, reason, unmounts = MOUNTS[name]
    hand.machine.next = {op: list(said) for op, said in script.items()}
    row = await hand.attach("failed")
    assert row["reason"] == reason
    run = await ended_run(hand.world, f"attachment:{row['attachment_id']}", "R12")
    assert (run.row["final_outcome"], undone(run)) == ("recovered", [UNMOUNTED] * unmounts + [BACK])
    assert len(hand.machine.tasks("unmount")) == unmounts
    assert hand.hand.granted == {}
    mount = hand.machine.tasks("mount")[0]
    for task in hand.machine.tasks("unmount"):
        assert (task["attempt_id"], task["attachment_id"]) == (mount["attempt_id"], mount["attachment_id"])


async def test_a_mount_that_has_failed_and_says_later_that_it_is_done_is_unmounted(hand: Hand) -> None:
    hand.machine.next = {"mount": [error("mount_failed", refuses=True, **NOT_MOUNTED)]}
    row = await hand.attach("failed")
    (mount,) = hand.machine.tasks("mount")
    assert hand.machine.tasks("unmount") == []
    await hand.world.nats.publish(f"amends.v1.result.{hand.machine.node_id}", b"{")  # it is nobody's
    await hand.machine.says(mount, "ok", observed={"mounted": True, "mode": "rw"})

    async def unmounted() -> list[dict[str, Any]]:
        return hand.machine.tasks("unmount")

    (task,) = await until(unmounted, "it is unmounted")
    assert task["attempt_id"] == mount["attempt_id"]
    assert (await hand.row(row["attachment_id"]))["state"] == "failed"


# What the agent says to each try of an unmount, and whether it is detached.
UNMOUNTS: dict[str, tuple[list[Said], bool]] = {
    "busy once": ([error("busy", refuses=True, holders=["sh 7: cwd"], **MOUNTED)], True),
    "not mounted any more": ([{"status": "noop", **NOT_MOUNTED}], True),
    "it fails and nothing is there": ([error("unmount_failed", **NOT_MOUNTED)], True),
    "silent once": ([SILENCE], True),
    "busy for good": ([error("busy", refuses=True, holders=["sh 7: cwd"], **MOUNTED)] * 99, False),
}


@pytest.mark.parametrize("name", UNMOUNTS)
async def test_each_answer_to_an_unmount(hand: Hand, name: str) -> None:
    script, detached = UNMOUNTS[name]
    row = await hand.attach("attached")
    hand.machine.next = {"unmount": list(script)}
    identifier = row["attachment_id"]
    await hand.world.ok("cmd.attachment.detach", {"attachment_id": identifier})
    row = await hand.comes_to(identifier, "detached", "detach_failed")
    assert row["state"] == ("detached" if detached else "detach_failed")
    tasks = hand.machine.tasks("unmount")
    assert len({task["task_id"] for task in tasks}) == len(tasks)
    if detached:
        found = await runs(hand.world, f"attachment:{identifier}", "R13")
        assert [(run.row["final_outcome"], undone(run)) for run in found] == [("recovered", [])] * (len(tasks) - 1)
        assert hand.hand.granted == {}
        return
    assert "revoke" not in hand.hand.ops(), "while the node lives and it may be mounted, access stays"
    (case,) = await cases(hand.world, f"attachment:{identifier}")
    assert (case["kind"], case["evidence"]["holders"]) == ("detach_failed", ["sh 7: cwd"])
    hand.machine.next = {}
    await hand.world.ok("ops.attachment.retry_detach", {"attachment_id": identifier, "reason": "it has ended"})
    await hand.comes_to(identifier, "detached")
    assert hand.hand.granted == {}


async def test_above_quota_by_one_read_and_by_two_and_far_above(hand: Hand) -> None:
    async def is_(flag: bool) -> Any:
        async def check() -> bool:
            return bool((await hand.about())["rw_blocked"]) is flag

        return await until(check, f"blocked: {flag}")

    # 101 and 99 in turn block nobody
    hand.hand.next["usage"] = [{"used_bytes": QUOTA * percent // 100} for percent in (101, 99) * 4]
    await reads(hand, 8)
    assert await runs(hand.world, f"namespace:{hand.namespace}", "R14") == []
    # 111 does at once, 96 does not clear it, 95 twice does
    hand.hand.used_bytes = QUOTA * 111 // 100
    await is_(True)
    hand.hand.used_bytes = QUOTA * 96 // 100
    await reads(hand, 4)
    assert (await hand.about())["rw_blocked"]
    hand.hand.used_bytes = QUOTA * 95 // 100
    await is_(False)
    run = await ended_run(hand.world, f"namespace:{hand.namespace}", "R14")
    assert undone(run) == [("compensate", "state_change", "success")]
    assert len(await runs(hand.world, f"namespace:{hand.namespace}", "R14")) == 1


async def test_five_reads_that_fail_are_an_episode_and_an_old_one_is_a_failed_one(hand: Hand) -> None:
    await asyncio.sleep(0)
    hand.hand.next["usage"] = [{"as_of_us": 1}] * 5

    async def flag() -> Any:
        return (await hand.about())["quota_flag"]

    assert await until(flag, "it is flagged") == "unknown"
    assert (await hand.about())["rw_blocked"]
    run = await ended_run(hand.world, f"namespace:{hand.namespace}", "R14")
    assert undone(run) == [("compensate", "state_change", "success")]


async def test_over_and_unenforced_are_an_episode_each_one_after_the_other(hand: Hand) -> None:
    async def flagged(flag: str | None) -> None:
        async def check() -> bool:
            return bool((await hand.about())["quota_flag"] == flag)

        await until(check, f"flagged {flag}")

    hand.hand.enforced = False
    await flagged("unenforced")
    hand.hand.used_bytes, hand.hand.enforced = QUOTA * 120 // 100, True
    await flagged("over")
    hand.hand.used_bytes, hand.hand.enforced = QUOTA // 2, False
    await flagged("unenforced")
    hand.hand.used_bytes = QUOTA * 120 // 100
    await flagged("over")
    hand.hand.used_bytes, hand.hand.enforced = QUOTA // 2, True
    await flagged(None)
    entity = f"namespace:{hand.namespace}"
    found = await runs(hand.world, entity, "R14")
    assert [(run.row["final_outcome"], undone(run)) for run in found] == [
        ("recovered", [("compensate", "state_change", "success")])
    ] * 4
    assert [each.partition(".")[2] for each in await audit(hand.world, entity) if "blocked" in each] == [
        "blocked", "blocked", "unblocked", "blocked", "blocked", "unblocked"
    ]  # fmt: skip
