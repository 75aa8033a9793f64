"""Layer numbers and reference counts."""

import sqlite3
from pathlib import Path

import pytest

from registry_storage.cache.ledger import Ledger
from registry_storage.digest import Digest
from registry_storage.errors import CacheError

REF = "localhost:5000/app:1"
A, B, C, D = (Digest.of(letter) for letter in (b"a", b"b", b"c", b"d"))


def test_numbers_and_counts_survive_a_restart(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state.db")
    link = ledger.put_link(REF, A, B, C, D)
    assert ledger.add_use(link.number) == 1
    assert ledger.add_use(link.number) == 2
    ledger.close()
    again = Ledger(tmp_path / "state.db")
    known = again.link(REF, A)
    assert known is not None
    assert (known.number, known.uses) == (link.number, 2)
    assert again.link_by_number(link.number) == known


def test_a_count_never_falls_below_zero(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state.db")
    link = ledger.put_link(REF, A, B, C, D)
    assert ledger.drop_use(link.number) == 0
    assert ledger.add_use(link.number) == 1


def test_a_name_that_means_another_tree_gets_another_number(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state.db")
    first = ledger.put_link(REF, A, B, C, D)
    assert ledger.put_link(REF, A, B, C, D).number == first.number
    second = ledger.put_link(REF, A, B, C, A)
    assert second.number > first.number
    assert ledger.link_by_number(first.number) is None


def test_a_tree_in_use_keeps_its_number(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state.db")
    first = ledger.put_link(REF, A, B, C, D)
    ledger.add_use(first.number)
    assert ledger.put_link(REF, A, B, C, A).toc_digest == D


def test_an_image_remembers_its_last_manifest(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state.db")
    number = ledger.put_image(REF, A).number
    assert ledger.put_image(REF, B).number == number
    image = ledger.image(REF)
    assert image is not None
    assert image.manifest_digest == B
    assert ledger.image_by_number(number) == image
    assert ledger.images() == [image]
    assert ledger.image("localhost:5000/other:1") is None


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(CacheError, match=r"state\.db"):
        Ledger(tmp_path / "state.db")


def test_another_layout_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "state.db")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(CacheError, match="wanted layout 1, got 99"):
        Ledger(tmp_path / "state.db")
