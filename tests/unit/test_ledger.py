"""Layer numbers and reference counts."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from registry_storage.cache.ledger import Ledger
from registry_storage.digest import Digest
from registry_storage.errors import CacheError

REF = "localhost:5000/app:1"
A, B, C, D = (Digest.of(letter) for letter in (b"a", b"b", b"c", b"d"))


def test_numbers_and_counts_survive_a_restart(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    link = ledger.put_link(REF, A, B, C, D)
    assert ledger.add_use(link.number) == 1
    assert ledger.add_use(link.number) == 2
    ledger.close()
    again = Ledger(tmp_path / "ledger")
    known = again.link(REF, A)
    assert known is not None
    assert (known.number, known.uses) == (link.number, 2)
    assert again.link_by_number(link.number) == known


def test_a_count_never_falls_below_zero(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    link = ledger.put_link(REF, A, B, C, D)
    assert ledger.drop_use(link.number) == 0
    assert ledger.add_use(link.number) == 1


def test_a_name_that_means_another_tree_gets_another_number(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    first = ledger.put_link(REF, A, B, C, D)
    assert ledger.put_link(REF, A, B, C, D).number == first.number
    second = ledger.put_link(REF, A, B, C, A)
    assert second.number > first.number
    assert ledger.link_by_number(first.number) is None


def test_a_tree_in_use_keeps_its_number(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    first = ledger.put_link(REF, A, B, C, D)
    ledger.add_use(first.number)
    assert ledger.put_link(REF, A, B, C, A).toc_digest == D


def test_an_image_remembers_its_last_manifest(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    number = ledger.put_image(REF, A).number
    assert ledger.put_image(REF, B).number == number
    image = ledger.image(REF)
    assert image is not None
    assert image.manifest_digest == B
    assert ledger.image_by_number(number) == image
    assert ledger.images() == [image]
    assert ledger.image("localhost:5000/other:1") is None


def test_a_file_of_garbage_is_dropped_and_numbers_begin_where_none_was_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = Ledger(tmp_path / "ledger")
    links = [before.put_link(f"localhost/app:{number}", A, B, C, D) for number in range(3)]
    before.close()
    (tmp_path / "ledger").write_bytes(os.urandom(5000))
    after = Ledger(tmp_path / "ledger")
    assert after.links() == []
    assert after.was_damaged
    assert len([record for record in caplog.records if "damaged records are dropped" in record.message]) == 1
    assert after.put_link(REF, A, B, C, D).number >= links[0].number
    assert not Ledger(tmp_path / "ledger").was_damaged


def test_an_emptied_ledger_is_noticed_and_numbers_go_by_the_clock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Ledger(tmp_path / "ledger").close()
    assert caplog.records == []
    (tmp_path / "ledger").write_bytes(b"")
    after = Ledger(tmp_path / "ledger", expected=True)
    assert after.was_damaged
    assert len([record for record in caplog.records if "missing or empty" in record.message]) == 1
    assert after.put_link(REF, A, B, C, D).number > 1000


@pytest.mark.parametrize("seed", range(40))
def test_one_flipped_bit_costs_at_most_one_record_and_changes_none(tmp_path: Path, seed: int) -> None:
    ledger = Ledger(tmp_path / "ledger")
    for number in range(4):
        ledger.put_image(f"localhost/app:{number}", A)
        ledger.add_use(ledger.put_link(f"localhost/app:{number}", A, B, C, D).number)
    ledger.close()
    Ledger(tmp_path / "ledger").close()  # compacted: each link is one record
    links, images = {link.number: link for link in ledger.links()}, ledger.images()
    data = bytearray((tmp_path / "ledger").read_bytes())
    data[seed * len(data) // 40] ^= 1 << (seed % 8)
    (tmp_path / "ledger").write_bytes(data)
    after = Ledger(tmp_path / "ledger")
    assert all(links[link.number] == link for link in after.links())
    assert all(image in images for image in after.images())
    assert len(after.links()) + len(after.images()) >= len(links) + len(images) - 2  # two when the newline went
    assert after.put_link(REF, A, B, C, D).number > max(links)


def test_a_torn_last_record_is_dropped(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    link = ledger.put_link(REF, A, B, C, D)
    ledger.add_use(link.number)
    ledger.close()
    data = (tmp_path / "ledger").read_bytes()
    (tmp_path / "ledger").write_bytes(data[:-20])
    again = Ledger(tmp_path / "ledger").link_by_number(link.number)
    assert again is not None
    assert again.uses == 0


@pytest.mark.parametrize("damage", ["gone", "empty", "garbage", "longer"])
def test_a_file_that_somebody_changes_meanwhile_is_written_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    link = ledger.put_link(REF, A, B, C, D)
    if damage == "gone":
        path.unlink()
    elif damage == "longer":
        path.write_bytes(path.read_bytes() + b"more")
    else:
        path.write_bytes(b"" if damage == "empty" else os.urandom(path.stat().st_size + 1))
    ledger.check()
    ledger.check()
    assert len([record for record in caplog.records if "is written anew" in record.message]) == 1
    ledger.add_use(link.number)
    ledger.close()
    again = Ledger(path)
    assert again.links() == ledger.links()
    assert not again.was_damaged


def test_a_disk_that_is_full_is_told_once_and_costs_nothing_that_is_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "ledger")
    link = ledger.put_link(REF, A, B, C, D)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        for _ in range(5):
            ledger.add_use(link.number)
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1
    ledger.check()
    ledger.close()
    assert Ledger(tmp_path / "ledger").links() == ledger.links()


def test_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry_storage.cache.ledger._COMPACT_BYTES", 1000)
    ledger = Ledger(tmp_path / "ledger")
    link = ledger.put_link(REF, A, B, C, D)
    for _ in range(200):
        ledger.add_use(link.number)
    assert (tmp_path / "ledger").stat().st_size < 10_000
    ledger.close()
    (again,) = Ledger(tmp_path / "ledger").links()
    assert again.uses == 200


def test_what_is_removed_is_gone_and_its_number_too(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    image, link = ledger.put_image(REF, A), ledger.put_link(REF, A, B, C, D)
    ledger.remove_link(link.number)
    ledger.remove_image(REF)
    ledger.close()
    again = Ledger(tmp_path / "ledger")
    assert (again.images(), again.links()) == ([], [])
    assert again.image_by_number(image.number) is None
    assert again.put_link(REF, A, B, C, D).number > link.number


def test_pins_and_graph_roots_survive_a_restart(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.put_image(REF, A)
    assert ledger.pin(REF, pinned=True)
    assert not ledger.pin("localhost/other:1", pinned=True)
    ledger.put_image(REF, B)
    ledger.add_graph_root("/b")
    ledger.close()
    again = Ledger(tmp_path / "ledger")
    assert [(image.pinned, image.manifest_digest) for image in again.images()] == [(True, B)]
    assert again.graph_roots == {"/b"}


def test_another_layout_is_refused(tmp_path: Path) -> None:
    text = json.dumps({"layout": 99}, separators=(",", ":")).encode()
    (tmp_path / "ledger").write_bytes(hashlib.sha256(text).hexdigest()[:16].encode() + b" " + text + b"\n")
    with pytest.raises(CacheError, match="wanted layout 2, got 99"):
        Ledger(tmp_path / "ledger")
