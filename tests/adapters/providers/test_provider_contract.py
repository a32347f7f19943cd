"""One contract for storage providers, simulated, as a service over a scripted backend, and as the program on NFS."""

import asyncio
from typing import Any

import pytest

from amends.ports.steps import Outcome
from tests.adapters.providers.benches import Bench, Holding, World, again

ACCESS = {("data", "10.0.0.5"): "rw"}
NOBODY = {"granted": False, "mode": ""}
EVERYBODY = {"granted": True, "mode": "rw"}


def said(outcome: Outcome) -> tuple[str, str]:
    return outcome.kind, outcome.code


async def test_a_grant_gives_access_its_revoke_takes_it_and_verify_says_so(bench: Bench[World]) -> None:
    granted = await bench.ask("grant")
    assert said(granted) == ("done", "")
    assert granted.data["observed"] == EVERYBODY
    assert granted.data["source"]["type"] == ("nfs" if bench.kind == "nfs" else "bind")
    assert (await bench.ask("verify")).data == EVERYBODY
    assert bench.world.access() == ACCESS
    assert await bench.ask("revoke") == Outcome("done")
    assert (await bench.ask("verify")).data == NOBODY
    assert bench.world.access() == {}


async def test_whatever_is_asked_the_contents_of_a_namespace_stay_as_they_are(holding: Bench[Holding]) -> None:
    before = holding.world.checksum()
    assert len(before) == 64
    for mode in ("ro", "rw"):
        assert said(await holding.ask("grant", f"grant_{mode}", mode=mode)) == ("done", "")
    for op in ("usage", "capabilities"):
        assert said(await holding.ask(op)) == ("done", "")
    assert await holding.ask("revoke", "grant_ro") == Outcome("done")
    holding.world.break_next("revoke", "keep")
    await holding.ask("revoke", "grant_rw")
    await again(holding)
    assert await holding.ask("revoke", "grant_rw") == Outcome("done")
    assert holding.world.access() == {}
    assert holding.world.checksum() == before


async def test_a_list_has_the_grants_that_give_access_and_no_other(bench: Bench[World]) -> None:
    assert (await bench.ask("grants")).data == {"grants": [], "whole": True}
    await bench.ask("grant")
    await bench.ask("grant", "grant_2", node_address="10.0.0.6", node_id="n2", mode="ro")
    first, second = ({"grant_id": "grant_1", "node_id": "n1", "mode": "rw"},
                     {"grant_id": "grant_2", "node_id": "n2", "mode": "ro"})  # fmt: skip
    assert (await bench.ask("grants")).data == {"grants": [first, second], "whole": True}
    await bench.ask("revoke")
    assert (await bench.ask("grants")).data == {"grants": [second], "whole": True}
    bench.world.break_next("revoke", "keep")
    await bench.ask("revoke", "grant_2")
    assert (await bench.ask("grants")).data == {"grants": [second], "whole": True}


async def test_a_grant_that_is_asked_for_twice_is_one_and_says_the_same(bench: Bench[World]) -> None:
    first = await bench.ask("grant", mode="ro")
    assert await bench.ask("grant", mode="ro") == first
    assert bench.world.access() == {("data", "10.0.0.5"): "ro"}
    await bench.ask("revoke")
    assert bench.world.access() == {}


async def test_a_grant_that_comes_after_its_revoke_is_refused_for_good(bench: Bench[World]) -> None:
    await bench.ask("grant")
    await bench.ask("revoke")
    late = await bench.ask("grant")
    assert (said(late), late.data) == (("failed", "revoked"), {"retryable": False})
    assert (await bench.ask("verify")).data == NOBODY
    assert bench.world.access() == {}

    assert await bench.ask("revoke") == Outcome("done")
    assert await bench.ask("revoke") == Outcome("done")
    assert (await bench.ask("verify")).data == NOBODY
    assert said(await bench.ask("grant")) == ("failed", "revoked")
    assert bench.world.access() == {}
    assert said(await bench.ask("grant", "grant_2")) == ("done", "")


async def test_of_a_grant_whose_reply_is_lost_nobody_knows_until_one_looks(bench: Bench[World]) -> None:
    bench.world.break_next("grant", "lose")
    lost = await bench.ask("grant", timeout_ms=300)
    assert (said(lost), lost.may_have_run) == (("unknown", "provider_timeout"), True)
    assert (await bench.ask("verify")).data == EVERYBODY
    assert await bench.ask("revoke") == Outcome("done")
    assert bench.world.access() == {}


async def test_a_revoke_whose_reply_is_lost_is_sent_again_and_is_ok(bench: Bench[World]) -> None:
    await bench.ask("grant")
    bench.world.break_next("revoke", "lose")
    assert said(await bench.ask("revoke", timeout_ms=300)) == ("unknown", "provider_timeout")
    assert await bench.ask("revoke") == Outcome("done")
    assert (await bench.ask("verify")).data == NOBODY
    assert bench.world.access() == {}


async def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_its_time(bench: Bench[World]) -> None:
    bench.world.break_next("grant", "hang")
    began = asyncio.get_running_loop().time()
    assert said(await bench.ask("grant", timeout_ms=400)) == ("unknown", "provider_timeout")
    assert 0.39 <= asyncio.get_running_loop().time() - began < 5


async def test_what_fails_says_so_and_the_next_try_is_done(bench: Bench[World]) -> None:
    bench.world.break_next("grant", "fail")
    failed = await bench.ask("grant")
    assert (failed.kind, failed.data, failed.may_have_run) == ("failed", {"retryable": True}, True)
    assert failed.code
    assert failed.message
    assert said(await bench.ask("grant")) == ("done", "")
    assert bench.world.access() == ACCESS


async def test_what_is_half_done_says_so_and_can_be_taken_back(bench: Bench[World]) -> None:
    bench.world.break_next("grant", "partial")
    half = await bench.ask("grant")
    assert (half.kind, half.data, half.may_have_run) == ("failed", {"retryable": True, "partial": True}, True)
    assert half.code
    assert bench.world.access() != {}
    assert await bench.ask("revoke") == Outcome("done")
    assert (await bench.ask("verify")).data == NOBODY
    assert bench.world.access() == {}


async def test_a_revoke_that_leaves_access_is_seen_by_verify(bench: Bench[World]) -> None:
    await bench.ask("grant")
    bench.world.break_next("revoke", "keep")
    first = await bench.ask("revoke")
    assert first == Outcome("done") or first.data["partial"]  # one that looks itself says no
    assert (await bench.ask("verify")).data == EVERYBODY
    assert await bench.ask("revoke") == Outcome("done")
    assert (await bench.ask("verify")).data == NOBODY


async def test_a_lower_epoch_than_the_highest_seen_is_refused_after_a_restart_too(bench: Bench[World]) -> None:
    assert said(await bench.ask("grant", epoch=7)) == ("done", "")
    for op in ("revoke", "verify", "usage", "capabilities", "grant"):
        late = await bench.ask(op, epoch=6)
        assert said(late) == ("failed", "stale_epoch")
        assert "stale runtime epoch 6, highest seen 7" in late.message
    await again(bench)
    assert said(await bench.ask("revoke", epoch=6)) == ("failed", "stale_epoch")
    assert bench.world.access() == ACCESS
    assert said(await bench.ask("revoke", epoch=8)) == ("done", "")


async def test_grants_and_tombstones_outlive_the_provider(bench: Bench[World]) -> None:
    await bench.ask("grant", "grant_kept", node_id="n2", node_address="10.0.0.6")
    await bench.ask("grant", "grant_gone")
    await bench.ask("revoke", "grant_gone")
    await again(bench)
    assert (await bench.ask("verify", "grant_kept", node_id="n2")).data == EVERYBODY
    assert bench.world.access() == {("data", "10.0.0.6"): "rw"}
    assert said(await bench.ask("grant", "grant_gone")) == ("failed", "revoked")
    assert await bench.ask("revoke", "grant_kept", node_id="n2") == Outcome("done")
    assert bench.world.access() == {}


async def test_a_provider_killed_in_the_middle_of_a_revoke_finishes_it_when_asked_again(bench: Bench[World]) -> None:
    await bench.ask("grant")
    bench.world.break_next("revoke", "hang")
    assert said(await bench.ask("revoke", timeout_ms=300)) == ("unknown", "provider_timeout")
    await again(bench)
    assert await bench.ask("revoke") == Outcome("done")
    assert (await bench.ask("verify")).data == NOBODY
    assert bench.world.access() == {}
    assert said(await bench.ask("grant")) == ("failed", "revoked")


async def test_requests_of_one_grant_that_come_at_once_are_done_one_after_another(bench: Bench[World]) -> None:
    asked = [bench.ask("revoke" if number == 5 else "grant") for number in range(10)]
    outcomes = await asyncio.gather(*asked)
    assert outcomes[5] == Outcome("done")
    assert {said(each) for each in outcomes} <= {("done", ""), ("failed", "revoked")}
    assert (await bench.ask("verify")).data == NOBODY
    assert bench.world.access() == {}


async def test_two_grants_of_one_access_are_one_and_the_wider_mode_holds(bench: Bench[World]) -> None:
    await bench.ask("grant", "grant_1", mode="ro")
    await bench.ask("grant", "grant_2", mode="rw")
    assert bench.world.access() == ACCESS
    assert await bench.ask("revoke", "grant_2") == Outcome("done")
    assert (await bench.ask("verify", "grant_2")).data == NOBODY
    assert (await bench.ask("verify", "grant_1")).data == {"granted": True, "mode": "ro"}
    assert bench.world.access() == {("data", "10.0.0.5"): "ro"}
    assert await bench.ask("revoke", "grant_1") == Outcome("done")
    assert bench.world.access() == {}


async def test_access_of_others_is_left_alone(bench: Bench[World]) -> None:
    await bench.ask("grant", "grant_1")
    await bench.ask("grant", "grant_2", node_id="n2", node_address="10.0.0.6")
    await bench.ask("revoke", "grant_1")
    assert bench.world.access() == {("data", "10.0.0.6"): "rw"}


@pytest.mark.parametrize(
    "other", [{"namespace_id": "else"}, {"node_id": "n2"}, {"mode": "ro"}, {"node_address": "10.0.0.9"}]
)
async def test_a_grant_is_what_it_was_when_it_was_first_asked_for(bench: Bench[World], other: dict[str, Any]) -> None:
    await bench.ask("grant")
    refused = await bench.ask("grant", **other)
    assert (said(refused), refused.data) == (("failed", "grant_mismatch"), {"retryable": False})
    if other.keys() & {"namespace_id", "node_id"}:
        assert said(await bench.ask("revoke", **other)) == ("failed", "grant_mismatch")
    assert bench.world.access() == ACCESS


@pytest.mark.parametrize("op", ["grant", "usage"])
async def test_a_namespace_that_no_operator_made_is_refused_for_good(bench: Bench[World], op: str) -> None:
    refused = await bench.ask(op, namespace_id="missing")
    assert (said(refused), refused.data) == (("failed", "no_such_namespace"), {"retryable": False})
    if op == "grant":
        assert await bench.ask("revoke", namespace_id="missing") == Outcome("done")
    assert bench.world.access() == {}


async def test_usage_says_how_much_as_of_when_and_whether_it_is_enforced_and_what_the_provider_can(
    bench: Bench[World],
) -> None:
    used = await bench.ask("usage")
    assert said(used) == ("done", "")
    assert used.data["used_bytes"] >= 16_389
    assert used.data["as_of_us"] > 1_600_000_000_000_000
    assert used.data["enforced"] is (bench.kind != "nfs")
    assert used.data["capabilities"] == (await bench.ask("capabilities")).data
    assert used.data["capabilities"]["modes"] == ["ro", "rw"]
    assert used.data.keys() == {"used_bytes", "as_of_us", "enforced", "capabilities"}


async def test_while_nobody_serves_certainly_nothing_ran(bench: Bench[World]) -> None:
    await bench.world.kill()
    for op in ("grant", "revoke", "verify", "usage", "capabilities"):
        absent = await bench.ask(op)
        assert (said(absent), absent.may_have_run) == (("failed", "provider_absent"), False)
        assert absent.data == {"retryable": True}
    await bench.world.start()


async def test_a_step_that_is_cancelled_ends_at_once_and_leaves_the_runner_well(bench: Bench[World]) -> None:
    bench.world.break_next("grant", "lose")
    step = asyncio.create_task(bench.ask("grant"))
    await asyncio.wait({step}, timeout=0.2)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert said(await bench.ask("grant")) == ("done", "")
