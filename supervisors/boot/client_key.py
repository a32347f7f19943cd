"""The key to the nodes: one for all runtimes of a database. One with another key would fail every rental, so it ends.

Its fingerprint stands in the database, put there by the first runtime. It is compared before a standby begins to wait,
and once more under the lease.
"""

import secrets
from pathlib import Path

from adapters.postgres.installation import installed
from adapters.postgres.journal import PostgresJournal
from adapters.ssh.client_key import fingerprint, generate_client_key
from amends.ports.journal import Turn
from amends.runtime.engine import Engine
from amends.runtime.writer import Pending
from amends.values import ids
from amends.values.errors import BadConfiguration
from amends.values.records import AuditDraft
from supervisors.paths import chosen_file
from supervisors.settings import Settings

NAME = "ssh_client_key"


def key_file(settings: Settings, state_dir: Path) -> Path:
    """The key's file: the configured one, which is there, or that of the state directory."""
    return chosen_file("[ssh].client_key", settings.ssh.client_key, state_dir / NAME)


def public_of(path: Path) -> str:
    """The public line of the key in that file, made where there is none; raises `BadConfiguration`."""
    try:
        return generate_client_key(path)
    except (OSError, ValueError) as error:  # asyncssh's key errors are ValueErrors
        raise BadConfiguration(f"[ssh].client_key: {path} holds no usable private key: {error}") from None


class ClientKey:
    """The key of this process. `accept_new`: it replaces another one in the database, by the operator's word."""

    def __init__(self, settings: Settings, state_dir: Path, *, accept_new: bool) -> None:
        self.path = key_file(settings, state_dir)
        self._accept_new, self._replaced = accept_new, ""
        self.public = public_of(self.path)
        self.fingerprint = fingerprint(self.public)

    async def look(self, dsn: str) -> None:
        """Before the lease is asked for; raises `BadConfiguration`, `Unavailable`."""
        self._compare(await installed(dsn, NAME))

    async def claim(self, journal: PostgresJournal, now_us: int) -> None:
        """Under the lease, before a node hears of us: set the key if none is set; raises `BadConfiguration`."""
        await journal.fetch("claim_installation", NAME, self.fingerprint, now_us)
        known = (await journal.fetch("read_installation", NAME))[0]["value"]
        self._compare(known)
        if known != self.fingerprint:
            await journal.fetch("change_installation", NAME, self.fingerprint, now_us)
            self._replaced = known

    def audit(self, engine: Engine) -> None:
        """That the key was changed stands in the audit, once commits are written."""
        if not self._replaced:
            return
        now_us = engine.now_us()
        turn = Turn()
        turn.audits = [
            AuditDraft(
                ids.type_id("aud", now_us, secrets.token_bytes(10)), now_us, "runtime", "ssh.client_key_changed",
                "control_plane:runtime", None, None, "--accept-new-ssh-key", "", "", "", engine.context.epoch,
                {"was": self._replaced, "is": self.fingerprint},
            )
        ]  # fmt: skip
        engine.writer.submit(Pending(turn, lambda error: None))

    def _compare(self, known: str) -> None:
        if known in ("", self.fingerprint) or self._accept_new:
            return
        raise BadConfiguration(
            f"the nodes know the SSH key {known}, but this runtime has {self.fingerprint} ({self.path}). All runtimes "
            "of a database share one key: copy the file of the first one (its [ssh].client_key, else ssh_client_key in "
            f"its state directory) to {self.path}, or name a copy in [ssh].client_key. To change the key on purpose, "
            "let root of every node accept the new one first, then start once with `amends run --accept-new-ssh-key`"
        )
