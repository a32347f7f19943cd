"""Who is to blame for an error of the database: the server as a whole, a foreign lock, or the row itself."""

import asyncpg
import pytest
from asyncpg.exceptions import PostgresError

from adapters.postgres.connect import classify, connect
from amends.values.errors import BadConfiguration, Locked, Refused, Unavailable


def error(sqlstate: str, text: str = "said by the server") -> PostgresError:
    """The driver's exception for an error of that code."""
    return PostgresError.new({"C": sqlstate, "M": text, "S": "ERROR"})


@pytest.mark.parametrize(
    ("sqlstate", "what"),
    [
        ("25006", "read-only"), ("25P03", "idle in transaction"), ("53100", "disk full"), ("53200", "out of memory"),
        ("53300", "too many connections"), ("57P01", "shutting down"), ("57P02", "crashed"), ("57P03", "starting up"),
        ("57014", "cancelled"), ("58030", "I/O error"), ("08006", "connection failure"), ("26000", "a pooler"),
        ("40003", "completion unknown"), ("XX000", "internal"),
    ],
)  # fmt: skip
def test_a_server_that_refuses_for_its_own_reasons_blames_no_turn(sqlstate: str, what: str) -> None:
    assert isinstance(classify(error(sqlstate)), Unavailable), what


@pytest.mark.parametrize("sqlstate", ["55P03", "40P01", "40001"])
def test_a_foreign_lock_is_waited_for(sqlstate: str) -> None:
    assert isinstance(classify(error(sqlstate)), Locked)


@pytest.mark.parametrize("sqlstate", ["23505", "23514", "22P05", "P0001", "42501", "54000"])
def test_what_the_row_itself_is_refused_for_fails_its_own_turn(sqlstate: str) -> None:
    blame = classify(error(sqlstate, "row is too big"))
    assert isinstance(blame, Refused)
    assert blame.code == sqlstate


def test_a_server_that_has_no_more_transaction_ids_blames_no_turn() -> None:
    text = 'database is not accepting commands that assign new transaction IDs to avoid wraparound data loss in "x"'
    assert isinstance(classify(error("54000", text)), Unavailable)


def test_a_plan_that_is_out_of_date_is_made_again() -> None:
    assert isinstance(classify(asyncpg.InvalidCachedStatementError("cached plan must not change")), Unavailable)


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("postgresql://u:hush@db:5433/amends", r"Postgres at db:5433/amends cannot be reached: refused; start it, or"),
        (
            "postgresql:///db?host=/nowhere&password=hush",
            r"at /nowhere/db cannot .*: refused; .* its `amends run` does",
        ),
    ],
)
async def test_a_server_that_is_away_is_told_by_its_place_and_what_to_do(
    dsn: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away_from(*_: object, **__: object) -> None:
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(asyncpg, "connect", away_from)
    with pytest.raises(Unavailable, match=said) as away:
        await connect(dsn)
    assert "hush" not in str(away.value)
    assert "Errno" not in str(away.value)


@pytest.mark.parametrize("dsn", ["db", "postgresql://h:hush/db", "postgresql://[::1/db", "postgresql://u:hu/sh@h/db"])
async def test_an_address_that_is_none_is_a_matter_of_the_configuration(dsn: str) -> None:
    with pytest.raises(BadConfiguration, match=r"\[postgres\]\.dsn \(AMENDS_POSTGRES_DSN\)") as wrong:
        await connect(dsn)
    assert "hu" not in str(wrong.value)
