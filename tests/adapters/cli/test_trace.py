"""A trace as a tree: children below their parents in the order in which they ended, links, errors, what each took."""

from typing import Any

from adapters.cli.trace import page


def span(
    trace_id: str, span_id: str, name: str, start: int, took: int, parent: str = "", **tags: Any
) -> dict[str, Any]:
    references = [{"refType": "CHILD_OF", "traceID": trace_id, "spanID": parent}] if parent else []
    if follows := tags.pop("follows", ""):
        references.append({"refType": "FOLLOWS_FROM", "traceID": "b", "spanID": follows})
    return {
        "traceID": trace_id, "spanID": span_id, "operationName": name, "startTime": start, "duration": took,
        "references": references,
        "tags": [{"key": key.replace("__", "."), "value": value} for key, value in tags.items()],
    }  # fmt: skip


def test_a_run_is_drawn_with_its_undo_before_its_end() -> None:
    spans = [
        span("a", "end0000000", "recovery.ended", 0, 20, "root000000", recovery__final_outcome="recovered"),
        span("a", "root000000", "recovery R02", 0, 0, follows="broken0000"),
        span("a", "undo000000", "reverse user-create", 5, 15, "root000000", compensation__outcome="success"),
        span("a", "work000000", "ssh.user-remove", 5, 14, "undo000000"),
    ]
    other = [span("b", "broken0000", "ssh.key-install", 1, 2, error=True)]
    text = page({"data": [{"traceID": "b", "spans": other}, {"traceID": "a", "spans": spans}]}, "a")
    rows = [line.split() for line in text.splitlines()]
    assert [" ".join(row[:4]) for row in rows if row] == [
        "trace a 1970-01-01 00:00:00.000Z", "recovery R02 root0000 0.0", "├─ reverse user-create undo0000",
        "│ └─ ssh.user-remove work0000", "└─ recovery.ended end00000 0.0", "trace b 1970-01-01 00:00:00.000Z",
        "ssh.key-install ERROR broken00 0.0",
    ]  # fmt: skip
    assert text.splitlines()[1].endswith("→ broken00")
    assert text.splitlines()[4].endswith("recovered")
