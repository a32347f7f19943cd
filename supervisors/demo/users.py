"""The demo's users on NATS: runtime, front end, operator, keeper of streams, each node; permissions of api.md 10."""

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from adapters.nats.permissions import configuration


class BusUsers:
    """Passwords kept below `state_dir`, and the file that the embedded server reads; all of mode 0600."""

    def __init__(self, state_dir: Path, nodes: Sequence[str]) -> None:
        kept = state_dir / "nats-passwords.json"
        self.file = state_dir / "nats-users.conf"
        known: dict[str, str] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        names = ("runtime", "front", "operator", "streams", "provider-nfs-1", *(f"node-{node}" for node in nodes))
        self._passwords = {name: known.get(name) or secrets.token_urlsafe(18) for name in names}
        _write(kept, json.dumps(self._passwords))
        _write(self.file, configuration({name: json.dumps(value) for name, value in self._passwords.items()}))

    def of(self, name: str) -> dict[str, str]:
        """What a client of that name connects with."""
        return {"user": name, "password": self._passwords[name]}

    def of_node(self, node_id: str) -> tuple[str, str]:
        """User and password of a node's agent."""
        name = f"node-{node_id}"
        return name, self._passwords[name]


def _write(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
