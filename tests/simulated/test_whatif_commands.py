"""`ops.whatif.command`: what any command would come to is what it comes to, and asking leaves no trace."""

from collections import Counter
from typing import Any

import pytest

from supervisors.simulation.storage_stories import attach
from supervisors.simulation.world import Refused, Running
from tests.simulated.test_whatif import Row, Written, compared, foretold, play, rented

SUBJECT = "ops.whatif.command"
WHY = {"reason": "because"}


async def tried(running: Running, subject: str, **data: Any) -> Row:
    """What the command would come to; then it is sent, and all that follows has happened."""
    before = Written(running)
    forecast = await foretold(running, SUBJECT, subject=subject, data={**data, **WHY} if "ops." in subject else data)
    assert forecast["refused"] is None
    await running.once(subject, f"{subject} {sorted(data.items())}", **data, **(WHY if "ops." in subject else {}))
    await running.quiet()
    told, happened = compared(forecast), compared(before.since())
    told["cases"] -= settled(running)  # they were there before
    assert told == happened
    return forecast


def settled(running: Running) -> Counter[tuple[Any, ...]]:
    cases = running.world.database.tables.rows["ops_case"].values()
    return Counter((row["kind"], row["target_ref"], "resolved") for row in cases if row["state"] == "resolved")


def test_a_release_a_detach_and_what_is_done_with_a_node_are_what_was_foretold() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        await running.used(allocation, 12.3)
        detached = await tried(running, "cmd.attachment.detach", attachment_id=attachment)
        assert {"entity": f"attachment:{attachment}", "from": "detaching", "to": "detached"}.items() <= next(
            row for row in detached["transitions"] if row["to"] == "detached"
        ).items()
        released = await tried(running, "cmd.allocation.release", allocation_id=allocation)
        assert released["ledger"]
        await tried(running, "ops.node.drain", node_id="n1")
        await tried(running, "ops.node.quarantine", node_id="n1")
        await tried(running, "ops.node.return_to_service", node_id="n1")

    play(tell)


def test_a_cleanup_that_is_tried_again_is_foretold_with_its_end() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        await running.used(allocation, 2.3)
        machine = running.world.machine("n1")
        machine.break_next("user-remove", "refuse", 99)
        await running.once("cmd.allocation.release", "release", allocation_id=allocation)
        await running.until(lambda: bool(running.world.database.tables.rows["ops_case"]))
        machine.mend()
        forecast = await tried(running, "ops.cleanup.retry", allocation_id=allocation)
        assert {"kind": "cleanup_exhausted", "state": "resolved"}.items() <= forecast["cases"][0].items()

    play(tell)


def test_what_would_be_refused_is_told_with_its_reason() -> None:
    async def tell(running: Running) -> None:
        await rented(running)
        forecast = await foretold(running, SUBJECT, subject="ops.node.return_to_service", data={"node_id": "n1", **WHY})
        assert forecast["refused"]["code"] == "illegal_transition"
        assert not any(forecast[name] for name in ("transitions", "steps", "runs"))
        # without a reason too, which a question need not have
        assert (await foretold(running, SUBJECT, subject="ops.node.drain", data={"node_id": "n1"}))["transitions"]

    play(tell)


@pytest.mark.parametrize(
    ("subject", "data", "code", "said"),
    [
        ("ops.no.such", {}, "invalid_request", "ops.no.such has no preview"),
        ("cmd.allocation.request", {}, "invalid_request", "cmd.allocation.request has no preview"),
        ("ops.detector.confirm", {"domain": "a"}, "invalid_request", "no preview for a detector"),
        ("ops.node.drain", {}, "invalid_request", "required field `node_id`"),
        ("ops.node.drain", {"node_id": 3}, "invalid_request", "Expected `str`, got `int`"),
        ("ops.node.drain", {"node_id": "n1", "force": True}, "invalid_request", "unknown field `force`"),
        ("ops.node.drain", {"node_id": "nobody"}, "not_found", "nobody"),
        ("ops.case.resolve", {"case_id": "case_01kf0rdqqaex8sb5x28byz2art"}, "not_found", "there is no case"),
    ],
)
def test_what_cannot_be_foretold_is_said(subject: str, data: Row, code: str, said: str) -> None:
    async def tell(running: Running) -> None:
        await running.account("acme")
        await running.node("n1")
        with pytest.raises(Refused, match=code) as refused:
            await running.ask(SUBJECT, "", subject=subject, data=data)
        assert said in str(refused.value)

    play(tell)
