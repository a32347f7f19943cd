"""What must be the same for whoever runs on this database, such as the fingerprint of the key to its nodes."""

from adapters.postgres.connect import classify, close, connect
from adapters.postgres.statements import statement
from amends.values.errors import Unavailable


async def installed(dsn: str, name: str) -> str:
    """The value that a runtime has set, "" if none has or there is no schema yet. Raises `Unavailable`."""
    connection = await connect(dsn, name="amends-look", read_only=True)
    try:
        if not await connection.fetchval(statement("has_installation")):
            return ""
        return await connection.fetchval(statement("read_installation"), name) or ""
    except Exception as error:
        blame = classify(error)
        raise blame if isinstance(blame, Unavailable) else Unavailable(f"Postgres: {blame}") from error
    finally:
        await close(connection)
