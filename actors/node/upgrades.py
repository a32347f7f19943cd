"""Stored bodies of older releases, brought up a version at a time. It speaks of the past: what stands here stays."""

from typing import Any

# Part → its fields, by their names in bodies of version 1, which were flat.
PARTS: dict[str, dict[str, str]] = {
    "probes": {"probing": "step", "probe_tries": "tries", "probe_failed_us": "failed_us", "unproven": "unproven"},
    "way_back": {
        "returning": "returning", "dirty_acknowledged": "dirty_acknowledged", "reachable": "reachable",
        "reconciling": "step", "reconcile_tries": "tries",
    },
}  # fmt: skip


def in_parts(body: dict[str, Any], node_id: str) -> dict[str, Any]:
    """Of version 1: the flat fields of probes and of the way back become parts."""
    for part, fields in PARTS.items():
        moved = {name: body.pop(old) for old, name in fields.items() if old in body}
        if moved:
            body[part] = moved
    return body
