"""What a node owes is owed over a restart: nobody is sent there before it is done (A4)."""

from supervisors.simulation.points import Points
from supervisors.simulation.world import Running, World


def test_a_node_that_owes_a_cleanup_is_nobodys_after_a_restart_either() -> None:
    world = World(cleanup_tries=100, cleanup_backoff_ms=(60_000, 60_000))
    world.machine("n1").break_next("user-remove", "fail", 999)

    async def owing(running: Running) -> None:
        await running.account("acme")
        await running.node("n1")
        first = await running.rent("acme", "first")
        await running.until(lambda: running.state("allocation", first) in ("active", "releasing", "released"))
        await running.release(first, "release")
        await running.until(lambda: running.state("allocation", first) == "released")

    async def later(running: Running) -> None:
        second = await running.rent("acme", "second")
        await running.until(lambda: running.state("allocation", second) in ("active", "failed"))
        assert running.body("allocation", second)["failure_code"] == "no_capacity"
        running.world.machine("n1").mend()
        await running.quiet()

    # given a runtime that stops while its node owes a user's removal, and the next one
    assert world.run(owing, Points())
    assert world.run(later)
    assert world.machine("n1").customers() == []
