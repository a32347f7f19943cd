"""Who has seen something in the database may rely on it: what is asked next is answered accordingly."""

import asyncio

from supervisors.simulation.points import Points
from supervisors.simulation.world import Running, World


class SlowReplies(Points):
    """What has committed is in the database a good while before the runtime hears so."""

    async def after(self, what: str) -> None:
        """It has happened."""
        await super().after(what)
        if what.startswith("commit"):
            await asyncio.sleep(0.5)


def test_a_node_is_let_back_by_who_has_seen_that_it_owes_nothing_any_more() -> None:
    back: list[str] = []

    async def tell(running: Running) -> None:
        await running.account("acme")
        machine = await running.node("n1")
        allocation = await running.rent("acme", "rent")
        await running.until(lambda: running.state("allocation", allocation) == "active")
        # given a node in quarantine that owes a cleanup, which goes well at last
        machine.break_next("user-remove", "exit")
        await running.ask("ops.node.quarantine", "quarantine", node_id="n1", reason="a look at it")
        await running.release(allocation, "release")
        await running.until(lambda: running.state("allocation", allocation) == "released")
        debts = running.world.database.tables.rows["debts"]
        await running.until(lambda: bool(debts))
        while any(row["settled_us"] is None for row in debts.values()):
            await asyncio.sleep(0.001)
        # when it is let back by who looks into the database
        await running.ask("ops.node.return_to_service", "return", node_id="n1", reason="nothing is owed")
        await running.until(lambda: running.state("node", "n1") == "ready")
        back.append(allocation)

    assert World(1).run(tell, SlowReplies())
    assert back
