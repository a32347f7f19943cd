"""The read-only role as others log in with it: on an external server it gets a password of this runtime's making."""

from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from adapters.postgres.connect import classify, close, connect
from adapters.postgres.statements import statement

READER = "amends_reader"  # made by the schema; sees the views and nothing else


def dsn_for(dsn: str, password: str = "") -> str:
    """The same database, as the reader."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    login = f"{READER}:{quote(password, safe='')}" if password else READER
    return urlunsplit(parts._replace(netloc=f"{login}@{host}"))


def read_only_dsn(dsn: str) -> str:
    """The same login in read-only transactions, as every client of libpq and asyncpg understands it."""
    return f"{dsn}{'&' if '?' in dsn else '?'}options=-c%20default_transaction_read_only%3Don"


async def let_in(dsn: str, password: str) -> str:
    """Give the reader that password; its DSN, or "" where the owner may not make roles. Raises `Unavailable`."""
    connection = await connect(dsn, name="amends-setup")
    try:
        if not await connection.fetchval(statement("role_exists"), READER):
            return ""
        await connection.execute(await connection.fetchval(statement("role_login"), READER, password))
    except asyncpg.InsufficientPrivilegeError:
        return ""
    except asyncpg.PostgresError as error:
        raise classify(error) from error
    finally:
        await close(connection)
    return dsn_for(dsn, password)
