"""What a scene came to, and how it is held to the matrix."""

from msgspec import Struct

from supervisors.demo.site import DemoFailed, Site


class Result(Struct):
    """What one row did."""

    row: str
    broken: str
    undone: str
    outcome: str
    ms: float


async def ended(site: Site, entity: str, outcome: str, row: str, *, since_us: int = 0) -> None:
    """Wait until a run of that row has ended so for the entity: the one that it has, or has since that instant.

    A machine, unlike a rental, may have had others: of an earlier demo on the same state.
    """
    query = """SELECT count(*) = 1 FROM public_v1.recovery_run
               WHERE entity = $1 AND final_outcome = $2 AND matrix_row = $3 AND started_us >= $4"""
    await site.until_sql(f"{row} of {entity} ends {outcome}", query, entity, outcome, row, since_us)


async def expect(site: Site, entity: str, wanted: list[tuple[str, str, str]]) -> str:
    """What was undone, in words; raises `DemoFailed` where it is not what the matrix says, in its order."""
    found = await site.compensations(entity)
    if found != wanted:
        raise DemoFailed(f"{entity}: the compensations are {found}, the matrix says {wanted}")
    return ", ".join(f"{kind} {what}" for kind, what, _ in found)
