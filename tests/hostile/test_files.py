"""What lies in files and in the database: a body that is made out, or named as damaged; never the end of who reads."""

import json
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import example
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from adapters.nats import agent_store, provider_store
from adapters.otel.jaeger import jaeger_json
from adapters.otel.otlp_file import spans_of_file
from adapters.postgres.archives import ArchiveFolder
from amends.runtime.loading import UNKNOWN
from amends.runtime.store import Store
from amends.values.anchors import Anchored, parsed
from amends.values.errors import BadConfiguration
from amends_client.calls import _reply
from amends_client.link import Silence
from supervisors.rental import RENTAL
from tests.actors.stored_bodies import stored
from tests.hostile.values import changed, given, sent, tried
from tools.stored_shapes import stored as shapes

NOT_UTF8: Final = b'{"format": 1, "at_us": "\xff", "seq": "\xff", "task_id": "\xff", "grant_id": "\xff", "ok": "\xff"}'
DEEP: Final = b'{"colour": ' + b"[" * 5000
BODIES: Final = [(kind, identifier, json.loads(body)) for kind, version in (("allocation", 2), ("node", 1))
                 for identifier, body in stored(kind, version).values()]  # fmt: skip
bodies = st.sampled_from(BODIES).flatmap(lambda one: st.tuples(st.just(one[:2]), sent(changed(one[2]))))


@given(bodies)
@example((("node", "n1"), NOT_UTF8))
@example((("node", "n1"), DEEP))
def test_a_stored_state_is_made_out_or_its_entity_is_damaged(given_: tuple[tuple[str, str], bytes]) -> None:
    (kind, identifier), body = given_
    told: list[str] = []
    store = Store({each.name: each for each in RENTAL.kinds}, lambda *one: told.append(one[2]))
    store.load(kind, identifier, body)
    state = store.get(kind, identifier)
    assert (state is None) == (len(told) == 1)
    if state is not None:
        again = Store({each.name: each for each in RENTAL.kinds})
        again.load(kind, identifier, msgspec.json.encode(state))
        assert again.get(kind, identifier) == state


STEPS: Final = {f"step {step.name}": step for step in RENTAL.steps}
EXAMPLES: Final = [(name, body) for name, found in shapes().items() if name in STEPS for body in found]
arguments = st.sampled_from(EXAMPLES).flatmap(lambda one: st.tuples(st.just(one[0]), sent(changed(one[1]))))


@given(arguments)
def test_arguments_of_a_step_are_made_out_or_named(given_: tuple[str, bytes]) -> None:
    name, args = given_
    found, error = tried(UNKNOWN, STEPS[name].read, args.decode(errors="replace"))
    assert error is not None or isinstance(found, dict)


ANCHOR: Final = dict.fromkeys(Anchored.__struct_fields__, "a" * 64) | {
    "seq": 1, "epoch": 1, "audit_seq": 1, "at_us": 1, "mark": "opening",
}  # fmt: skip


@given(sent(changed(ANCHOR)))
@example(NOT_UTF8)
@example(DEEP)
def test_a_line_of_anchors_is_one_or_none(line: bytes) -> None:
    found = parsed(line)
    assert found is None or parsed(found.line().encode()) == found


def test_the_anchor_is_a_good_one() -> None:
    assert parsed(json.dumps(ANCHOR).encode()) is not None


@given(sent(changed({"ok": True, "request_id": "req_1", "trace_id": "a", "duplicate": False, "data": {"a": 1}})))
@example(NOT_UTF8)
@example(DEEP)
def test_an_answer_to_the_client_is_read_or_counts_as_none(body: bytes) -> None:
    found, error = tried(Silence, _reply, body)
    assert (found is None) != (error is None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


MANIFEST: Final = {
    "format": 1, "before_month": 202612, "starts": {"seq": 0}, "ends": {"seq": 1}, "at_us": 1, "tables": {},
}  # fmt: skip
MEMORY: Final = {
    "node_epoch": 1, "runtime_epoch": 1, "undone": [["a", "b"]], "results": {"t": {"task_id": "t", "status": "ok"}},
    "held": {"a": {"attempt_id": "a", "path": "/x", "name": "n", "mode": "ro", "made": True}},
}  # fmt: skip
HELD: Final = {
    "grant_id": "g", "namespace_id": "n", "node_id": "n1", "node_address": "a", "address": "b", "mode": "ro",
    "applied": True, "revoked_us": 1, "settled": False,
}  # fmt: skip
READERS: Final[dict[str, tuple[Any, str, Any]]] = {
    "archive": (MANIFEST, "manifest.json", lambda path: ArchiveFolder(path.parent)),
    "agent": (MEMORY, "agent.json", lambda path: agent_store.AgentStore(path.parent).close()),
    "grant": (HELD, "grant.json", partial(provider_store._read, of=provider_store.Held)),
    "epoch": ({"runtime_epoch": 1}, "provider.json", partial(provider_store._read, of=provider_store.Highest)),
}  # fmt: skip
files = st.sampled_from(sorted(READERS)).flatmap(lambda name: st.tuples(st.just(name), sent(changed(READERS[name][0]))))


@given(files)
@example(("archive", NOT_UTF8))
@example(("agent", NOT_UTF8))
@example(("grant", NOT_UTF8))
@example(("epoch", DEEP))
def test_a_file_of_ours_that_somebody_has_edited_is_read_or_named(folder: Path, given_: tuple[str, bytes]) -> None:
    name, data = given_
    _, file, read = READERS[name]
    (folder / file).write_bytes(data)
    _, error = tried(BadConfiguration, read, folder / file)
    assert error is None or str(folder) in str(error)


# --- spans -----------------------------------------------------------------------------------------------

SPAN: Final = {
    "trace_id": "a" * 32, "span_id": "b" * 16, "parent_span_id": "c" * 16, "name": "x", "kind": "INTERNAL",
    "start_us": 1, "end_us": 2, "status": "OK", "status_message": "", "attributes": {"a": 1, "b": "c", "d": True},
    "events": [{"name": "e", "time_us": 1, "attributes": {"f": 1.5}}], "links": [], "resource": {"service.name": "s"},
}  # fmt: skip
OTLP: Final = {
    "resourceSpans": [{"resource": {"attributes": [{"key": "a", "value": {"intValue": "1"}}]}, "scopeSpans": [
        {"spans": [{"traceId": "A" * 32, "spanId": "B" * 16, "name": "n", "kind": 1, "startTimeUnixNano": "1000",
                    "endTimeUnixNano": "2000", "status": {"code": 1}, "events": [{"name": "e", "timeUnixNano": "1"}],
                    "links": [{"traceId": "A" * 32, "spanId": "B" * 16}]}]}]}],
}  # fmt: skip
JAEGER: Final = jaeger_json([SPAN])
OTLP_REQUEST: Any = ExportTraceServiceRequest


def packed(kind: int) -> bytes:
    """A span of that kind as protobuf."""
    made: bytes = OTLP_REQUEST(resource_spans=[{"scope_spans": [{"spans": [{"kind": kind}]}]}]).SerializeToString()
    return made


protobuf = st.binary(max_size=60).map(lambda data: b"\n" + data) | st.integers(0, 9).map(packed)


@given(sent(changed(OTLP)) | sent(changed(JAEGER)) | protobuf)
@example(NOT_UTF8)
@example(DEEP)
def test_a_file_of_spans_is_read_or_refused(data: bytes) -> None:
    found, error = tried(BadConfiguration, spans_of_file, data)
    assert error is not None or all(isinstance(row["start_us"], int) for row in found)


def test_the_good_files_have_spans() -> None:
    assert len(spans_of_file(json.dumps(OTLP).encode())) == len(spans_of_file(json.dumps(JAEGER).encode())) == 1
