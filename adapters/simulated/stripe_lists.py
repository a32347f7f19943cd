"""Cursor lists of the simulated Stripe.

Follows "Pagination" of Stripe's API reference: the newest first, `limit` 1 to 100 (10 if not given), `starting_after`
or `ending_before` an object of the list, `has_more` whether more lie in that direction.
"""

import operator
from collections.abc import Iterable

from adapters.simulated.stripe_errors import Thing, invalid, missing
from adapters.simulated.stripe_params import Params

COMPARE = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def page(things: Iterable[Thing], params: Params, url: str) -> Thing:
    """One page of `things`, which come the oldest first."""
    limit = params.integer("limit", 10)
    after, before = params.text("starting_after"), params.text("ending_before")
    created = Params(params.nested("created"))
    params.done()
    bounds = [(name, created.integer(name)) for name in created.names() if name in COMPARE]
    created.done()
    if not 1 <= limit <= 100:
        raise invalid("This value must be between 1 and 100.", "limit", "parameter_invalid_integer")
    if after and before:
        raise invalid("You may only specify one of these parameters: starting_after, ending_before.")
    rows = [thing for thing in things if _within(thing["created"], bounds)][::-1]
    cursor = after or before
    place = next((place for place, row in enumerate(rows) if row["id"] == cursor), -1)
    if cursor and place < 0:
        raise missing("object in this list", cursor, "starting_after" if after else "ending_before", 400)
    if before:
        shown, more = rows[max(0, place - limit) : place], place > limit
    else:
        shown, more = rows[place + 1 : place + 1 + limit], place + 1 + limit < len(rows)
    return {"object": "list", "url": url, "has_more": more, "data": shown}


def _within(created: int, bounds: list[tuple[str, int]]) -> bool:
    return all(COMPARE[name](created, bound) for name, bound in bounds)
