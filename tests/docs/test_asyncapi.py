"""docs/asyncapi.json is what tools/asyncapi.py makes of the code: whole, well-formed, true of what is really sent."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from actors.steps import OnMount, Reconcile
from adapters.nats.agent_messages import Heartbeat, Inventory, TaskResult
from adapters.nats.agents import AgentTasks
from adapters.nats.service import PREFIX
from amends.ports.steps import StepCall
from supervisors.demo.site import Site
from tests.patience import PATIENCE_S
from tools import asyncapi
from tools import asyncapi_schemas as schemas

ROOT = asyncapi.PAGE.parents[1]
DOCUMENT: dict[str, Any] = json.loads(asyncapi.PAGE.read_text(encoding="utf-8"))
NOTIFIES = re.compile(r'\bnotify\(\s*(?:d|self),\s*"([a-z._]+)"')
ANNOUNCES = re.compile(r'\.announce\("([a-z_]+)", "[a-z_]+", (?:"([a-z_]+)"|name)')


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def pointed_at(reference: str) -> Any:
    found: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def check(schema: str, message: dict[str, Any]) -> None:
    jsonschema.validate(message, {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]})


def test_the_document_is_what_the_code_says() -> None:
    assert asyncapi.PAGE.read_text(encoding="utf-8") == asyncapi.page(), "run: python -m tools.asyncapi"


def test_it_has_the_structure_that_asyncapi_3_requires() -> None:
    assert re.fullmatch(r"3\.\d+\.\d+", DOCUMENT["asyncapi"])
    assert {"title", "version"} <= set(DOCUMENT["info"])
    assert set(DOCUMENT) == {"asyncapi", "info", "defaultContentType", "channels", "operations", "components"}
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = operation["channel"]["$ref"]
        assert pointed_at(channel)["messages"]
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])
        if "reply" in operation:
            assert pointed_at(operation["reply"]["channel"]["$ref"])["address"] is None


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert len(found) > 50
    assert all(pointed_at(reference) for reference in found)


def test_every_parameter_of_an_address_is_declared_and_no_other() -> None:
    for channel in DOCUMENT["channels"].values():
        named = set(re.findall(r"{(\w+)}", channel["address"] or ""))
        assert named == set(channel.get("parameters", {}))


def test_every_schema_is_a_json_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_endpoint_is_a_channel_that_is_received_and_answered() -> None:
    table = asyncapi.endpoints()
    assert len({endpoint.subject for endpoint in table}) == len(table) > 40
    for endpoint in table:
        assert DOCUMENT["channels"][endpoint.subject]["address"] == PREFIX + endpoint.subject
        operation = DOCUMENT["operations"][endpoint.subject]
        assert operation["action"] == "receive"
        assert "reply" in operation


def resolved(schema: Any) -> Any:
    """With what it points at in its place; 32 and 64 bits are both whole numbers."""
    if isinstance(schema, list):
        return [resolved(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return resolved(pointed_at(schema["$ref"]))
    return {key: resolved(value) for key, value in schema.items()}


def test_no_reply_or_event_is_a_bare_object_and_no_pattern_looks_ahead() -> None:
    bare = {"type": "object", "required": [], "properties": {}}
    for message in DOCUMENT["channels"]["reply"]["messages"]:
        payload = DOCUMENT["components"]["messages"][message]["payload"]
        assert payload["properties"]["data"] not in ({"type": "object"}, bare), message
    for name, channel in DOCUMENT["channels"].items():
        if name.startswith("evt."):
            (message,) = channel["messages"]
            schema = resolved(DOCUMENT["components"]["messages"][message]["payload"])
            assert schema["properties"]["data"]["properties"], name
    assert "(?" not in json.dumps(DOCUMENT)


@pytest.mark.slow
async def asked(site: Site, subject: str, data: dict[str, Any]) -> dict[str, Any]:
    """The whole reply."""
    headers = {"Idempotency-Key": subject, "Authorization": f"Bearer {site.endpoints['operator_token']}"}
    client = site.operator if subject.startswith("ops.") else site.front
    if client is site.front:
        del headers["Authorization"]
    message = await client.request(PREFIX + subject, json.dumps(data).encode(), timeout=PATIENCE_S, headers=headers)
    found: dict[str, Any] = json.loads(message.data)
    return found


async def stored(js: JetStreamContext, subject: str) -> RawStreamMsg:
    """The event of that subject, once the relay has published it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await js.get_last_msg("AMENDS_EVT", subject)
            except NotFoundError:
                await asyncio.sleep(0.02)


async def test_a_running_service_announces_exactly_these_endpoints_and_its_event_fits(state_dir: Path) -> None:
    state_dir.mkdir()
    site = Site(state_dir, nodes=0)
    try:
        await site.start_servers()
        await site.start_runtime()
        await site.connect()
        info = json.loads((await site.operator.request("$SRV.INFO.amends", b"", timeout=PATIENCE_S)).data)
        announced_replies = {
            each["subject"].removeprefix(PREFIX): json.loads(each["metadata"]["reply_schema"])
            for each in info["endpoints"]
        }
        for subject, data in (
            ("cmd.account.create", {"account_id": "acme", "currency": "usd"}),
            ("qry.account.get", {"id": "acme"}),
            ("qry.account.list", {}),
            ("qry.step.list", {"limit": 3}),
            ("qry.node.get", {"id": "nobody"}),
            ("ops.case.list", {}),
            ("ops.tree.show", {}),
            ("ops.matrix.show", {}),
            ("ops.audit.verify", {}),
        ):
            reply = await asked(site, subject, data)
            jsonschema.validate(reply, announced_replies[subject])
        event = await stored(site.admin.jetstream(), "amends.v1.evt.account.acme.open")
    finally:
        await site.close()
    check("Event.account", json.loads(event.data or b""))
    jsonschema.validate(event.headers, schemas.MESSAGE_ID)
    for subject, schema in announced_replies.items():  # the page says of each subject what the service says
        (message,) = DOCUMENT["operations"][subject]["reply"]["messages"]
        payload = pointed_at(pointed_at(message["$ref"])["$ref"])["payload"]
        assert resolved(payload) == resolved(schema), subject
    announced = {endpoint["subject"] for endpoint in info["endpoints"]}
    operations = DOCUMENT["operations"].items()
    answered = {name for name, each in operations if each["action"] == "receive" and "reply" in each}
    assert announced == {PREFIX + name for name in answered}
    assert info["version"] == DOCUMENT["info"]["version"]


def test_every_notification_and_every_announced_event_of_the_code_is_listed() -> None:
    files = [*(ROOT / "actors").rglob("*.py"), *(ROOT / "src" / "amends").rglob("*.py")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    listed = {kind for kinds in schemas.NOTIFICATIONS.values() for kind in kinds}
    assert set(NOTIFIES.findall(code)) == listed
    announced = {kind for kind, _ in ANNOUNCES.findall(code)}
    assert announced == set(schemas.ANNOUNCED)
    assert {name for _, name in ANNOUNCES.findall(code) if name} <= {n for ns in schemas.ANNOUNCED.values() for n in ns}


class Recorder:
    """A NATS client that answers nothing and keeps what is published."""

    def __init__(self) -> None:
        self.published: list[tuple[str, dict[str, Any], dict[str, str]]] = []

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        self.published.append((subject, json.loads(payload), headers))


RECONCILE = Reconcile("n1", 1, {"mounts": [], "users": ["am-x"]}, report_only=True)
BIND, NFS = {"type": "bind", "path": "/srv"}, {"type": "nfs", "server": "s", "export": "/srv", "options": "hard"}


@pytest.mark.parametrize(
    ("op", "args", "schema"),
    [
        ("reconcile", RECONCILE, schemas.RECONCILE_TASK),
        ("mount", OnMount("n1", "a", "t", "n", "rw", "/mnt/a", NFS, 1), schemas.MOUNT_TASK),
        ("unmount", OnMount("n1", "a", "t", "n", "ro", "/mnt/a", BIND, 1, "act"), schemas.MOUNT_TASK),
    ],
)
async def test_a_task_as_it_is_sent_fits_its_schema(op: str, args: Any, schema: dict[str, Any]) -> None:
    recorder = Recorder()
    tasks = AgentTasks(cast(Any, recorder), 7, lambda: 1, lambda node_id: 1)
    given = msgspec.to_builtins(args)
    call = StepCall("step_0", f"agent.{op}", "node:n1", "agent:n1", given, 1, "k", 7, 1, "0" * 32, "0" * 16)
    assert (await tasks.run(call)).code == "agent_timeout"
    ((subject, task, headers),) = recorder.published
    assert subject == "amends.v1.task.n1"
    check("Task", task)
    assert set(task) == set(schema["properties"])
    jsonschema.validate(headers, schemas.TRACE)
    with pytest.raises(jsonschema.ValidationError):
        check("Task", {**task, "op": "dance"})


def test_heartbeats_and_results_fit_their_schemas() -> None:
    check("Heartbeat", msgspec.to_builtins(Heartbeat("boot", 1, 1)))
    check("TaskResult", msgspec.to_builtins(TaskResult("task_0", "ok", inventory=Inventory([], []))))
    with pytest.raises(jsonschema.ValidationError):
        check("Heartbeat", {"boot_id": "boot"})


def test_a_command_without_its_required_fields_does_not_fit() -> None:
    check("CreateAccount", {"account_id": "acme", "currency": "usd"})
    for wrong in ({"account_id": "acme"}, {"account_id": "ACME!", "currency": "usd"}):
        with pytest.raises(jsonschema.ValidationError):
            check("CreateAccount", wrong)
