"""The allocation's decisions: how its customer logs in, a lock-out that failed, retries now, releases in a pause."""

from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from actors.allocation.messages import PostWindow, ReleaseAllocation, RetryCleanup
from actors.node.messages import QuarantineNode, RetireNode, SshAddress, UpdateNode
from amends.turn.decision import Decision
from amends.turn.messages import Envelope
from amends.turn.notify import Notification
from amends.values.errors import Rejected
from amends.values.records import OutboxRow
from tests.adapters.postgres.story import Book, ready_node, requested

KEY = f"ssh-ed25519 {b64encode(b'n1').decode()}"
OTHER_KEY = f"ssh-ed25519 {b64encode(b'another').decode()}"


def shown(decision: Decision) -> Any:
    """The access that a turn's event shows."""
    (event,) = [msgspec.json.decode(row.payload) for row in decision.rows if type(row) is OutboxRow]
    return event["data"]["access"]


def told(decision: Decision, kind: str) -> dict[str, Any]:
    """The body of the notification of that kind that the turn gives birth to."""
    born = [each.state for each in decision.spawned if isinstance(each.state, Notification)]
    (body,) = [each.body for each in born if each.kind == kind]
    return body


def audits(decision: Decision) -> list[str]:
    return [each.action for each in decision.audits]


async def rented(book: Book, node_id: str = "n1") -> tuple[str, Decision]:
    """An active allocation, and the turn that made it so."""
    await ready_node(book, node_id)
    allocation_id = await requested(book, node_id)
    await book.end(f"allocation:{allocation_id}", "ssh.user-create")
    await book.end(f"allocation:{allocation_id}", "ssh.key-install")
    return allocation_id, await book.timer("allocation", allocation_id, "activate")


async def release(book: Book, allocation_id: str) -> Decision:
    return await book.command("allocation", allocation_id, ReleaseAllocation(allocation_id=allocation_id))


async def retry(book: Book, allocation_id: str) -> Decision:
    message = RetryCleanup(allocation_id=allocation_id, reason="now")
    return await book.command("allocation", allocation_id, message, caller="operator:ada")


# --- access ----------------------------------------------------------------------------------------------


async def test_an_active_allocation_says_how_its_customer_logs_in(book: Book) -> None:
    allocation_id, activation = await rented(book)
    digest = b64encode(sha256(b64decode(KEY.split(" ")[1])).digest()).decode().rstrip("=")
    access = {
        "user": f"am-{allocation_id.removeprefix('alloc_')}", "host": "localhost", "port": 22, "host_key": KEY,
        "fingerprint": f"SHA256:{digest}",
    }  # fmt: skip
    assert shown(activation) == told(activation, "allocation.active")["access"] == access
    # and the reply to a release does so too
    released = await release(book, allocation_id)
    assert released.reply_data()["allocation"]["access"] == access


async def test_nobody_is_told_an_address_before_it_is_of_use(book: Book) -> None:
    await ready_node(book, "n1")
    allocation_id = await requested(book, "n1")
    await move(book)  # while it is set up: the customer gets the newest address with the activation
    assert book.state("allocation", allocation_id).rental.access is None
    await book.end(f"allocation:{allocation_id}", "ssh.user-create")
    await book.end(f"allocation:{allocation_id}", "ssh.key-install")
    activation = await book.timer("allocation", allocation_id, "activate")
    assert (shown(activation)["host"], shown(activation)["host_key"]) == ("10.0.0.7", OTHER_KEY)


async def move(book: Book) -> list[Decision]:
    """The machine of n1 gets another address and key; the turns that follow."""
    turns: list[Decision] = []
    tell = book.tell

    async def noted(kind: str, identifier: str, env: Envelope) -> Decision:
        decision = await tell(kind, identifier, env)
        turns.append(decision)
        return decision

    book.tell = noted  # type: ignore[method-assign]
    moved = SshAddress(host="10.0.0.7", port=2222, host_key=OTHER_KEY)
    await book.command("node", "n1", UpdateNode(node_id="n1", ssh=moved, reason="moved"), caller="operator:ada")
    book.tell = tell  # type: ignore[method-assign]
    return [turn for turn in turns if turn.kind.name == "allocation"]


async def test_the_customer_of_a_machine_that_moves_is_told_the_truth(book: Book) -> None:
    allocation_id, _ = await rented(book)
    (turn,) = await move(book)
    assert (shown(turn)["host"], shown(turn)["port"], shown(turn)["host_key"]) == ("10.0.0.7", 2222, OTHER_KEY)
    assert told(turn, "allocation.active")["access"] == shown(turn)
    assert "allocation.access_changed" in audits(turn)
    assert book.state("allocation", allocation_id).state == "active"
    # and once: the same address again is no news
    (again,) = await move(book)
    assert (again.rows, again.spawned) == ([], [])


# --- windows ---------------------------------------------------------------------------------------------


async def test_a_meter_that_has_stopped_has_no_next_window(book: Book) -> None:
    allocation_id, _ = await rented(book)
    known, hour_us = book.state("allocation", allocation_id), 3_600_000_000
    meter_id, first_us = known.billing.meter_id, known.rental.activated_us - known.rental.activated_us % hour_us
    before = PostWindow(
        meter_id=meter_id, window_start_us=first_us - hour_us, amount_minor=0, delivery_id="d", reason="r"
    )
    book.now_us += 3 * hour_us
    running = await book.command("allocation", allocation_id, before, caller="operator:ada")
    await release(book, allocation_id)
    book.now_us += 3 * hour_us
    stopped = await book.command("allocation", allocation_id, before, caller="operator:ada")
    refusals = [turn.declined for turn in (running, stopped)]
    assert [refused.code for refused in refusals if refused is not None] == ["window_not_due"] * 2
    due, none = [refused.details["due"] for refused in refusals if refused is not None]
    assert (due["window_start_us"], none) == (first_us, None)


# --- lock-out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["lock", "retired"])
async def test_a_release_without_a_lock_out_has_a_case_at_once_which_ends_with_the_lock(book: Book, ends: str) -> None:
    # given a customer who cannot be locked out
    allocation_id, _ = await rented(book)
    await release(book, allocation_id)
    entity = f"allocation:{allocation_id}"
    turn = await book.end(entity, "ssh.user-lock", "failed", "ssh_retryable", "no room below /var/lib/amends")
    # then the release commits, its meter stopped, with a case that says so
    state = book.state("allocation", allocation_id)
    assert (state.state, state.billing.state, list(state.cases)) == ("released", "stopped", ["lockout_failed"])
    assert told(turn, "case.opened")["cause"] == "lockout_failed"
    # when it goes well after all, or the machine is given up
    if ends == "lock":
        await book.end(entity, "ssh.user-lock")
    else:
        for message in (
            QuarantineNode(node_id="n1", reason="gone"),
            RetireNode(node_id="n1", reason="gone", acknowledge_lost=True),
        ):
            await book.command("node", "n1", message, caller="operator:ada")
    assert book.state("allocation", allocation_id).cases == {}


async def test_a_cleanup_that_is_spent_has_a_case_until_it_is_done(book: Book) -> None:
    # given a user that cannot be removed, however often that is tried
    allocation_id, _ = await rented(book)
    await release(book, allocation_id)
    entity = f"allocation:{allocation_id}"
    turn = await book.end(entity, "ssh.user-lock")
    tries = turn.limits("cleanup_tries")
    for _ in range(tries):
        assert book.state("allocation", allocation_id).cases == {}
        turn = await book.end(entity, "ssh.user-remove", "failed", "ssh_step_failed", "no")
    # then it is tried no more, and a case is open, which no failure resolves
    state = book.state("allocation", allocation_id)
    assert (list(state.cases), state.cleanup.attempts, state.runs) == (["cleanup_exhausted"], tries, {})
    assert [step.name for step in turn.steps if step.entity == entity] == []


# --- retry means now -------------------------------------------------------------------------------------


async def test_a_retry_during_back_off_is_the_next_try_now(book: Book) -> None:
    allocation_id, _ = await rented(book)
    await release(book, allocation_id)
    entity = f"allocation:{allocation_id}"
    await book.end(entity, "ssh.user-lock")
    await book.end(entity, "ssh.user-remove", "failed", "ssh_connect_failed")
    turn = await retry(book, allocation_id)
    assert (turn.hastened, turn.steps) == (["node:n1"], [])
    assert audits(turn) == ["allocation.cleanup_retry"]
    # and it counts as the try that it is
    await book.end(entity, "ssh.user-remove", "failed", "ssh_connect_failed")
    assert list(book.state("allocation", allocation_id).cases) == ["cleanup_exhausted"]
    # when it was given up, then it is a new run
    turn = await retry(book, allocation_id)
    assert (turn.hastened, [step.name for step in turn.steps]) == ([], ["ssh.user-remove"])
    await book.end(entity, "ssh.user-remove")
    with pytest.raises(Rejected, match="owes no cleanup"):
        await retry(book, allocation_id)


# --- a release while it is paused ------------------------------------------------------------------------


def pause(book: Book, allocation_id: str, *, paused: bool = True) -> None:
    state = book.state("allocation", allocation_id)
    book.facts.states["allocation", allocation_id] = msgspec.structs.replace(state, paused=paused)


async def test_a_paused_allocation_takes_its_release_and_the_meter_stops_at_that_instant(book: Book) -> None:
    # given a paused rental that is released, twice
    allocation_id, _ = await rented(book)
    pause(book, allocation_id)
    first = await release(book, allocation_id)
    again = await release(book, allocation_id)
    accepted = first.reply_data()["accepted_us"]
    assert again.reply_data()["accepted_us"] == accepted == first.now_us
    state = book.state("allocation", allocation_id)
    assert (state.state, state.billing.stopped_us, state.timers) == ("active", None, {"leave": accepted})
    # when it goes on, then its meter has stopped then
    pause(book, allocation_id, paused=False)
    await book.timer("allocation", allocation_id, "leave")
    state = book.state("allocation", allocation_id)
    assert (state.state, state.billing.stopped_us, state.ending.cause) == ("releasing", accepted, "user")


async def test_a_release_of_one_that_is_paused_in_its_set_up_is_not_forgotten(book: Book) -> None:
    await ready_node(book, "n1")
    allocation_id = await requested(book, "n1")
    pause(book, allocation_id)
    accepted = (await release(book, allocation_id)).reply_data()["accepted_us"]
    pause(book, allocation_id, paused=False)
    await book.timer("allocation", allocation_id, "leave")
    assert book.state("allocation", allocation_id).state == "provisioning"
    await book.end(f"allocation:{allocation_id}", "ssh.user-create")
    await book.end(f"allocation:{allocation_id}", "ssh.user-remove")
    state = book.state("allocation", allocation_id)
    assert (state.state, state.failure_code, state.ending.accepted_us) == ("failed", "cancelled", accepted)
