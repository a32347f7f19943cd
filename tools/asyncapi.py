"""Write docs/asyncapi.json: every subject of the product as an AsyncAPI 3.0 document, from the types that serve it.

`python -m tools.asyncapi` writes the page; tests/docs/test_asyncapi.py fails when document and code differ. Actions are
the runtime's: it receives commands, heartbeats and results, and sends events, notifications and tasks.
"""

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import msgspec

from adapters.nats import provider_words
from adapters.nats.agent_messages import Heartbeat, TaskResult
from adapters.nats.service import PREFIX, reply_schema
from adapters.postgres.reading import ENTITIES
from amends.domain.domain import Domain
from amends.runtime.requests import Endpoint
from supervisors.api.backtest import Backtest
from supervisors.api.endpoints import checks, commands, finders
from supervisors.api.ledger import LedgerQuestions
from supervisors.api.ledger_proof import LedgerProof
from supervisors.api.operators import OperatorQuestions
from supervisors.api.policies import PolicyQuestions
from supervisors.api.questions import Questions
from supervisors.api.replies import data_schema, row
from supervisors.api.traces import Traces
from supervisors.api.webhooks import Webhooks
from supervisors.api.whatif import WhatIf
from supervisors.rental import RENTAL
from tools import asyncapi_schemas as schemas
from tools.views import column_type, views

PAGE = Path(__file__).parents[1] / "docs" / "asyncapi.json"
Json = dict[str, Any]


def endpoints() -> list[Endpoint]:
    """All endpoints of the service, without a runtime: their tables are data, only their answers need one."""
    none = cast(Any, None)
    asked = (
        OperatorQuestions(none, none, none, none), PolicyQuestions(none, none), LedgerQuestions(none),
        Traces(none, none, none, none), Questions(none, ENTITIES), Webhooks(none, none, none, none),
        LedgerProof(none, none, none), Backtest(none, none), WhatIf(none, none, ()),
    )  # fmt: skip
    questions = [endpoint for each in asked for endpoint in each.endpoints()]
    return [*commands((RENTAL,), checks(str, str, {}), finders(none), {"republish": none}), *questions]


def ref(*path: str) -> Json:
    """A reference into this document."""
    return {"$ref": "#/" + "/".join(path)}


def portable(schema: Any) -> Any:
    """Without the one thing in our patterns that validators of other languages lack: the look past the end."""
    if isinstance(schema, dict):
        return {key: portable(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [portable(each) for each in schema]
    return schema.replace(r"$(?!\n)", "$") if isinstance(schema, str) else schema


def title(subject: str) -> str:
    """`cmd.node.register` → `CmdNodeRegister`: the name of a message."""
    return "".join(part.title() for part in re.split(r"[._]", subject))


class Document:
    """The document as it grows."""

    def __init__(self) -> None:
        self.channels: Json = {}
        self.operations: Json = {}
        self.messages: Json = {}
        self.schemas: Json = {}
        self.columns = {view: {name: column_type(name) for name in names} for view, names in views().items()}
        for view, columns in self.columns.items():
            self.schemas[f"Row.{view}"] = row(columns)

    def channel(self, name: str, address: str | None, messages: Mapping[str, Json], parameters: Json) -> None:
        """A subject and what goes over it."""
        self.messages |= {key: {"name": key, **body} for key, body in messages.items()}
        found = {key: ref("components", "messages", key) for key in messages}
        self.channels[name] = {"address": address, "messages": found}
        if parameters:
            self.channels[name]["parameters"] = parameters

    def operation(self, action: str, name: str, summary: str, **more: Any) -> None:
        """What the runtime does on the channel of that name."""
        messages = [ref("channels", name, "messages", key) for key in self.channels[name]["messages"]]
        self.operations[name] = {
            "action": action, "channel": ref("channels", name), "summary": summary, "messages": messages, **more,
        }  # fmt: skip

    def stream(self, action: str, name: str, place: str, summary: str, message: str, body: Json, **parameters: Json
               ) -> None:  # fmt: skip
        """A channel with one message and its operation."""
        self.channel(name, PREFIX + place, {message: body}, parameters)
        self.operation(action, name, summary)

    def typed(self, kind: type, of: str = "") -> Json:
        """A reference to the schema of a type; what it needs goes with it, `of` before all their names."""
        template = f"#/components/schemas/{of}{{name}}"
        (found,), needed = msgspec.json.schema_components([kind], ref_template=template)
        self.schemas |= {f"{of}{name}": portable(schema) for name, schema in needed.items()}
        return cast(Json, portable(found))

    def rows(self, schema: Any) -> Any:
        """The schema with each row of a view as a reference to that view's one."""
        if isinstance(schema, dict):
            for entity, columns in self.columns.items():
                if schema == row(columns):
                    return ref("components", "schemas", f"Row.{entity}")
            return {key: self.rows(value) for key, value in schema.items()}
        return [self.rows(each) for each in schema] if isinstance(schema, list) else schema

    def as_json(self) -> Json:
        """The whole."""
        return {
            "asyncapi": "3.0.0",
            "info": {
                "title": "Amends",
                "version": version("amends"),
                "description": "Subjects of NATS on which Amends is spoken to and speaks. Actions are the runtime's.",
            },
            "defaultContentType": "application/json",
            "channels": dict(sorted(self.channels.items())),
            "operations": dict(sorted(self.operations.items())),
            "components": {
                "messages": dict(sorted(self.messages.items())),
                "schemas": dict(sorted(self.schemas.items())),
            },
        }


def add_service(it: Document) -> None:
    """Requests and their replies."""
    it.schemas |= schemas.HEADERS
    replies = {
        f"{title(endpoint.subject)}Reply": {
            "payload": reply_schema(it.rows(data_schema(endpoint, it.columns))), "summary": schemas.REPLY,
        }
        for endpoint in endpoints()
    }  # fmt: skip
    it.channel("reply", None, replies, {})
    for endpoint in endpoints():
        name = endpoint.subject
        headers = schemas.headers_of(endpoint)
        payload = it.typed(endpoint.request) if isinstance(endpoint.request, type) else schemas.LIST
        message = {"headers": ref("components", "schemas", headers), "payload": payload}
        it.channel(name, PREFIX + name, {title(name): message}, {})
        asks = "a question" if endpoint.answer is not None else "a change"
        answered: Json = {
            "reply": {
                "address": {"location": "$message.header#/reply-to", "description": "the inbox of the request"},
                "channel": ref("channels", "reply"),
                "messages": [ref("channels", "reply", "messages", f"{title(name)}Reply")],
            },
            "bindings": {"nats": {"queue": "amends.<epoch>"}},
        }  # fmt: skip
        it.operation("receive", name, f"{asks}, for the role {endpoint.role}", **answered)
        if endpoint.keyed:
            key = {endpoint.keyed: {"description": "of an entity that exists; it need not stand in the data then"}}
            it.channel(f"{name}.*", f"{PREFIX}{name}.{{{endpoint.keyed}}}", {title(name): message}, key)
            it.operation("receive", f"{name}.*", "the same command, with its key in the subject", **answered)


def add_events(it: Document, domain: Domain) -> None:
    """JetStream: events of each kind that has them, and notifications."""
    it.schemas["Notification"] = schemas.NOTIFICATION
    kinds = {kind.name: tuple(dict.fromkeys(to for _, to in kind.transitions)) for kind in domain.kinds if kind.events}
    for kind, beside in schemas.BESIDE.items():
        kinds[kind] += beside
    for kind, names in {**kinds, **schemas.ANNOUNCED}.items():
        own = it.columns.get(kind)
        data = {**row(own), "required": []} if own else schemas.ANNOUNCED_DATA[kind]
        if other := schemas.OF_ANOTHER.get(kind):
            data = {**data, "properties": {**row(it.columns[other])["properties"], **data["properties"]}}
        it.schemas[f"Event.{kind}"] = schemas.event(kind, data)
        body = {"headers": schemas.MESSAGE_ID, "payload": ref("components", "schemas", f"Event.{kind}")}
        it.stream(
            "send", f"evt.{kind}", f"evt.{kind}.{{entity_id}}.{{event}}", "an event, in stream AMENDS_EVT",
            f"Event{title(kind)}", body, entity_id={"description": "whose event it is"}, event={"enum": list(names)},
        )  # fmt: skip
    for audience, place in schemas.AUDIENCES.items():
        body = {"headers": schemas.MESSAGE_ID, "payload": ref("components", "schemas", "Notification")}
        parameters: dict[str, Json] = {"kind": {"enum": list(schemas.NOTIFICATIONS[audience])}}
        if "{account_id}" in place:
            parameters["account_id"] = {"description": "the account that is told"}
        it.stream(
            "send", f"ntf.{audience}", place, "a notification, in stream AMENDS_NTF",
            f"Notification{audience.title()}", body, **parameters,
        )  # fmt: skip


def add_agents(it: Document) -> None:
    """Heartbeats, tasks and results of the nodes' agents."""
    node: Json = {"description": "the node, as it was registered"}
    it.schemas["Task"] = schemas.TASK
    it.stream(
        "receive", "hb", "hb.{node_id}", "a node is alive; nothing is answered",
        "Heartbeat", {"payload": it.typed(Heartbeat)}, node_id=node,
    )  # fmt: skip
    it.stream(
        "send", "task", "task.{node_id}", "work for a node's agent; sent again, unchanged, until its result comes",
        "Task", {"headers": schemas.TRACE, "payload": ref("components", "schemas", "Task")}, node_id=node,
    )  # fmt: skip
    it.stream(
        "receive", "result", "result.{node_id}", "what became of a task; the same again for the same task_id",
        "TaskResult", {"payload": it.typed(TaskResult)}, node_id=node,
    )  # fmt: skip


def add_providers(it: Document) -> None:
    """What storage providers are asked, and how they answer."""
    answer: Json = {"payload": it.typed(provider_words.Reply, "Provider")}
    it.channel("provider.reply", None, {"ProviderReply": answer}, {})
    it.channel("provider", f"{PREFIX}provider.{{provider_id}}.{{op}}", {
        "ProviderRequest": {"headers": schemas.TRACE, "payload": it.typed(provider_words.Request, "Provider")},
    }, {
        "provider_id": {"description": "the provider of a namespace"}, "op": {"enum": list(provider_words.NEEDED)},
    })  # fmt: skip
    it.operation("send", "provider", "a question to a storage provider, of access or usage", reply={
        "address": {"location": "$message.header#/reply-to", "description": "an inbox of the runtime"},
        "channel": ref("channels", "provider.reply"),
        "messages": [ref("channels", "provider.reply", "messages", "ProviderReply")],
    })  # fmt: skip


def document(domain: Domain = RENTAL) -> Json:
    """The AsyncAPI document."""
    it = Document()
    add_service(it)
    add_events(it, domain)
    add_agents(it)
    add_providers(it)
    return it.as_json()


def page() -> str:
    """The document as text."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=1).decode() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.name} written")
