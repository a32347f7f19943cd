"""Every command that a case prints is accepted as printed: by the command line, the endpoint and the entity itself."""

import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncssh
import msgspec
import pytest

from actors.account.messages import CreateAccount
from actors.allocation.messages import PostWindow, PostWindows, ReleaseAllocation
from actors.attachment.messages import Detach
from actors.attachment.state import Attachment
from actors.between import GrantTried, LedgerPosted, SetupFailed, Suspicion
from actors.detector.messages import FLEET, DetectorStarts, MassSilence
from actors.differences import LookAround
from actors.grant.state import GrantState, Held, grant_of
from actors.namespace.state import Namespace
from actors.node.messages import HeartbeatSeen, QuarantineNode, Restored, ReturnNode, Silent
from actors.node.state import view_node
from actors.payment.messages import StripeEvent
from actors.payment.reading import read_event
from adapters.cli import arguments
from adapters.cli.verbs import Verb, all_verbs
from adapters.cli.why import settle_lines
from adapters.ssh.keys import canonical_host_key, canonical_public_key
from amends.delivery.streams import PublishPoisoned, RelayStarts
from amends.domain.domain import requests_of
from amends.domain.matrix import CaseKind
from amends.ports.journal import Head, StoredEvent
from amends.runtime.identity import Identity
from amends.runtime.requests import Endpoint, decode
from amends.turn.messages import Envelope, Pause
from amends.values import ids
from amends.values.errors import Rejected
from amends.values.records import CaseRow, OutboxRow
from supervisors.api.endpoints import checks, commands, finders
from supervisors.matrix import CASES
from supervisors.rental import RENTAL
from supervisors.simulation.events import dispute, intent
from tests.adapters.postgres.story import START_US, Book, context, ready_node, requested

VERBS = all_verbs(requests_of((RENTAL,)).values())
EVENT = ids.type_id("evt", START_US, b"outbox-row")
Scene = Callable[[Book], Awaitable[Any]]


class Cases:
    """Takes every commit, and keeps the cases as they stand."""

    def __init__(self) -> None:
        self.open: dict[str, dict[str, Any]] = {}

    async def commit(self, commit: Any) -> None:
        for row, _ in commit.rows.get(CaseRow, ()):
            known = self.open.get(row.case_id, {})
            kept = {"evidence": known["evidence"]} if known and row.evidence == "{}" else {}
            self.open[row.case_id] = msgspec.structs.asdict(row) | kept

    async def events(self, stream: str, ids: list[str]) -> list[StoredEvent]:
        """What an endpoint looks up before it asks an entity."""
        row = OutboxRow(ids[0], "node:n1", "AMENDS_EVT", "", "{}", "", "", 0)
        return [StoredEvent(row, "parked", 0)]

    async def given_up(self, account_id: str) -> list[dict[str, Any]]:
        """The credit of the scene."""
        return [{"ledger_key": "credit:m:r", "amount_minor": 5, "currency": "usd", "customer": "cus_1",
                 "state": "failed", "first_us": START_US, "generation": 0}]  # fmt: skip

    async def case(self, case_id: str) -> CaseRow:
        """The same of a case."""
        return CaseRow(**self.open[case_id])


def test_a_body_that_is_no_object_is_said_to_be_none_and_names_no_field() -> None:
    endpoint = cast("Any", SimpleNamespace(request=ReleaseAllocation))
    for body, said, details in (
        (b"[]", "the request must be one JSON object: Expected `object`, got `array`", {}),
        (b"{}", "Object missing required field `allocation_id`", {"field": "allocation_id"}),
        (b'{"allocation_id": 1}', "Expected `str`, got `int` - at `$.allocation_id`", {"field": "allocation_id"}),
    ):
        with pytest.raises(Rejected) as refused:
            decode(endpoint, body)
        assert (refused.value.message, refused.value.details) == (said, details)


# --- how each kind of case comes about -------------------------------------------------------------------


async def nobody_locked_out(book: Book) -> str:
    await ready_node(book, "n1")
    allocation_id = await requested(book, "n1")
    await book.end(f"allocation:{allocation_id}", "ssh.user-create")
    await book.end(f"allocation:{allocation_id}", "ssh.key-install")
    await book.timer("allocation", allocation_id, "activate")
    await book.command("allocation", allocation_id, ReleaseAllocation(allocation_id=allocation_id))
    await book.end(f"allocation:{allocation_id}", "ssh.user-lock", "failed", "ssh_connect_failed")
    return f"allocation:{allocation_id}"


async def cleanup_exhausted(book: Book) -> None:
    entity = await nobody_locked_out(book)
    for _ in range(2):
        await book.end(entity, "ssh.user-lock", "failed", "ssh_connect_failed")


def node_told(*messages: Any) -> Scene:
    async def scene(book: Book) -> None:
        await ready_node(book, "n1")
        for message in messages:
            await book.tell("node", "n1", Envelope(message))

    return scene


async def reconcile_stalled(book: Book) -> None:
    await node_told(QuarantineNode(node_id="n1", reason="odd"), ReturnNode(node_id="n1", reason="go"))(book)
    for number in range(5):
        if number:
            await book.timer("node", "n1", "reconcile")
        await book.end("node:n1", "ssh.probe", "failed", "ssh_auth_failed", "Permission denied")


async def agent_silent(book: Book) -> None:
    await node_told(Silent(1))(book)
    await book.end("node:n1", "ssh.probe")
    await book.timer("node", "n1", "agent_silent")


async def restored_unknown(book: Book) -> None:
    await node_told(Restored(1 << 32, "the disk is gone"))(book)
    await book.end("node:n1", "agent.reconcile", mounts=[], users=["am-" + "1" * 26], foreign=[])


async def world_difference(book: Book) -> None:
    await node_told()(book)
    book.now_us += 3_600_000_000
    await book.tell("node", "n1", Envelope(LookAround()))
    await book.end("node:n1", "agent.inventory", mounts=[], users=["am-" + "1" * 26], foreign=[])


async def mass_offline(book: Book) -> None:
    await ready_node(book, "n1")
    await book.tell("stream", "AMENDS_EVT", Envelope(RelayStarts()))
    await book.tell("detector", FLEET, Envelope(DetectorStarts()))
    await book.tell("detector", FLEET, Envelope(MassSilence("hall 2", 3, 4)))


def paused(kind: str) -> Scene:
    async def scene(book: Book) -> None:
        await ready_node(book, "n1")
        await book.tell("node", "n1", Envelope(Pause(kind, {})))

    return scene


async def poisoned(book: Book) -> None:
    await book.tell("stream", "AMENDS_EVT", Envelope(RelayStarts()))
    await book.tell("stream", "AMENDS_EVT", Envelope(PublishPoisoned(EVENT, 1, "too_large", "it is too large")))


async def billing_conflict(book: Book) -> None:
    await ready_node(book, "n1")
    allocation_id = await requested(book, "n1")
    await book.end(f"allocation:{allocation_id}", "ssh.user-create")
    await book.end(f"allocation:{allocation_id}", "ssh.key-install")
    await book.timer("allocation", allocation_id, "activate")
    state = book.state("allocation", allocation_id)
    hour_us = 3_600_000_000
    book.now_us += 2 * hour_us
    await book.tell("allocation", allocation_id, Envelope(PostWindows()))
    await book.command("allocation", allocation_id, ReleaseAllocation(allocation_id=allocation_id))
    start_us = state.rental.activated_us - state.rental.activated_us % hour_us
    asked = PostWindow(
        meter_id=state.billing.meter_id, window_start_us=start_us, amount_minor=10**9, delivery_id="d", reason="r"
    )
    await book.command("allocation", allocation_id, asked, caller="operator:ada")


def stripe_says(*events: dict[str, Any], timer: bool = False) -> Scene:
    async def scene(book: Book) -> None:
        for event in events:
            said = read_event(msgspec.json.encode(event), START_US)
            await book.tell("payment", said.payment_id, Envelope(StripeEvent(said)))
        if timer:
            await book.timer("payment", "pi_1", "deferred")

    return scene


async def payment_currency(book: Book) -> None:
    await book.command("account", "yen", CreateAccount(account_id="yen", currency="jpy"))
    await stripe_says(intent("evt_1", "pi_1", 5, account="yen"))(book)


async def stripe_mirror_failed(book: Book) -> None:
    await book.command("account", "mirrored", CreateAccount(
        account_id="mirrored", currency="usd", stripe_customer_id="cus_1"))  # fmt: skip
    entry = {
        "entry_type": "credit",
        "meter_id": "m",
        "amount_minor": 5,
        "currency": "usd",
        "idempotency_key": "credit:m:r",
    }
    await book.tell("account", "mirrored", Envelope(LedgerPosted([entry])))
    await book.end("account:mirrored", "stripe.credit", "failed", "stripe_refused")


ATTACHED = "attach_01kb0000000000000000000000"


def stored(book: Book, state: str, allocation_id: str = "alloc_1") -> None:
    """An attachment of a namespace on a node, and its grant, which drifted where it is not attached."""
    book.facts.states |= {
        ("attachment", ATTACHED): Attachment(
            state=state, allocation_id=allocation_id, account_id="acct1", namespace_id="data", provider_id="nfs-1",
            mode="rw", mount_path="/mnt/data", requested_us=book.now_us, node_id="n1", node_epoch=1,
            attempt_id="task_1", grant_id="grant_1",
        ),
        ("namespace", "data"): Namespace(
            state="active", account_id="acct1", provider_id="nfs-1", quota_bytes=1, created_us=1
        ),
        ("grant", grant_of("data", "n1")): GrantState(
            state="held", namespace_id="data", node_id="n1", provider_id="nfs-1", users={ATTACHED: "rw"},
            held=(Held("grant_1", "rw", "granted" if state == "attached" else "drift"),),
        ),
    }  # fmt: skip


async def provider_drift(book: Book) -> None:
    await ready_node(book, "n1")
    stored(book, "validated", await requested(book, "n1"))
    tried = GrantTried(
        "grant_1", "provider.grant", 1, "step_1", "partial", "half", "ab" * 16, "cd" * 8, 1, 2, over=True
    )
    await book.tell("attachment", ATTACHED, Envelope(tried))


async def detach_failed(book: Book) -> None:
    await ready_node(book, "n1")
    stored(book, "attached", await requested(book, "n1"))
    await book.command("attachment", ATTACHED, Detach(attachment_id=ATTACHED))
    for _ in range(2):
        await book.end(f"attachment:{ATTACHED}", "agent.unmount", "failed", "busy", holders=["process 1 (sh): cwd"])
    node = book.state("node", "n1")
    book.facts.states["node", "n1"] = msgspec.structs.replace(node, state="offline")


SCENES: dict[str, Scene] = {
    "provider_drift": provider_drift,
    "detach_failed": detach_failed,
    "billing_conflict": billing_conflict,
    "deferred_payment": stripe_says(intent("evt_1", "pi_1", 5, account="late", customer="cus_9"), timer=True),
    "payment_currency": payment_currency,
    "payment_dispute": stripe_says(intent("evt_1", "pi_1", 5, account="acct1"), dispute("evt_2", "pi_1", 5, "created")),
    "stripe_mirror_failed": stripe_mirror_failed,
    "cleanup_exhausted": cleanup_exhausted,
    "lockout_failed": nobody_locked_out,
    "outbox_poison": poisoned,
    "actor_quarantined": paused("actor_quarantined"),
    "unknown_step": paused("unknown_step"),
    "host_key_mismatch": node_told(Suspicion("host_key_mismatch")),
    "node_flapping": node_told(*(m for n in range(4) for m in (Silent(n), HeartbeatSeen("boot-1", n)))),
    "setup_failing": node_told(*(SetupFailed(f"alloc_{number}", "ssh_auth_failed") for number in range(3))),
    "identity_conflict": node_told(HeartbeatSeen("boot-1", 2, rival="boot-2")),
    "reconcile_stalled": reconcile_stalled,
    "agent_silent": agent_silent,
    "restored_unknown": restored_unknown,
    "mass_offline": mass_offline,
    "world_difference": world_difference,
}


@pytest.fixture
def new_host_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one thing that only the operator has: the file that the printed command names."""
    line = asyncssh.generate_private_key("ssh-ed25519").export_public_key()
    (tmp_path / "NEW_HOST_KEY.pub").write_bytes(line)
    monkeypatch.chdir(tmp_path)


async def scene_of(kind: str) -> tuple[Book, Cases, dict[str, Any]]:
    """The world in which that case is open, and its row."""
    kept = Cases()
    shared = context(1)
    shared.case_commands = {case.kind: case.commands for case in CASES}
    book = Book(kept, Head(1, 0, 0, ""), shared)
    await book.command("account", "acct1", CreateAccount(account_id="acct1", currency="usd"))
    await SCENES[kind](book)
    (case,) = [row for row in kept.open.values() if row["kind"] == kind]
    return book, kept, case


def accepted(line: str, endpoints: dict[str, Endpoint]) -> tuple[Endpoint, Any]:
    """The endpoint and request that a printed line comes to; whatever is wrong with it raises."""
    program, *words = shlex.split(line)
    assert program == "amends"
    typed = arguments.parser([], VERBS).parse_args(words)
    verb: Verb = typed.verb
    endpoint = endpoints[verb.subject]
    request = decode(endpoint, msgspec.json.encode(arguments.data_of(verb, typed)))
    return endpoint, endpoint.prepare(
        request, Identity("me", role="operator")
    ) if endpoint.prepare is not None else request


async def nothing_republished(request_id: str) -> dict[str, Any]:
    return {}


@pytest.mark.usefixtures("new_host_key")
@pytest.mark.parametrize("case", CASES, ids=[case.kind for case in CASES])
async def test_every_command_that_a_case_prints_is_accepted_as_printed(case: CaseKind) -> None:
    for number in range(len(case.commands)):
        book, kept, found = await scene_of(case.kind)
        kind, name = ids.split_ref(found["target_ref"])
        row = view_node(book.state("node", name), name, book) if kind == "node" else {"node_id": "n1"}
        lines = settle_lines(found, row, VERBS)
        assert len(lines) == len(case.commands)
        keys = checks(lambda text: canonical_public_key(text)[0], lambda text: canonical_host_key(text)[0], {})
        table = commands((RENTAL,), keys, finders(cast("Any", kept), kept.given_up), {"republish": nothing_republished})
        line = lines[number].replace('--account "…"', "--account acct1")  # whose it is only the operator knows
        endpoint, request = accepted(line, {each.subject: each for each in table})
        message = request
        if endpoint.locate is not None:
            to, identifier, message = await endpoint.locate(request)
        else:
            assert endpoint.target is not None
            to, identifier = endpoint.target(request)
        await book.command(to, identifier, message, caller="operator:ada")
