"""What others see of a runtime beside commands: queries, the tree, the matrix, HTTP, traces, `endpoints.json`."""

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from amends.runtime.requests import Endpoint
from amends.runtime.trunk import ChildSpec
from supervisors import endpoints as wire

if TYPE_CHECKING:
    from supervisors.boot.runtime import Runtime


class Front:
    """The read side of one runtime."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime

    async def start(self) -> None:
        """Open what answers questions."""

    async def stop(self) -> None:
        """Close it."""

    def children(self) -> Sequence[ChildSpec]:
        """Services for the supervision tree."""
        return ()

    def endpoints(self) -> list[Endpoint]:
        """Questions operators and callers may ask."""
        return [
            Endpoint(subject="ops.tree.show", request=wire.Empty, role="viewer", answer=self._tree),
        ]

    async def _tree(self, request: Any) -> dict[str, Any]:
        return {"tree": self._runtime.tree()}

    def write_endpoints(self) -> None:
        """`endpoints.json`, mode 0600, written whole or not at all."""
        runtime = self._runtime
        body = {
            "postgres_dsn": runtime.servers.dsn,
            "nats_url": runtime.servers.nats_urls[0],
            "http_url": "",
            "operator_token": runtime.operator_token,
            "ssh_public_key": getattr(runtime, "ssh_public_key", ""),
            "pid": os.getpid(),
        }
        path = runtime.state_dir / "endpoints.json"
        draft = path.with_suffix(".tmp")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(body, file, indent=1)
        draft.replace(path)
