"""Archived months in files: what stands in a folder of `amends archive`, read back and held to its manifest.

A folder has `manifest.json` and for each table `<table>.jsonl.gz`: one JSON array a row, in the manifest's order of
columns, as the database had them (JSON columns as their text). Folders follow one another as the months do.
"""

import gzip
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from amends.values.canonical import UNREADABLE, ZERO_HASH
from amends.values.errors import BadConfiguration

MANIFEST = "manifest.json"


class Place(Struct, frozen=True):
    """Both chains after a turn: the digest chain's `seq` and `digest`, the audit chain's other two."""

    seq: int = 0
    digest: str = ZERO_HASH
    audit_seq: int = 0
    audit_hash: str = ZERO_HASH


class StoredTable(Struct, frozen=True):
    """One file: how many rows, their columns in order, and the digest of the file's bytes."""

    file: str
    rows: int
    sha256: str
    columns: list[str]


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a folder holds: all that was closed before a month (such as 202612), from one place to another."""

    format: int
    before_month: int
    starts: Place
    ends: Place
    at_us: int
    tables: dict[str, StoredTable]


class ArchiveFolder:
    """One folder; raises `BadConfiguration` for what is none, or is not as it was written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.text = (folder / MANIFEST).read_bytes()
            self.manifest = msgspec.json.decode(self.text, type=Manifest)
        except OSError as error:
            raise BadConfiguration(f"{folder} is no archive: {error}") from None
        except UNREADABLE as error:
            raise BadConfiguration(f"{folder / MANIFEST} cannot be made out: {error}") from None
        if self.manifest.format != 1:
            raise BadConfiguration(f"{folder} has format {self.manifest.format}; this release reads 1")

    @property
    def sha256(self) -> str:
        """The digest of the manifest, which the database keeps."""
        return hashlib.sha256(self.text).hexdigest()

    def check(self) -> None:
        """Every file is there, byte for byte as it was written."""
        for table in self.manifest.tables.values():
            try:
                with (self.folder / table.file).open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256")
            except OSError as error:
                raise BadConfiguration(f"{self.folder}: {error}") from None
            if digest.hexdigest() != table.sha256:
                raise BadConfiguration(f"{self.folder / table.file} is not as it was written: its SHA-256 differs")

    def rows(self, name: str) -> Iterator[Mapping[str, Any]]:
        """The rows of a table, in the order in which they were written."""
        stored = self.manifest.tables.get(name)
        if stored is None:
            return
        count = 0
        with gzip.open(self.folder / stored.file, "rb") as file:
            for count, line in enumerate(file, 1):  # noqa: B007 - counted
                yield dict(zip(stored.columns, msgspec.json.decode(line), strict=True))
        if count != stored.rows:
            raise BadConfiguration(f"{self.folder / stored.file} has {count} rows, its manifest says {stored.rows}")


def in_order(folders: Sequence[Path], end: tuple[int, str]) -> list[ArchiveFolder]:
    """The folders, the oldest first, each whole; the last one ends at that turn, with the manifest of that digest.

    Raises `BadConfiguration` where one is missing between them, or they are another database's.
    """
    found = sorted((ArchiveFolder(folder) for folder in folders), key=lambda each: each.manifest.ends.seq)
    if not found:
        return []
    for left, right in itertools.pairwise(found):
        if left.manifest.ends != right.manifest.starts:
            raise BadConfiguration(f"between {left.folder} and {right.folder} an archive is missing")
    last = found[-1]
    if (last.manifest.ends.seq, last.sha256) != end:
        raise BadConfiguration(f"{last.folder} is not the archive after which this database's history begins")
    for each in found:
        each.check()
    return found
