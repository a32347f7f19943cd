"""Access to a namespace that several share: who may write beside it, who still needs it, and what is left of it."""

from supervisors.simulation.storage_stories import attach, rented
from supervisors.simulation.world import Running
from tests.simulated.storage import once_active, play


async def _detached(running: Running, attachment: str) -> None:
    await running.ask("cmd.attachment.detach", f"detach-{attachment}", attachment_id=attachment)
    await running.until(lambda: running.state("attachment", attachment) == "detached")


def modes(running: Running) -> dict[str, str]:
    """Of who may mount the namespace, by node."""
    return {node: mode for (_, node), mode in running.world.provider().access.items()}


# --- one writer -------------------------------------------------------------------------------------------------


def test_while_a_reader_shares_a_writers_access_no_other_node_may_write() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        other = await once_active(running, "rent-2", "n2")
        writer = await attach(running, allocation, "writer")
        reader = await attach(running, allocation, "reader", mode="ro", mount_path="/mnt/more")
        await _detached(running, writer)
        assert modes(running) == {"n1": "rw"}
        refused = await attach(running, other, "busy")
        assert running.body("attachment", refused)["reason"] == "namespace_busy"
        assert running.state("attachment", await attach(running, other, "too", mode="ro")) == "attached"
        again = await attach(running, allocation, "again", mount_path="/mnt/again")
        assert running.state("attachment", again) == "attached"
        await _detached(running, again)
        await _detached(running, reader)
        assert running.state("attachment", await attach(running, other, "free", mount_path="/mnt/w")) == "attached"
        await running.quiet()

    play(tell)


def test_the_access_of_a_writer_goes_with_it_where_the_readers_beside_it_have_their_own() -> None:
    async def tell(running: Running) -> None:
        allocation = await rented(running)
        other = await once_active(running, "rent-2", "n2")
        reader = await attach(running, allocation, "reader", mode="ro")
        writer = await attach(running, allocation, "writer", mount_path="/mnt/more")
        assert modes(running) == {"n1": "rw"}
        await _detached(running, writer)
        assert modes(running) == {"n1": "ro"}
        assert running.state("attachment", await attach(running, other, "other")) == "attached"
        assert running.state("attachment", reader) == "attached"
        await running.quiet()

    play(tell)


def test_a_provider_that_allows_several_writers_lets_another_node_write_beside_a_shared_access() -> None:
    async def tell(running: Running) -> None:
        running.world.provider().capabilities["multi_attach"] = True
        allocation = await rented(running)
        other = await once_active(running, "rent-2", "n2")
        writer = await attach(running, allocation, "writer")
        await attach(running, allocation, "reader", mode="ro", mount_path="/mnt/more")
        await _detached(running, writer)
        assert running.state("attachment", await attach(running, other, "other")) == "attached"
        await running.quiet()

    play(tell)


def test_after_a_start_it_is_still_known_which_node_may_write() -> None:
    rentals: list[str] = []

    async def before(running: Running) -> None:
        rentals.append(await rented(running))
        rentals.append(await once_active(running, "rent-2", "n2"))
        writer = await attach(running, rentals[0], "writer")
        await attach(running, rentals[0], "reader", mode="ro", mount_path="/mnt/more")
        await _detached(running, writer)

    async def after(running: Running) -> None:
        await running.until(lambda: running.state("node", "n2") == "ready")
        refused = await attach(running, rentals[1], "busy")
        assert running.body("attachment", refused)["reason"] == "namespace_busy"

    assert play(before).run(after)
