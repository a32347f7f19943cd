"""The end of a process: parts are closed in reverse, under one deadline, and what refuses is named."""

import asyncio

import pytest

from supervisors.closing import Parts


async def refuse() -> None:
    """Takes no cancellation, as long as the test lasts."""
    while True:
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            continue
        else:
            return


async def test_parts_are_closed_in_reverse_and_what_refuses_is_named_and_left(caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []
    parts = Parts()

    async def close(name: str) -> None:
        closed.append(name)

    async def fails() -> None:
        raise OSError("no way")

    parts.opened("servers", lambda: close("servers"))
    parts.opened("lease", refuse)
    parts.opened("journal", fails)
    parts.opened("tree", lambda: close("tree"))
    assert parts.names == ["servers", "lease", "journal", "tree"]
    assert await parts.close(0.1) == ["lease"]
    assert closed == ["tree", "servers"]
    assert parts.names == []
    assert "lease did not close within" in caplog.text
    assert "journal could not be closed" in caplog.text
    await asyncio.sleep(0.3)


async def test_while_a_part_closes_it_is_still_among_the_open_ones() -> None:
    parts, seen = Parts(), list[list[str]]()

    async def look() -> None:
        seen.append(parts.names)

    parts.opened("first", look)
    parts.opened("second", look)
    assert await parts.close(1.0) == []
    assert seen == [["first", "second"], ["first"]]
