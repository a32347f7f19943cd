"""`amends archive` as an operator runs it: what it says, what it refuses, and verification afterwards."""

from pathlib import Path

import pytest

from amends.values.errors import BadConfiguration
from supervisors.boot.anchors import Anchors
from supervisors.boot.archive import archive
from supervisors.boot.audit_verifier import verify_audit_log
from supervisors.settings import ArchiveSettings, PostgresSettings, Settings
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import exhausted_cleanup, whole_story

MONTH, NEXT = 202401, 202402


async def in_the_past(database: Database) -> None:
    """The database was made in that month, and it is that month."""
    for row in await database.all("SELECT name FROM monthly"):
        name = row["name"]
        await database.force(
            f"ALTER TABLE {name} DETACH PARTITION {name}_first; UPDATE {name}_first SET month = {MONTH}; "
            f"ALTER TABLE {name} ATTACH PARTITION {name}_first FOR VALUES FROM (1) TO ({NEXT})"
        )
    await it_is(database, MONTH)


async def it_is(database: Database, month: int) -> None:
    await database.force(
        f"CREATE OR REPLACE FUNCTION amends_month() RETURNS integer LANGUAGE sql STABLE RETURN {month}"
    )
    await database.journal.tidy(0)


@pytest.fixture
async def settings(database: Database, tmp_path: Path) -> Settings:
    await in_the_past(database)
    await whole_story(database.book)
    await it_is(database, NEXT)
    await exhausted_cleanup(database.book, "n3")
    return Settings(state_dir=str(tmp_path), postgres=PostgresSettings(dsn=database.dsn))


async def archived(settings: Settings, before: str = "2024-02", to: Path | None = None, *, drop: bool = True) -> int:
    return await archive(settings, before, to, drop=drop, unexported=False)


async def test_a_month_is_archived_and_its_end_is_anchored(
    database: Database, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anchors = Anchors(settings, tmp_path)
    assert await archived(settings) == 0
    folder = tmp_path / "archives" / "before-2024-02"
    out = capsys.readouterr().out
    assert f"9 tables in {folder}, manifest " in out
    assert f"signed in {anchors.path}" in out
    assert "dropped: 9 parts" in out
    # then verification begins there, held to the anchor, and goes all the way back with the folder
    assert await verify_audit_log(settings, [anchors.path]) == 0
    out = capsys.readouterr().out
    assert "is archived: " in out
    assert "(--archives FOLDER, once for each archive, verifies all)" in out
    assert await verify_audit_log(settings, [anchors.path], archives=[folder]) == 0
    out = capsys.readouterr().out
    assert "is archived" not in out
    # and a beginning that is another than the anchored one shows
    await database.force("UPDATE archived SET audit_hash = repeat('a', 64)")
    assert await verify_audit_log(settings, [anchors.path]) == 1
    assert "rewritten: another head was anchored at this turn" in capsys.readouterr().out


async def test_without_the_key_the_place_is_said_to_be_kept_elsewhere(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await archived(settings, to=tmp_path / "here", drop=False) == 0
    out = capsys.readouterr().out
    assert "no anchor is signed" in out
    assert "DROP SCHEMA amends_archived CASCADE" in out
    assert (tmp_path / "here" / "manifest.json").is_file()


async def test_what_is_wrong_is_not_archived(
    database: Database, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await database.force("UPDATE ledger_entries SET amount_minor = amount_minor + 1")
    assert await archived(settings) == 1
    assert "NOT valid: nothing is archived" in capsys.readouterr().err
    assert not (tmp_path / "archives").exists()
    assert await database.all("SELECT * FROM archived") == []


async def test_wrong_words_are_refused_by_name(settings: Settings, tmp_path: Path) -> None:
    for before in ("2024-13", "202402", "February", "2024-2", ""):
        with pytest.raises(BadConfiguration, match=r"--before: .* is no month; write it like 2026-11"):
            await archived(settings, before)
    with pytest.raises(BadConfiguration, match=r"is there already"):
        await archived(settings, to=tmp_path)
    with pytest.raises(
        BadConfiguration, match=r"spans are shown for 168 hours at least \(\[archive\].span_retention_h\)"
    ):
        await archived(settings, "2999-01")
    with pytest.raises(BadConfiguration, match="the month before it has not ended before 2999-01-01"):
        await archived(settings, "2999-01")
    with pytest.raises(BadConfiguration, match=r"--to: /dev/null/x cannot be used: /dev/null is no directory"):
        await archived(settings, to=Path("/dev/null/x"))
    patient = Settings(state_dir=settings.state_dir, postgres=settings.postgres,
                       archive=ArchiveSettings(span_retention_h=87_600))  # fmt: skip
    with pytest.raises(BadConfiguration, match="for 87600 hours at least"):
        await archived(patient)
    with pytest.raises(BadConfiguration, match="nothing can be archived before 2023-12"):
        await archived(settings, "2023-12")


async def test_nothing_is_archived_twice(settings: Settings, tmp_path: Path) -> None:
    assert await archived(settings) == 0
    with pytest.raises(BadConfiguration, match="nothing can be archived before 2024-02"):
        await archived(settings, to=tmp_path / "again")
