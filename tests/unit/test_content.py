"""The content of a layer, and what happens to its files behind its back."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_storage.cache import content as content_module
from registry_storage.cache.content import Content, state_bytes
from registry_storage.formats.verified import verify_chunk
from registry_storage.toc.chunk import Chunk

COUNT, BLOCK = 8, 8192
BYTES = [bytes([65 + number]) * BLOCK for number in range(COUNT)]
CHUNKS = [
    Chunk(number, number, 1, 0, BLOCK, number * BLOCK, hashlib.sha256(data).digest())
    for number, data in enumerate(BYTES)
]


@pytest.fixture
def content(tmp_path: Path) -> Iterator[Content]:
    """Chunks 0 to 3 are here."""
    content = open_content(tmp_path, bytearray(state_bytes(COUNT)))
    for number in range(4):
        fill(content, number)
    assert content.check() == []
    yield content
    content.close()


def open_content(directory: Path, state: bytearray) -> Content:
    return Content(directory, size=COUNT * BLOCK, chunk_count=COUNT, state=memoryview(state))


def fill(content: Content, number: int) -> None:
    content.write([(CHUNKS[number], verify_chunk(BYTES[number], CHUNKS[number].digest_raw))])
    content.mark_ready([number])


def ready(content: Content) -> list[int]:
    return [number for number in range(COUNT) if content.is_ready(number)]


def present(content: Content) -> list[int]:
    return [number for number in range(COUNT) if content.is_present(number)]


def generation(content: Content) -> int:
    return int.from_bytes(content.state[:8], "little")


def test_evicted_chunks_are_gone_and_their_space_is_free(content: Content) -> None:
    before, at_first = content.disk_bytes, generation(content)
    content.evict([1, 2], [(BLOCK, 3 * BLOCK)])
    assert (ready(content), present(content)) == ([0, 3], [0, 3])
    assert generation(content) > at_first
    assert content.disk_bytes == before - 2 * BLOCK
    assert content.read(0, 4 * BLOCK) == BYTES[0] + bytes(2 * BLOCK) + BYTES[3]
    fill(content, 1)
    assert content.read_chunk(CHUNKS[1]) == BYTES[1]
    assert content.check() == []


@pytest.mark.parametrize("most", [1, 2, 64])
def test_chunks_that_come_together_are_all_in_their_places(
    content: Content, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(content_module, "_MOST_PARTS", most)
    numbers = [5, 6, 7, 1]
    content.write([(CHUNKS[n], verify_chunk(BYTES[n], CHUNKS[n].digest_raw)) for n in numbers])
    content.mark_ready(numbers)
    assert content.read(0, COUNT * BLOCK) == b"".join([*BYTES[:4], bytes(BLOCK), *BYTES[5:]])
    assert content.check() == []


def test_a_hole_is_clean_until_something_was_written_there(content: Content) -> None:
    assert content.is_hole_clean(CHUNKS[5])
    assert not content.is_hole_clean(CHUNKS[3])
    content.write_hole(CHUNKS[3])
    assert content.read_chunk(CHUNKS[3]) == bytes(BLOCK)
    assert content.check() == []


def test_what_is_here_is_known_to_the_next_daemon_and_hashed_by_it(content: Content, tmp_path: Path) -> None:
    content.forget([2])
    again = open_content(tmp_path, bytearray(state_bytes(COUNT)))
    assert (ready(again), present(again)) == ([], [0, 1, 3])
    again.close()


def test_the_next_worker_hashes_only_what_is_new_or_not_here_any_more(content: Content, tmp_path: Path) -> None:
    state = bytearray(content.state)
    (tmp_path / "present").write_bytes(bytes([0b1101]))  # chunk 1 was evicted while nobody had the layer open
    again = open_content(tmp_path, state)
    assert (ready(again), present(again)) == ([0, 2, 3], [0, 2, 3])
    again.close()


def test_bytes_that_somebody_else_wrote_are_hashed_again(content: Content, tmp_path: Path) -> None:
    before = generation(content)
    with (tmp_path / "content").open("r+b") as file:
        os.utime(file.fileno(), ns=(0, 0))  # the clock may not have ticked since our own write
        file.write(b"other")
    assert ["content was changed" in words for words in content.check()] == [True]
    assert (ready(content), present(content)) == ([], [0, 1, 2, 3])
    assert generation(content) > before
    assert content.check() == []


def test_a_truncated_file_gets_its_size_back_and_is_hashed_again(content: Content, tmp_path: Path) -> None:
    os.truncate(tmp_path / "content", BLOCK)
    assert ["content was changed" in words for words in content.check()] == [True]
    assert (tmp_path / "content").stat().st_size == COUNT * BLOCK
    assert ready(content) == []
    assert content.check() == []


@pytest.mark.parametrize("whole_directory", [False, True])
def test_a_file_that_is_gone_is_made_again_behind_the_same_descriptor(
    content: Content, tmp_path: Path, whole_directory: bool
) -> None:
    descriptor = content.file
    (tmp_path / "content").unlink()
    if whole_directory:
        (tmp_path / "present").unlink()
        tmp_path.rmdir()
    assert "content is gone" in content.check()[0]
    assert (ready(content), present(content)) == ([], [])
    fill(content, 5)
    assert os.pread(descriptor, BLOCK, 5 * BLOCK) == BYTES[5]
    assert (tmp_path / "content").read_bytes()[5 * BLOCK : 6 * BLOCK] == BYTES[5]
    assert content.check() == []


@pytest.mark.parametrize("damage", ["gone", "empty", "garbage"])
def test_present_bits_are_written_anew(content: Content, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "present"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else b"\xff\xff\xff")
    assert ["present was changed" in words for words in content.check()] == [True]
    assert content.check() == []
    assert (ready(content), path.read_bytes()) == ([0, 1, 2, 3], b"\x0f")
