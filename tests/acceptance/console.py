"""A person who knows nothing but the console: comes from its first page to a case, and settles it there."""

from tests.acceptance.browser import Browser, Page
from tests.acceptance.world import World


async def settle(world: World, kind: str, target_ref: str, subject: str, **fields: str) -> None:
    """From the first page to the open case of that kind and target, and through its form; `fields` beside the known."""
    async with Browser(world.endpoints["http_url"]) as person:
        assert (await person.log_in(world.operator_token or world.endpoints["operator_token"])).status == 200
        page = await _case(person, kind, target_ref)
        assert "Runbook" in page.text
        after = await person.do(page, subject, **{"reason": "settled in the console", **fields})
        assert (after.status, after.url) == (200, page.url), after.text


async def _case(person: Browser, kind: str, target_ref: str) -> Page:
    first = await person.get("/")
    seen = []
    for link in dict.fromkeys(each for each in first.links if each.startswith("/cases/")):
        page = await person.get(link)
        if f"<h1>{kind}</h1>" in page.text and target_ref in page.text:
            return page
        seen.append(link)
    raise AssertionError(f"no case {kind} of {target_ref} among {seen}: {first.text}")
