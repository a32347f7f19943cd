"""What is foretold is what happens, to the record and to the minor unit; and asking leaves no trace."""

import copy
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import msgspec
import pytest

from supervisors.policy_file import BUILT_IN, read
from supervisors.simulation.storage_stories import QUOTA, attach, holds
from supervisors.simulation.stories import DEAR
from supervisors.simulation.world import Refused, Running, World

Row = dict[str, Any]
LOSS, FORCE, RETIRE = "ops.whatif.node_loss", "ops.whatif.force_release", "ops.whatif.node_retire"
UNKNOWN = "alloc_01kf0rdqqaex8sb5x28byz2art"


def play(tell: Callable[[Running], Coroutine[Any, Any, None]], **limits: Any) -> World:
    """A world after its story, with the windows of the built-in policy: none ends meanwhile."""
    world = World(1, **limits)
    world.policy_text = BUILT_IN.read_text(encoding="utf-8")
    world.policy = read(world.policy_text.encode(), "policy.toml")
    assert world.run(tell)
    assert world.broken == []
    return world


async def rented(running: Running) -> str:
    """A dear rental on n1, with a namespace beside; its id."""
    await running.account("acme")
    await running.node("n1")
    allocation = await running.rent("acme", "rent", rate=DEAR)
    await running.until(lambda: running.state("allocation", allocation) == "active")
    holds(running.world, "data")
    await running.once("cmd.namespace.create", "namespace", namespace_id="data", account_id="acme", provider_id="p1",
                       quota_bytes=QUOTA)  # fmt: skip
    return allocation


class Written:
    """All that the database holds at an instant; `since` tells what has come about from then on."""

    def __init__(self, running: Running) -> None:
        self._database = running.world.database
        self.head = self._database.head
        self.rows = copy.deepcopy(self._database.tables.rows)
        self.states = dict(self._database.tables.states)
        self.bus = copy.deepcopy(running.world.bus.streams)

    @property
    def everything(self) -> tuple[object, ...]:
        """To be compared with another instant's."""
        return (self.head, self.rows, self.states, self.bus)

    def _new(self, table: str) -> list[Row]:
        known = self.rows[table]
        return [row for key, row in self._database.tables.rows[table].items() if key not in known]

    def since(self) -> dict[str, list[Row]]:
        """What a forecast's lists would be."""
        tables, states = self._database.tables.rows, self._database.tables.states
        runs = {run["recovery_trace_id"]: run for run in tables["recovery_run"].values()}
        born = [msgspec.json.decode(write.body) for key, write in states.items()
                if key[0] == "notification" and key not in self.states]  # fmt: skip
        return {
            "transitions": [
                {"entity": row["target_ref"], "from": row["from_state"], "to": row["to_state"]}
                for row in self._new("audit_log")
                if row["to_state"] is not None and not row["target_ref"].startswith(("case:", "notification:"))
            ],
            "failures": self._new("failure"),
            "compensations": [
                {**row, "entity": runs[row["recovery_trace_id"]]["entity"]} for row in self._new("compensation")
            ],
            "runs": [{**row, "begun": True} for row in self._new("recovery_run")],
            "ledger": self._new("ledger_entries"),
            "notifications": [{**body, "cause": body["body"].get("cause")} for body in born],
            "cases": self._new("ops_case"),
        }  # fmt: skip


# What is compared of each list; messages and ids of steps name instants and what was made up.
COMPARED: Mapping[str, tuple[str, ...]] = {
    "transitions": ("entity", "from", "to"),
    "failures": ("code", "failure_type", "severity", "component", "propagation_hop"),
    "compensations": (
        "matrix_row", "entity", "compensation_type", "compensated_action_type", "target_ref", "outcome",
    ),
    "runs": ("matrix_row", "entity", "final_outcome"),
    "ledger": ("account_id", "meter_id", "entry_type", "amount_minor", "currency", "idempotency_key"),
    "notifications": ("kind", "audience", "account_id", "entity", "cause"),
    "cases": ("kind", "target_ref", "state"),
}  # fmt: skip


def compared(answer: Mapping[str, Iterable[Row]]) -> dict[str, Counter[tuple[Any, ...]]]:
    return {
        name: Counter(tuple(row.get(field) for field in fields) for row in answer[name])
        for name, fields in COMPARED.items()
    }


async def foretold(running: Running, question: str, /, **asked: Any) -> Row:
    """The forecast; asking has written nothing, and has taken no time."""
    before, began_us = Written(running), running.core.kernel.clock.now_us()
    answer = await running.ask(question, "", **asked)
    assert Written(running).everything == before.everything
    assert answer["as_of_us"] == began_us
    return answer


async def came_true(running: Running, forecast: Row, before: Written) -> None:
    happened = before.since()
    assert compared(forecast) == compared(happened)
    assert forecast["ledger"]
    moved = sum(e["amount_minor"] * (1 if e["entry_type"] == "credit" else -1) for e in happened["ledger"])
    (account,) = forecast["accounts"]
    assert account["balance_after_minor"] - account["balance_minor"] == moved
    assert account["balance_after_minor"] == running.world.balances()["acme"]


# --- a node is lost ---------------------------------------------------------------------------------------------


def test_a_loss_with_a_running_meter_and_attachments_is_what_was_foretold() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        attachment = await attach(running, allocation)
        await running.used(allocation, 400.4)
        machine = running.world.machine("n1")
        machine.up = False
        before = Written(running)
        forecast = await foretold(running, LOSS, node_id="n1")
        await running.until(lambda: running.state("node", "n1") == "offline")
        await running.until(lambda: running.state("attachment", attachment) == "detached")
        await running.until(lambda: not [each for each in running.owed() if not each.startswith("ssh.")])
        await came_true(running, forecast, before)
        assert {row["matrix_row"] for row in forecast["compensations"]} == {"R08"}
        assert [row["name"] for row in forecast["waiting"]] == ["ssh.probe", "ssh.user-lock"]
        assert any(entry["entry_type"] == "credit" and entry["rule_id"] for entry in forecast["ledger"])
        assert all(entry["formula"] for entry in forecast["ledger"])
        machine.up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    play(tell)


def test_a_loss_is_foretold_of_a_node_that_is_silent_already() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        await running.used(allocation, 2.3)
        machine = running.world.machine("n1")
        machine.up = False
        await running.until(lambda: running.state("node", "n1") == "suspect")
        before = Written(running)
        forecast = await foretold(running, LOSS, node_id="n1")
        await running.until(lambda: running.state("node", "n1") == "offline")
        await running.until(lambda: not [each for each in running.owed() if not each.startswith("ssh.")])
        await came_true(running, forecast, before)
        again = await foretold(running, LOSS, node_id="n1")
        assert again["refused"]["message"] == "a node that is offline is not declared lost"
        assert not any(again[name] for name in COMPARED)
        machine.up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    play(tell)


def test_a_loss_during_a_mount_is_foretold_with_the_suspicion_that_comes_first() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        machine = running.world.machine("n1")
        machine.break_next("mount", "hang", 99)
        attachment = await attach(running, allocation, "attach", "mounting")
        await running.used(allocation, 2.3)
        machine.up = False
        before = Written(running)
        forecast = await foretold(running, LOSS, node_id="n1")
        await running.until(lambda: running.state("node", "n1") == "offline")
        await running.until(lambda: running.state("attachment", attachment) == "failed")
        await running.until(lambda: not [e for e in running.owed() if not e.startswith(("ssh.", "agent."))])
        await came_true(running, forecast, before)
        assert {row["matrix_row"] for row in forecast["runs"]} == {"R08", "R12"}
        machine.mend()
        machine.up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    play(tell, mount_timeout_ms=60_000)


def test_a_loss_after_a_release_would_give_back_what_was_charged_past_the_last_heartbeat() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        await running.used(allocation, 10.8)
        machine = running.world.machine("n1")
        machine.up = False
        await running.until(lambda: running.state("node", "n1") == "suspect")
        await running.release(allocation, "release")
        await running.until(lambda: running.state("allocation", allocation) == "releasing")
        before = Written(running)
        forecast = await foretold(running, LOSS, node_id="n1")
        await running.until(lambda: running.state("node", "n1") == "offline")
        # of the release itself the steps end badly, on a machine that is gone; what the loss costs is the same
        assert compared(forecast)["ledger"] == compared(before.since())["ledger"]
        assert [row["idempotency_key"].split(":")[2] for row in forecast["ledger"]] == ["overrun"]
        machine.up = True
        await running.until(lambda: running.state("node", "n1") == "ready")
        await running.quiet()

    play(tell)


# --- a release is forced ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason_code", ["platform_fault", "operator_request"])
def test_a_forced_release_is_what_was_foretold(reason_code: str) -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        await attach(running, allocation)
        await running.used(allocation, 400.4)
        before = Written(running)
        more = {"reason_code": reason_code} if reason_code != "operator_request" else {}
        forecast = await foretold(running, FORCE, allocation_id=allocation, **more)
        await running.force(allocation, "force", reason_code)
        await running.until(lambda: running.state("allocation", allocation) == "released")
        await running.quiet()
        await came_true(running, forecast, before)
        paid = [entry["rule_id"] for entry in forecast["ledger"] if entry["entry_type"] == "credit"]
        assert paid == (["force_platform_fault"] if reason_code == "platform_fault" else [])
        steps = [row["name"] for row in forecast["steps"]]
        assert steps == ["ssh.user-lock", "agent.unmount", "provider.revoke", "provider.verify", "ssh.user-remove"]
        ended = await foretold(running, FORCE, allocation_id=allocation)
        assert ended["reply"]["already_terminal"]
        assert not any(ended[name] for name in COMPARED)

    play(tell)


def test_a_release_that_is_forced_during_set_up_is_foretold_with_the_steps_that_are_under_way() -> None:
    async def tell(running: Running) -> None:
        await running.account("acme")
        machine = await running.node("n1")
        machine.break_next("user-create", "slow")
        allocation = await running.rent("acme", "rent", rate=DEAR)
        await running.until(lambda: running.state("allocation", allocation) == "provisioning")
        before = Written(running)
        forecast = await foretold(running, FORCE, allocation_id=allocation)
        await running.force(allocation, "force", "operator_request")
        await running.until(lambda: running.state("allocation", allocation) == "failed")
        await running.quiet()
        assert compared(forecast) == compared(before.since())
        assert {row["matrix_row"] for row in forecast["compensations"]} == {"R02"}

    play(tell)


# --- a node is retired ------------------------------------------------------------------------------------------


def test_to_retire_a_node_is_foretold_refused_while_it_is_in_service_and_allowed_with_what_it_owes() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        refused = await foretold(running, RETIRE, node_id="n1")
        assert (refused["refused"]["code"], refused["refused"]["details"]) == ("illegal_transition", {"state": "ready"})
        running.world.machine("n1").up = False
        await running.until(lambda: running.state("node", "n1") == "offline")
        owing = await foretold(running, RETIRE, node_id="n1")
        assert owing["refused"]["code"] == "debt_open"
        with pytest.raises(Refused, match="debt_open"):
            await running.ask("ops.node.retire", "no", node_id="n1", reason="scrapped")
        before = Written(running)
        forecast = await foretold(running, RETIRE, node_id="n1", acknowledge_lost=True)
        assert forecast["refused"] is None
        await running.ask("ops.node.retire", "yes", node_id="n1", reason="scrapped", acknowledge_lost=True)
        await running.until(lambda: not running.body("allocation", allocation).get("cleanup_pending"))
        await running.quiet()
        happened = before.since()
        same = [name for name in COMPARED if name != "runs"]
        assert [compared(forecast)[name] for name in same] == [compared(happened)[name] for name in same]
        ended = [row for row in forecast["runs"] if not row["begun"]]
        assert {(row["entity"].partition(":")[0], row["final_outcome"]) for row in ended} == {
            ("node", "recovered"), ("allocation", "recovered"),
        }  # fmt: skip

    play(tell)


# --- what cannot be asked ---------------------------------------------------------------------------------------


def test_what_is_not_there_is_named() -> None:
    async def tell(running: Running) -> None:
        await running.account("acme")
        await running.quiet()
        asked: list[tuple[str, Row, str]] = [
            (LOSS, {"node_id": "nobody"}, "not_found"),
            (RETIRE, {"node_id": "nobody"}, "not_found"),
            (FORCE, {"allocation_id": UNKNOWN}, "not_found"),
            (LOSS, {"node_id": "n1'; DROP TABLE nodes"}, "invalid_request"),
            (FORCE, {"allocation_id": "alloc_x"}, "invalid_request"),
            (FORCE, {"allocation_id": UNKNOWN, "reason_code": "a\nb"}, "invalid_request"),
            (RETIRE, {"node_id": "n1", "acknowledge_lost": "yes"}, "invalid_request"),
            (LOSS, {}, "invalid_request"),
        ]
        for subject, body, code in asked:
            before = Written(running)
            with pytest.raises(Refused) as refused:
                await running.ask(subject, "", **body)
            assert refused.value.code == code, (subject, body)
            assert Written(running).everything == before.everything

    play(tell)


def test_who_is_paused_takes_nothing_in_and_is_named() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        store = running.core.kernel.engine.store
        known = store.get("allocation", allocation)
        assert known is not None
        store.put("allocation", allocation, msgspec.structs.replace(known, paused=True))
        forecast = await foretold(running, LOSS, node_id="n1")
        assert forecast["held"] == [{"entity": f"allocation:{allocation}", "messages": 1}]
        assert (forecast["ledger"], forecast["refused"]) == ([], None)
        store.put("allocation", allocation, known)

    play(tell)


def test_a_state_that_cannot_be_made_out_is_not_played_with() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        await running.quiet()
        store = running.core.kernel.engine.store
        known = store.get("allocation", allocation)
        assert known is not None
        store.load("allocation", allocation, b'{"state": 7}')
        with pytest.raises(Refused, match="cannot be made out"):
            await running.ask(LOSS, "", node_id="n1")
        store.decoded("allocation", allocation, msgspec.json.encode(known))
        store.put("allocation", allocation, known)

    play(tell)


def test_a_paused_node_is_not_lost_until_its_case_is_resolved() -> None:
    async def tell(running: Running) -> None:
        await rented(running)
        store = running.core.kernel.engine.store
        node = store.get("node", "n1")
        assert node is not None
        store.put("node", "n1", msgspec.structs.replace(node, paused=True))
        forecast = await foretold(running, LOSS, node_id="n1")
        assert "paused until its case is resolved" in forecast["refused"]["message"]
        store.put("node", "n1", node)

    play(tell)
