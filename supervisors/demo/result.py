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


async def ended(site: Site, entity: str, outcome: str, row: str) -> None:
    """Wait until a run of that row has ended so for the entity."""
    query = (
        "SELECT count(*) = 1 FROM public_v1.recovery_run WHERE entity = $1 AND final_outcome = $2 AND matrix_row = $3"
    )
    await site.until_sql(f"{row} of {entity} ends {outcome}", query, entity, outcome, row)


async def expect(site: Site, entity: str, wanted: list[tuple[str, str, str]]) -> str:
    """What was undone, in words; raises `DemoFailed` where it is not what the matrix says, in its order."""
    found = await site.compensations(entity)
    if found != wanted:
        raise DemoFailed(f"{entity}: the compensations are {found}, the matrix says {wanted}")
    return ", ".join(f"{kind} {what}" for kind, what, _ in found)
