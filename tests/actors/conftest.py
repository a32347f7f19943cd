"""A book of real actors without a database: each turn is sealed, and kept by nobody."""

from typing import Any

import pytest

from actors.account.messages import CreateAccount
from amends.ports.journal import Head
from tests.actors.node_life import Life, ready
from tests.adapters.postgres.story import Book, context


class NoJournal:
    """Takes every commit."""

    async def commit(self, commit: Any) -> None:
        """It is committed."""


@pytest.fixture
async def book() -> Book:
    made = Book(NoJournal(), Head(1, 0, 0, ""), context(1))
    await made.command("account", "acct1", CreateAccount(account_id="acct1", currency="usd"))
    return made


@pytest.fixture
def life() -> Life:
    """A node that is ready."""
    return ready()
