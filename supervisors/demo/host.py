"""The demo's storage host: `amends provider nfs --bind` as a process of its own, over directories below the state."""

import asyncio
import os
import shlex
import sys
from pathlib import Path

from adapters.embedded.process import death_signal_prefix
from supervisors.demo.users import BusUsers

PROVIDER = "nfs-1"
QUOTA_BYTES = 1_000_000
# What a file system with quotas would say: bytes used, and the limit.
SCRIPT = """#!/bin/sh
echo "$(find "$2" -type f -exec cat {{}} + | wc -c) {limit}"
"""


class StorageHost:
    """Made with `StorageHost.spawn`. Each namespace is a directory that is made by hand, as an operator would."""

    def __init__(self, root: Path, process: asyncio.subprocess.Process) -> None:
        self.root, self._process = root, process

    @classmethod
    async def spawn(cls, state_dir: Path, nats_url: str, users: BusUsers) -> "StorageHost":
        """Start it; what it has granted is kept below `state_dir`."""
        root, quota = state_dir / "storage", state_dir / "quota.sh"
        root.mkdir(exist_ok=True)
        quota.write_text(SCRIPT.format(limit=QUOTA_BYTES), encoding="utf-8")
        quota.chmod(0o700)
        user = users.of(f"provider-{PROVIDER}")
        with (state_dir / "provider.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *death_signal_prefix(None), sys.executable, "-m", "supervisors.boot", "provider", "nfs", "--bind",
                "--root", str(root), "--provider", PROVIDER, "--nats", nats_url,
                "--state", str(state_dir / "provider"), "--quota", shlex.quote(str(quota)),
                stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "AMENDS_NATS_USER": user["user"], "AMENDS_NATS_PASSWORD": user["password"]},
            )  # fmt: skip
        return cls(root, process)

    def make(self, namespace: str) -> Path:
        """The directory of a namespace, with a letter in it that nobody may touch."""
        directory = self.root / namespace
        directory.mkdir()
        (directory / "letter").write_text("dear customer", encoding="utf-8")
        return directory

    async def close(self) -> None:
        """End it; what the namespaces hold goes with the demo's state, or stays with it."""
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()
