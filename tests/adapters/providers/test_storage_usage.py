"""Directories of a storage host, and what they hold: measured, or as a quota says."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.storage.directories import Directories, measure
from adapters.storage.usage import FRESH_US, Measured, Quota
from amends.ports.storage import Trouble
from amends.values.errors import BadConfiguration
from tests.adapters.providers.hosts import NOW_US, Clock
from tests.patience import PATIENCE_S


@pytest.mark.parametrize("root", ["srv", "/nonexistent/srv"])
def test_a_root_that_is_none_is_refused(root: str) -> None:
    with pytest.raises(BadConfiguration, match="absolute path of a directory"):
        Directories(Path(root))


def test_only_a_directory_that_is_no_link_is_a_namespace(directories: Directories, tmp_path: Path) -> None:
    (directories.root / "link").symlink_to(tmp_path)
    (directories.root / "file").touch()
    for name in ("link", "file", "missing", "../srv", ".", "", "a/b"):
        with pytest.raises(Trouble) as found:
            directories.existing(name)
        assert (found.value.code, found.value.retryable) == ("no_such_namespace", False)
    assert directories.existing("data") == directories.root / "data"


def test_what_is_linked_to_counts_once_or_not_at_all(directories: Directories, tmp_path: Path) -> None:
    top = directories.root / "data"
    empty = measure(top, lambda: False)
    (top / "one").write_bytes(b"x" * 100_000)
    one = measure(top, lambda: False)
    assert one - empty >= 100_000
    (top / "deep").mkdir()
    folder = measure(top, lambda: False) - one
    os.link(top / "one", top / "deep" / "again")
    (tmp_path / "outside").write_bytes(b"x" * 1_000_000)
    (top / "deep" / "out").symlink_to(tmp_path / "outside")
    (top / "deep" / "folder").symlink_to(tmp_path)
    assert measure(top, lambda: False) - one - folder < 50_000


def test_another_file_system_is_not_entered(directories: Directories, monkeypatch: pytest.MonkeyPatch) -> None:
    top = directories.root / "data"
    (top / "mounted").mkdir()
    (top / "mounted" / "big").write_bytes(b"x" * 1_000_000)
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        found = real(descriptor)
        other = found.st_ino == (top / "mounted").stat().st_ino
        return os.stat_result((*found[:2], found.st_dev + 1, *found[3:]), {"st_blocks": 0}) if other else found

    assert measure(top, lambda: False) > 1_000_000
    monkeypatch.setattr(os, "fstat", fstat)
    assert measure(top, lambda: False) < 1_000_000


def test_a_directory_that_has_become_a_link_meanwhile_is_not_followed(directories: Directories, tmp_path: Path) -> None:
    (directories.root / "link").symlink_to(tmp_path)
    with pytest.raises(Trouble) as found:
        measure(directories.root / "link", lambda: False)
    assert found.value.code == "usage_unknown"


def test_what_cannot_be_told_is_not_guessed(directories: Directories) -> None:
    top = directories.root / "data"
    folder = os.open(top, os.O_DIRECTORY)
    for _ in range(25):  # deeper than a path may be long
        os.mkdir("d" * 200, dir_fd=folder)
        deeper = os.open("d" * 200, os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    os.close(folder)
    with pytest.raises(Trouble) as found:
        measure(top, lambda: False)
    assert found.value.code == "usage_unknown"
    with pytest.raises(Trouble) as stopped:
        measure(top, lambda: True)
    assert stopped.value.code == "stopping"


async def test_a_measurement_is_kept_for_a_while_with_its_time(directories: Directories, clock: Clock) -> None:
    measured = Measured(directories, clock)
    first = await measured.usage("data")
    assert (first.as_of_us, first.enforced) == (NOW_US, False)
    (directories.root / "data" / "more").write_bytes(b"x" * 100_000)
    clock.now_us += FRESH_US - 1
    assert await measured.usage("data") == first
    clock.now_us += 1
    second = await measured.usage("data")
    assert (second.as_of_us, second.used_bytes > first.used_bytes) == (NOW_US + FRESH_US, True)
    await measured.close()


async def test_a_long_measurement_keeps_nobody_waiting(directories: Directories, clock: Clock) -> None:
    measured = Measured(directories, clock)
    first = await measured.usage("data")
    clock.now_us += FRESH_US
    for _ in range(2):  # both places are taken
        await measured._places.acquire()
    assert await measured.usage("data") == first
    (directories.root / "other").mkdir()
    with pytest.raises(Trouble) as found:
        await measured.usage("other")
    assert (found.value.code, found.value.retryable) == ("measuring", True)
    for _ in range(2):
        measured._places.release()
    assert (await measured.usage("other")).as_of_us == NOW_US + FRESH_US
    await measured.close()


class Walks:
    """A walk that goes on until it is told how it ends, and how often one was begun."""

    def __init__(self) -> None:
        self.begun, self._go_on = 0, threading.Event()
        self.fails = True

    def __call__(self, top: Path, stopped: Callable[[], bool]) -> int:
        self.begun += 1
        if not self._go_on.wait(PATIENCE_S):
            raise AssertionError("nobody let it end")
        self._go_on.clear()
        if self.fails:
            raise Trouble("usage_unknown", "a directory cannot be read: the disk is ill")
        return 4096

    def end(self, *, fails: bool) -> None:
        self.fails = fails
        self._go_on.set()


async def test_a_walk_that_fails_after_long_is_shared_and_not_begun_anew_for_every_question(
    directories: Directories, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks = Walks()
    monkeypatch.setattr("adapters.storage.usage.measure", walks)
    monkeypatch.setattr("adapters.storage.usage.WAIT_S", 0.05)
    measured = Measured(directories, clock)

    async def ask() -> str:
        try:
            return str((await measured.usage("data")).used_bytes)
        except Trouble as trouble:
            return trouble.code

    async def ended() -> None:
        async with asyncio.timeout(PATIENCE_S):
            while measured._running:
                await asyncio.sleep(0.01)

    # while it goes on, all hear that
    assert await asyncio.gather(*(ask() for _ in range(5))) == ["measuring"] * 5
    assert walks.begun == 1
    clock.now_us += 3 * FRESH_US  # it takes long
    walks.end(fails=True)
    await ended()
    # then its failure is the answer, for as long after its end as a measurement would be
    clock.now_us += FRESH_US - 1
    assert [await ask() for _ in range(5)] == ["usage_unknown"] * 5
    assert walks.begun == 1
    clock.now_us += 1
    assert await ask() == "usage_unknown"  # the next one is under way
    assert walks.begun == 2
    clock.now_us += 3 * FRESH_US
    walks.end(fails=False)
    await ended()
    # and one that went well is kept as long, however long it took
    assert [await ask() for _ in range(5)] == ["4096"] * 5
    assert walks.begun == 2
    await measured.close()


async def test_a_directory_that_is_gone_by_its_turn_is_trouble(directories: Directories, tmp_path: Path) -> None:
    with pytest.raises(Trouble) as found:
        measure(directories.root / "gone", lambda: False)
    assert found.value.code == "usage_unknown"


async def test_a_quota_program_is_shared_and_its_failure_kept(
    directories: Directories, clock: Clock, tmp_path: Path
) -> None:
    begun, failing = tmp_path / "begun", tmp_path / "failing"
    program = f"echo x >> {begun}; sleep 0.2; test ! -e {failing} && echo 1 2"
    quota = Quota(directories, clock, ["sh", "-c", program])

    def count() -> int:
        return len(begun.read_text().splitlines())

    assert len(await asyncio.gather(*(quota.usage("data") for _ in range(5)))) == 5
    assert count() == 1
    await quota.usage("data")
    assert count() == 2  # what it says now
    failing.touch()
    for _ in range(5):
        with pytest.raises(Trouble, match="ended with 1"):
            await quota.usage("data")
    assert count() == 3
    clock.now_us += FRESH_US
    failing.unlink()
    assert (await quota.usage("data")).used_bytes == 1
    await quota.close()


QUOTA = [sys.executable, "-SE", "-c"]


async def test_a_quota_is_what_the_file_system_says_and_enforced_where_there_is_a_limit(
    directories: Directories, clock: Clock
) -> None:
    echo = [*QUOTA, "import sys; print(len(sys.argv[1]), 5000 if sys.argv[2].endswith('/data') else 0)"]
    (directories.root / "free").mkdir()
    with_limit = await Quota(directories, clock, echo).usage("data")
    assert (with_limit.used_bytes, with_limit.as_of_us, with_limit.enforced) == (4, NOW_US, True)
    assert not (await Quota(directories, clock, echo).usage("free")).enforced


@pytest.mark.parametrize(
    "program", ["print('4 KiB')", "print('-1 5')", "print(1, 2, 3)", "import sys; print(1, 2); sys.exit(1)"]
)
async def test_a_quota_program_that_says_something_else_is_trouble(
    directories: Directories, clock: Clock, program: str
) -> None:
    with pytest.raises(Trouble) as found:
        await Quota(directories, clock, [*QUOTA, program]).usage("data")
    assert (found.value.code, found.value.retryable) == ("quota_failed", True)
