"""Connections to nodes: opened with a pinned host key, lent to one command at a time, kept for a few seconds.

Knows no step. A connection is here only while nobody uses it; whoever takes it gives it back in good order or
aborts it, so one that has seen an error is never used again.
"""

import asyncio
from contextlib import suppress
from typing import Final

import asyncssh
import msgspec

from adapters.ssh.commands import Code, SshEndpoint
from adapters.ssh.keys import canonical_host_key
from adapters.ssh.session import plain

_CLOSE_WAIT_S: Final = 2.0
# A handshake is our processor's work: of hundreds that are begun at once all would end late, and some too late. One
# that waits for its node longer than this does not count.
_AT_ONCE: Final = 32
_SPOKEN_WITHIN_S: Final = 0.1
# The quickest of those that every server knows, and no weaker than the driver's own order.
_CIPHERS: Final = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
# Every type is offered, the pinned one first: a node that shows a key of another type is then a mismatch like
# any other, where a shorter list would end in "no common algorithm".
_HOST_KEY_ALGORITHMS: Final[dict[str, tuple[str, ...]]] = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}


class CannotConnectError(Exception):
    """The world's: no connection came about, so no command can have run. `code` is the failure code."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message


class _Idle(msgspec.Struct):
    endpoint: SshEndpoint
    connection: asyncssh.SSHClientConnection
    expiry: asyncio.TimerHandle


class _Opening(asyncssh.SSHClient):
    """A connection being opened has a place until it stands, or its node has not spoken in time."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places, self._has_place = places, True
        self._connection: asyncssh.SSHClientConnection | None = None
        self._look = asyncio.get_running_loop().call_later(_SPOKEN_WITHIN_S, self._looked_at)

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """Its node is there; it has yet to speak."""
        self._connection = conn

    def _looked_at(self) -> None:
        if self._connection is None or not self._connection.get_extra_info("server_version"):
            self.give()

    def give(self) -> None:
        """Its place is another's."""
        self._look.cancel()
        self._connection = None
        if self._has_place:
            self._has_place = False
            self._places.release()


class Connections:
    """Opens connections and keeps at most `max_idle` of them for `idle_ms` each, one per node."""

    def __init__(self, key: asyncssh.SSHKey, connect_timeout_ms: int, max_idle: int, idle_ms: int) -> None:
        self._key = key
        self.connect_timeout_s = connect_timeout_ms / 1000
        self._max_idle = max_idle
        self._idle_s = idle_ms / 1000
        self._idle: dict[str, _Idle] = {}  # oldest first
        self._open: set[asyncssh.SSHClientConnection] = set()
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._closed = False

    def __len__(self) -> int:
        """Count the connections that wait for use."""
        return len(self._idle)

    def take(self, node_id: str, endpoint: SshEndpoint) -> asyncssh.SSHClientConnection | None:
        """Lend the waiting connection of this node, if it still leads to the same place and is alive."""
        idle = self._idle.pop(node_id, None)
        if idle is None:
            return None
        idle.expiry.cancel()
        if idle.endpoint == endpoint and not idle.connection.is_closed():
            return idle.connection
        self.discard(idle.connection)
        return None

    def give_back(self, node_id: str, endpoint: SshEndpoint, connection: asyncssh.SSHClientConnection) -> None:
        """Keep a connection that has served without error."""
        if self._closed or self._max_idle <= 0 or connection.is_closed() or node_id in self._idle:
            self.discard(connection)
            return
        while len(self._idle) >= self._max_idle:
            self._expire(next(iter(self._idle)))
        expiry = asyncio.get_running_loop().call_later(self._idle_s, self._expire, node_id)
        self._idle[node_id] = _Idle(endpoint, connection, expiry)

    def discard(self, connection: asyncssh.SSHClientConnection) -> None:
        """Drop a connection at once, without a word to the other side, which may no longer listen."""
        self._open.discard(connection)
        connection.abort()

    async def open(self, endpoint: SshEndpoint) -> asyncssh.SSHClientConnection:
        """Connect, check the host key, log in. Raises CannotConnectError."""
        line, _ = canonical_host_key(endpoint.host_key)
        pinned = asyncssh.import_public_key(line)
        await self._places.acquire()
        opening = _Opening(self._places)
        try:
            if self._closed:
                raise CannotConnectError("ssh_connect_failed", "the client is closed")
            async with asyncio.timeout(self.connect_timeout_s):
                connection = await self._connect(endpoint, pinned, opening)
        except asyncssh.HostKeyNotVerifiable as error:
            raise CannotConnectError("ssh_host_key_mismatch", "the node shows another host key") from error
        except (asyncssh.PermissionDenied, asyncssh.IllegalUserName) as error:
            raise CannotConnectError("ssh_auth_failed", plain(str(error)) or "login refused") from error
        except TimeoutError as error:
            raise CannotConnectError("ssh_connect_failed", "no connection in time") from error
        except asyncssh.KeyExchangeFailed as error:
            # Only a key of a type that is not in our list gets here, and that is not the pinned one either.
            code: Code = "ssh_host_key_mismatch" if "host key" in str(error) else "ssh_connect_failed"
            raise CannotConnectError(code, plain(str(error))) from error
        except (asyncssh.Error, OSError) as error:
            raise CannotConnectError("ssh_connect_failed", plain(str(error)) or type(error).__name__) from error
        finally:
            opening.give()
        self._open.add(connection)
        return connection

    async def _connect(
        self, endpoint: SshEndpoint, pinned: asyncssh.SSHKey, opening: _Opening
    ) -> asyncssh.SSHClientConnection:
        kind = pinned.get_algorithm()
        others = [name for other, names in _HOST_KEY_ALGORITHMS.items() if other != kind for name in names]
        # Not asyncssh's connect_timeout: it goes through wait_for, which on 3.11 loses cancellations.
        return await asyncssh.connect(
            endpoint.host,
            endpoint.port,
            client_factory=lambda: opening,
            username=endpoint.user,
            client_keys=[self._key],
            known_hosts=([pinned], [], []),
            encryption_algs=_CIPHERS,
            server_host_key_algs=[*_HOST_KEY_ALGORITHMS[kind], *others],
            x509_trusted_certs=None,
            config=None,
            agent_path=None,
            gss_host=None,
            preferred_auth="publickey",
            login_timeout=self.connect_timeout_s,
            keepalive_interval=5,
            keepalive_count_max=3,
        )

    def _expire(self, node_id: str) -> None:
        idle = self._idle.pop(node_id)
        idle.expiry.cancel()
        self._open.discard(idle.connection)
        idle.connection.close()

    async def close(self) -> None:
        """Drop every connection, those in use as well: their commands end as unknown."""
        self._closed = True
        for idle in self._idle.values():
            idle.expiry.cancel()
        self._idle.clear()
        connections = list(self._open)
        for connection in connections:
            self.discard(connection)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_WAIT_S):
                for connection in connections:
                    await connection.wait_closed()
