"""`amends audit verify --anchors`: the drill of docs/security.md, and anchors that cannot be trusted."""

import re
from pathlib import Path

import msgspec
import pytest

from amends.ports.journal import Turn
from amends.turn.seal import seal
from amends.values.anchors import Anchored, Mark
from amends.values.errors import BadConfiguration
from supervisors.boot.anchors import Anchors, trusted_keys
from supervisors.boot.audit_verifier import verify_audit_log
from supervisors.settings import AnchorSettings, PostgresSettings, Settings
from tests.adapters.postgres.database import Database
from tests.adapters.postgres.story import exhausted_cleanup, whole_story

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"
DRILL = re.compile(r"^\| [a-z][^|]* \| `([A-Z][^`]+)` \| `(wrong: [^`]+)` \|$", re.MULTILINE)


class Auditor:
    """A state directory with a key, and the verb on a database."""

    def __init__(self, database: Database, state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.settings = Settings(state_dir=str(state_dir), postgres=PostgresSettings(dsn=database.dsn))
        self.anchors, self._book, self._capsys = Anchors(self.settings, state_dir), database.book, capsys
        self._database = database

    def heads(self, mark: Mark = "") -> Anchored:
        head = self._book.head
        return Anchored(
            at_us=1, epoch=head.epoch, seq=head.seq, digest=head.digest, audit_seq=head.audit_seq,
            audit_hash=head.hash, key="", mark=mark,
        )  # fmt: skip

    async def start(self, epoch: int) -> None:
        """What the next runtime does at its start: anchor the head that it finds."""
        head = await self._database.journal.head()
        found = msgspec.structs.replace(
            self.heads("opening"), epoch=epoch, seq=head.seq, digest=head.digest, audit_seq=head.audit_seq,
            audit_hash=head.hash,
        )  # fmt: skip
        await self.anchors.keep(self.anchors.sign(found))

    async def verify(self, public_key: str = "") -> tuple[int, list[str]]:
        status = await verify_audit_log(self.settings, [self.anchors.path], public_key)
        return status, self._capsys.readouterr().out.splitlines()


@pytest.fixture
async def auditor(database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Auditor:
    await whole_story(database.book)
    await exhausted_cleanup(database.book, "n3")
    made = Auditor(database, tmp_path, capsys)
    await made.anchors.keep(made.anchors.sign(made.heads("closing")))
    return made


async def test_each_forgery_of_the_drill_is_told_as_the_page_says(database: Database, auditor: Auditor) -> None:
    status, before = await auditor.verify()
    assert (status, before[-1][:6]) == (0, "valid:")
    drill = DRILL.findall(SECURITY.read_text(encoding="utf-8"))
    assert len(drill) == 7
    for forgery, told in drill:
        await database.force(forgery)
        if "while no runtime ran" in told:
            await auditor.start(2)
        status, lines = await auditor.verify()
        assert (status, lines[-1]) == (1, "NOT valid")
        wanted = re.compile(re.escape(told).replace("…", ".*"))
        assert any(wanted.fullmatch(line) for line in lines if line not in before), (told, lines)
        before = lines


async def test_an_anchor_that_no_trusted_key_has_signed_is_told(auditor: Auditor, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Anchors(auditor.settings, tmp_path / "other")
    own = auditor.anchors.sign(auditor.heads())
    # given a line of a stranger's key, one whose head was changed, and one that is none
    with auditor.anchors.path.open("a") as file:
        file.write(other.sign(auditor.heads()).line())
        file.write(msgspec.structs.replace(own, audit_seq=1).line())
        file.write('{"at_us": 1, "to')
    await auditor.anchors.keep(own)  # on a line of its own
    status, lines = await auditor.verify()
    assert status == 1
    wrong = [line.partition(" line ")[2] for line in lines if line.startswith("wrong")]
    turn = own.seq
    assert wrong == [
        f"2: the anchor of turn {turn} is not signed by a trusted key",
        f"3: the anchor of turn {turn} was rewritten: its signature does not fit",
        "4: is no anchor",
    ]
    # and a standby's key is trusted once it is named
    status, lines = await auditor.verify(f"{own.key}\n{other.public}\n")
    assert not any("by a trusted key" in line for line in lines)
    status, lines = await auditor.verify(other.public)
    assert f"wrong: {auditor.anchors.path} line 1: the anchor of turn {turn} is not signed by a trusted key" in lines


async def test_a_file_without_anchors_proves_nothing(auditor: Auditor) -> None:
    auditor.anchors.path.write_text("")
    status, lines = await auditor.verify()
    assert (status, lines[-1]) == (1, "NOT valid")
    assert f"wrong: {auditor.anchors.path}: no anchor of a trusted key" in lines


def test_keys_and_files_that_are_none_are_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="no public key to trust"):
        trusted_keys("", tmp_path)
    (tmp_path / "bad").write_text("ssh-rsa AAAA\n")
    with pytest.raises(BadConfiguration, match="--public-key"):
        trusted_keys(str(tmp_path / "bad"), tmp_path)
    with pytest.raises(BadConfiguration, match=r"\[anchors\].key"):
        Anchors(Settings(anchors=AnchorSettings(key=str(tmp_path / "absent"))), tmp_path)
    Anchors(Settings(), tmp_path)
    assert (tmp_path / "anchor_key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(BadConfiguration, match="holds no usable"):
        Anchors(Settings(anchors=AnchorSettings(key=str(tmp_path / "bad"))), tmp_path)


async def test_an_anchor_that_cannot_be_kept_is_a_word_in_the_tree(tmp_path: Path) -> None:
    anchors = Anchors(Settings(anchors=AnchorSettings(file=str(tmp_path / "gone" / "file"))), tmp_path)
    heads = Anchored(at_us=1, epoch=1, seq=7, digest="d", audit_seq=1, audit_hash="h", key="")
    await anchors.keep(anchors.sign(heads))
    assert anchors.detail()["kept"] == 0
    assert "No such file" in str(anchors.detail()["trouble"])
    anchors.path.parent.mkdir()
    await anchors.keep(anchors.sign(heads))
    assert anchors.detail() == {"kept": 7, "trouble": ""}


async def test_the_files_of_all_runtimes_are_held_together(
    database: Database, auditor: Auditor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a second runtime with a file of its own, one turn later
    before = auditor.heads()
    commit = seal([Turn()], database.book.head, ())
    await database.journal.commit(commit)
    database.book.head = commit.after
    (tmp_path / "other").mkdir()
    other = Anchors(auditor.settings, tmp_path / "other")
    between = msgspec.structs.replace(auditor.heads("closing"), epoch=2)
    await other.keep(other.sign(msgspec.structs.replace(before, epoch=2, mark="opening")))
    await other.keep(other.sign(between))
    await auditor.start(3)
    # then either file alone is not all there is to say, and both together leave nothing open
    status, lines = await auditor.verify()
    missing = "whose anchors are not here: give the files of all runtimes"
    assert status == 0
    assert f"note: turns {between.seq}..{between.seq}: of epoch 2, {missing}" in lines
    files, keys = [auditor.anchors.path, other.path], f"{auditor.anchors.public}\n{other.public}\n"
    (tmp_path / "keys").write_text(keys)
    assert await verify_audit_log(auditor.settings, files, str(tmp_path / "keys")) == 0
    assert "note:" not in capsys.readouterr().out
