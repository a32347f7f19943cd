"""The mark of a restored database: the lease's epoch raised, and a document that says so, in one transaction.

It takes the lease first, by the rules of any runtime, so that none is at work and none begins meanwhile.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from adapters.postgres.connect import DRIVER_ERRORS, close, connect
from adapters.postgres.lease import POLL_S, Lease, blame
from adapters.postgres.statements import statement
from amends.values.canonical import sha256
from amends.values.errors import BadConfiguration, Fenced

HOLDER = "amends restore"


class Held(Exception):
    """A runtime holds the lease and renews it; the message says which."""


async def mark_restored(
    dsn: str, kind: str, by: int, body: Callable[[int], bytes], at_us: int, is_dead: Callable[[str], bool]
) -> int:
    """Raise the lease's epoch by so much and store a document of that kind, made of the new epoch, which is returned.

    A lease that nobody renews is taken after `STALE_S`. Raises `Held`, `BadConfiguration`, `Unavailable`.
    """
    await _check(dsn)
    lease = _Marking(dsn, HOLDER, is_dead)
    try:
        await _acquire(lease)
        return await lease.mark(kind, by, body, at_us)
    except DRIVER_ERRORS as error:
        raise blame(error) from error
    finally:
        await lease.aclose()


async def _check(dsn: str) -> None:
    connection = await connect(dsn, name="amends-restore")
    try:
        if not await connection.fetchval(statement("has_journal")):
            raise BadConfiguration("this database has no journal of a runtime: nothing was restored here")
    finally:
        await close(connection)


async def _acquire(lease: "_Marking") -> None:
    first = None
    while await lease.acquire_now() is None:
        seen = lease.seen
        first = first or seen
        if seen != first:  # renewed before our eyes, or taken by another one
            raise Held(f"the runtime {seen[2]} holds the lease at epoch {seen[0]} and renews it: stop it first")
        await asyncio.sleep(POLL_S)


class _Marking(Lease):
    """A lease that is taken for no more than that."""

    seen: tuple[int, Any, str] = (0, None, "")  # epoch, renewal and holder at the last look

    def _is_free(self, found: Any, now: float) -> bool:
        self.seen = (found["epoch"], found["renewed_at"], found["holder"])
        return super()._is_free(found, now)

    async def mark(self, kind: str, by: int, body: Callable[[int], bytes], at_us: int) -> int:
        """See `mark_restored`; the lease is given up with it."""
        assert self._renewing is not None
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        connection = await connect(self._dsn, name="amends-restore")
        try:
            async with connection.transaction():
                number: int | None = await connection.fetchval(statement("raise_lease"), self.epoch, by)
                if number is None:
                    raise Fenced("a runtime has taken the lease meanwhile: nothing was marked")
                text = body(number)
                await connection.execute(statement("store_document"), sha256(text), kind, text.decode(), at_us)
        finally:
            await close(connection)
        return number
