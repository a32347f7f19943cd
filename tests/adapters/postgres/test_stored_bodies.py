"""Bodies of older releases in the database: the views read them as they lie there."""

import asyncpg

from actors.allocation.kind import ALLOCATION
from actors.allocation.state import Allocation, view_allocation
from actors.node.kind import NODE
from amends.domain.domain import rows_of
from amends.ports.journal import Turn
from amends.runtime.store import Store
from amends.turn.seal import seal
from amends.values.canonical import canonical
from supervisors.rental import RENTAL
from tests.actors.stored_bodies import stored
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.verdicts import of_python, of_view


async def test_a_node_that_an_operator_lets_back_is_missed_when_nothing_moves_it_in_either_shape(
    database: Database,
) -> None:
    store, head = Store({"node": NODE}), database.book.head
    identifier, body = stored("node", 1)["quarantined: asked in vain"]
    state = store.decoded("node", identifier, body.encode())
    assert state is not None
    for version, text in enumerate((body, canonical(state).decode()), state.version):
        turn = Turn()
        turn.kind, turn.id, turn.state, turn.version, turn.body = "node", identifier, state.state, version, text
        commit = seal([turn], head, rows_of((RENTAL,)))
        await database.journal.commit(commit)
        head = commit.after
        connection = await asyncpg.connect(database.superuser_dsn)
        verdicts = [await of_view(connection), await of_python(connection)]
        await connection.close()
        assert [("A3", f"node:{identifier}", "nothing brings it back") in verdict for verdict in verdicts] == [True] * 2


async def test_a_body_that_no_release_has_touched_since_shows_what_it_shows_brought_up(database: Database) -> None:
    """What nobody touches stays as an older release wrote it for ever: no migration rewrites what the chain holds."""
    store, head = Store({"allocation": ALLOCATION}), database.book.head
    for identifier, body in stored("allocation", 2).values():
        state = store.decoded("allocation", identifier, body.encode())
        assert isinstance(state, Allocation)
        await database.force(
            f"""DELETE FROM meters; DELETE FROM allocations; INSERT INTO meters
                VALUES ('m', '{identifier}', 'a', 'stopped', 1, '1', '', 1, 2, 'release', 1, 1)"""
        )
        for version, text in enumerate((body, canonical(state).decode()), state.version):
            turn = Turn()
            turn.kind, turn.id, turn.state, turn.version, turn.body = (
                "allocation",
                identifier,
                state.state,
                version,
                text,
            )
            commit = seal([turn], head, rows_of((RENTAL,)))
            await database.journal.commit(commit)
            head = commit.after
            shown = {**view_allocation(state, identifier, None), "version": version}
            row = await database.read.get("allocation", identifier)
            assert {field: row[field] for field in shown} == shown
            connection = await asyncpg.connect(database.superuser_dsn)
            verdicts = [await of_view(connection), await of_python(connection)]
            await connection.close()
            odd = ("B6", "meter:m", "it does not say what its allocation says")
            assert [odd in verdict for verdict in verdicts] == [state.billing.state != "stopped"] * 2
