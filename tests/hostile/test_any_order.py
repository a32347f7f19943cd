"""Customers' and operators' commands, good and hostile, in any order, with machines that die and a process that does.

After each step every invariant of a committed instant holds, at the end all that holds of a world at rest.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adapters.simulated.machines import Machine
from amends.values.errors import KEPT, Rejected
from supervisors.simulation import events
from supervisors.simulation.storage_stories import holds
from supervisors.simulation.world import CUSTOMER_KEY
from tests.acceptance.hostile import COMMANDS
from tests.hostile.stepped import Reply, Stepped
from tests.hostile.values import HOSTILE, places, put, tried
from tests.profiles import machines

NODES: Final = ("n1", "n2", "n3")
SPACES: Final = ("data", "more")
OPERATING: Final = sorted(subject for subject in COMMANDS if subject.startswith("ops."))
KNOWN: Final = sorted(COMMANDS)
DEAR: Final = 10**13
RATES: Final = (0, 1, 10**9, DEAR)
RENTAL: Final = {"account_id": "acme", "ssh_public_key": CUSTOMER_KEY}
WHILE_S: Final = 1.0  # of which a set-up takes a part
INTERNAL: Final = "internal"  # what no command may be answered
pick = st.integers(0, 7)
values = st.sampled_from(HOSTILE)
OPS: Final = ("user-create", "key-install", "user-remove", "user-lock", "mount", "unmount")
die_afters = st.just(0) | st.just(0) | st.integers(1, 150)  # callbacks; 0: it lives
waits = st.sampled_from((0.0, 0.1, WHILE_S))


class AnyOrder(RuleBasedStateMachine):
    """See above."""

    def __init__(self) -> None:
        super().__init__()
        self.life: Stepped | None = None
        self._count = 0
        self._sent: list[tuple[str, str, dict[str, Any], Reply]] = []

    @property
    def there(self) -> Stepped:
        """The world, which is there from the first step on."""
        assert self.life is not None
        return self.life

    @initialize(seed=st.integers(0, 2**16))
    def a_site_with_a_rental(self, seed: int) -> None:
        life = self.life = Stepped(seed)
        life.do(life.running.account("acme", stripe_customer_id=life.world.stripe.customer(name="acme")))
        for name in NODES:
            life.do(life.running.node(name, site="here"))
        for space in SPACES:
            holds(life.world, space)
            body = {"namespace_id": space, "account_id": "acme", "provider_id": "p1", "quota_bytes": 1000}
            life.ask(f"space {space}", "cmd.namespace.create", body)
        self._send("cmd.allocation.request", {**RENTAL, "rate_uminor_per_hour": DEAR})
        life.passes(WHILE_S)
        self._send("cmd.attachment.attach", {**self._filled("cmd.attachment.attach", 0), "mode": "rw"})
        life.passes(WHILE_S)

    # --- what is known -------------------------------------------------------------------------------

    def _names(self, kind: str) -> list[str]:
        return [name for of, name in self.there.world.database.tables.states if of == kind]

    def _rows(self, table: str, column: str) -> list[str]:
        return [row[column] for row in self.there.world.database.tables.rows[table].values()]

    def _filled(self, subject: str, number: int) -> dict[str, Any]:
        """A good body of a command: the ids in it are those of something that there is, where there is any."""
        body = dict(COMMANDS[subject][0])
        known: dict[str, list[Any]] = {
            "allocation_id": self._names("allocation")[::-1], "attachment_id": self._names("attachment")[::-1],
            "node_id": list(NODES), "namespace_id": list(SPACES), "account_id": ["acme"], "provider_id": ["p1"],
            "case_id": self._rows("ops_case", "case_id"), "meter_id": self._rows("meters", "meter_id"),
            "outbox_id": self._rows("outbox", "outbox_id"), "notification_id": self._names("notification"),
            "payment_id": self._names("payment"), "domain": ["here"], "ssh_public_key": [CUSTOMER_KEY],
            "node_labels": [{}, {"site": "here"}],
        }  # fmt: skip
        body |= {name: found[number % len(found)] for name, found in known.items() if name in body and found}
        if "ssh" in body:
            machine = self._machine(number)
            body["ssh"] = {"host": machine.node_id, "port": 22, "host_key": machine.host_key}
        if "node_ids" in body:
            body["node_ids"] = [body.get("node_id", NODES[number % 2])]
        return body

    def _machine(self, number: int) -> Machine:
        return self.there.world.machine(NODES[number % len(NODES)])

    def _send(self, subject: str, body: dict[str, Any], die_after: int = 0, wait_s: float = 0.0) -> Reply:
        self._count += 1
        key, life = f"key-{self._count}", self.there
        found = life.ask_and_die(key, subject, body, die_after) if die_after else life.ask(key, subject, body)
        self._sent.append((key, subject, body, found))
        assert found != INTERNAL, (subject, body)
        life.passes(wait_s)
        return found

    # --- rules ---------------------------------------------------------------------------------------

    @rule(rate=st.sampled_from(RATES), number=pick, die_after=die_afters, wait_s=waits)
    def somebody_rents(self, rate: int, number: int, die_after: int, wait_s: float) -> None:
        where = {} if number % 3 else {"node_id": NODES[number % len(NODES)]}
        self._send("cmd.allocation.request", {**RENTAL, "rate_uminor_per_hour": rate, **where}, die_after, wait_s)

    @rule(number=pick, die_after=die_afters, wait_s=waits)
    def somebody_leaves(self, number: int, die_after: int, wait_s: float) -> None:
        self._send("cmd.allocation.release", self._filled("cmd.allocation.release", number), die_after, wait_s)

    @rule(number=pick, mode=st.sampled_from(("ro", "rw")), die_after=die_afters, wait_s=waits)
    def somebody_attaches(self, number: int, mode: str, die_after: int, wait_s: float) -> None:
        body = {**self._filled("cmd.attachment.attach", number), "mode": mode}
        self._send("cmd.attachment.attach", body, die_after, wait_s)

    @rule(number=pick, die_after=die_afters, wait_s=waits)
    def somebody_detaches(self, number: int, die_after: int, wait_s: float) -> None:
        self._send("cmd.attachment.detach", self._filled("cmd.attachment.detach", number), die_after, wait_s)

    @rule(subject=st.sampled_from(OPERATING), number=pick, die_after=die_afters, wait_s=waits)
    def an_operator_does_something(self, subject: str, number: int, die_after: int, wait_s: float) -> None:
        self._send(subject, self._filled(subject, number), die_after, wait_s)

    @rule(subject=st.sampled_from(KNOWN), number=pick, place=st.integers(0, 30), value=values)
    def a_stranger_sends_something(self, subject: str, number: int, place: int, value: Any) -> None:
        body = self._filled(subject, number)
        ways = places(body)[1:]
        changed = put(body, ways[place % len(ways)], value)
        found = self._send(subject, changed)
        if subject == "cmd.node.register" and isinstance(found, dict):
            self.there.world.machine(found["node"]["node_id"])

    @precondition(lambda self: self._sent)
    @rule(number=st.integers(0, 50), other=st.booleans())
    def it_is_sent_again(self, number: int, other: bool) -> None:
        key, subject, body, before = self._sent[-1 - number % len(self._sent)]
        again = {**body, "reason": "another"} if other and "reason" in body else body
        found = self.there.ask(key, subject, again)
        if isinstance(before, Mapping):
            assert found == "idempotency_mismatch" if again != body else isinstance(found, Mapping), (subject, found)
            told = found.get("allocation") if isinstance(found, Mapping) else None
            assert again != body or told == before.get("allocation")
        elif before in KEPT and again == body:
            assert found == before

    @rule(amount=st.integers(1, 10**6), account=st.sampled_from(("acme", "nobody", "")), number=pick)
    def stripe_tells_of_money(self, amount: int, account: str, number: int) -> None:
        said = (
            events.intent(f"evt_i{number}", f"pi_{number}", amount, account=account),
            events.refund(f"evt_r{number}", f"pi_{number}", f"re_{number}", amount),
            events.dispute(f"evt_d{number}", f"pi_{number}", amount, "funds_withdrawn"),
        )  # fmt: skip
        _, error = tried(Rejected, self.there.do, self.there.running.deliver(said[number % 3]))
        assert error is None or error.code == "invalid_request"

    @rule(number=pick, how=st.sampled_from(("dies", "is back", "restarts", "is mute", "speaks")))
    def a_machine(self, number: int, how: str) -> None:
        machine = self._machine(number)
        if how == "restarts":
            self._count += 1
            machine.boot_id = f"boot-{machine.node_id}-{self._count}"
        elif how in ("dies", "is back"):
            machine.up = how == "is back"
        else:
            machine.beats = how == "speaks"

    @rule(number=pick, op=st.sampled_from(OPS),
          kind=st.sampled_from(("fail", "lose", "hang")))  # fmt: skip
    def a_step_goes_wrong(self, number: int, op: str, kind: str) -> None:
        self._machine(number).break_next(op, kind)

    @rule(up=st.booleans())
    def the_provider(self, up: bool) -> None:
        self.there.world.provider().up = up

    @rule(seconds=st.sampled_from((0.05, 0.3, 1.0, 3.0)))
    def time_passes(self, seconds: float) -> None:
        self.there.passes(seconds)

    @rule()
    def the_process_dies(self) -> None:
        self.there.dies()
        self.there.begin()

    # --- what holds ----------------------------------------------------------------------------------

    @invariant()
    def nothing_is_wrong(self) -> None:
        if self.life is not None:
            assert self.life.wrong() == []

    def teardown(self) -> None:
        if self.life is not None:
            life, self.life = self.life, None
            if sys.exc_info()[0] is None:
                assert life.comes_to_rest() == []
            else:
                life.dies()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=machines())
