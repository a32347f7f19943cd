"""A machine that restarts under a set-up is another one: its reservation is of an epoch that is past (A5)."""

import asyncio

from supervisors.simulation.world import Running, World


def test_a_set_up_on_a_machine_that_is_another_one_comes_to_nothing() -> None:
    world = World()
    machine = world.machine("n1")
    machine.break_next("key-install", "slow", 1)
    ended: list[str] = []

    async def story(running: Running) -> None:
        await running.account("acme")
        await running.node("n1")
        allocation = await running.rent("acme", "rent")
        # when the machine restarts after its user was made, and the set-up goes on
        await running.until(lambda: bool(machine.customers()))
        machine.boot_id = "another"
        await running.until(lambda: running.state("allocation", allocation) in ("active", "failed"))
        ended.append(running.state("allocation", allocation))
        await asyncio.sleep(5)

    assert world.run(story)
    # then it never becomes a customer's
    assert ended == ["failed"]
