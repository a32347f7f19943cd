"""Who is believed to have ended: a process of this state directory and of this very boot, nobody else."""

from pathlib import Path

from supervisors.boot.holders import REMEMBERED, Holders

OTHER = "11111111-2222-3333-4444-555555555555"


async def test_who_had_the_lock_of_this_boot_before_us_has_ended(tmp_path: Path) -> None:
    first, second = Holders(tmp_path, "first"), Holders(tmp_path, "second")
    first.enter()
    assert not second.is_dead("first")  # it works beside us
    await first.aclose()
    assert second.is_dead("first")
    assert not second.is_dead("second")
    assert not second.is_dead("elsewhere")
    await second.aclose()


async def test_who_ran_under_another_boot_or_an_unknown_one_is_not_believed_to_have_ended(tmp_path: Path) -> None:
    # given a line of a machine that shares the directory, and one of the release that wrote no boot id
    (tmp_path / "holders").write_text(f"machine-b {OTHER}\nearlier\n")
    ours = Holders(tmp_path, "ours")
    assert [ours.is_dead(name) for name in ("machine-b", "earlier", f"machine-b {OTHER}")] == [False] * 3
    await ours.aclose()
    # nor where this kernel does not tell its own
    for boot in (tmp_path / "absent", tmp_path / "empty"):
        (tmp_path / "empty").touch()
        blind = Holders(tmp_path, "blind", boot)
        assert [blind.is_dead(name) for name in ("machine-b", "earlier", "ours")] == [False] * 3
        await blind.aclose()
    last = Holders(tmp_path, "last")
    assert [last.is_dead(name) for name in ("ours", "blind")] == [True, False]
    await last.aclose()


async def test_the_list_is_bounded(tmp_path: Path) -> None:
    for number in range(3 * REMEMBERED):
        holders = Holders(tmp_path, f"h{number}")
        holders.enter()
        await holders.aclose()
    assert len((tmp_path / "holders").read_text().splitlines()) == REMEMBERED + 1
