"""What a workload reads goes from the writer through the annotation to the reader, and nothing hostile gets through."""

import io
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry_storage.convert import LayerKind, LayerReader, WriteOptions, verify_written, write_layer
from registry_storage.convert.accesses import UNREAD_PART, FileAccess
from registry_storage.errors import FormatError
from registry_storage.formats.prefetch_ranges import (
    MAX_RANGES,
    PREFETCH_ANNOTATION,
    WRITTEN_TEXT_BYTES,
    format_ranges,
    parse_ranges,
)
from registry_storage.layer.needed import needed_chunks
from registry_storage.testing.sample_tar import files_tar, noise

BLOB_BYTES = 1 << 40
STEPS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 1 << 20)), min_size=1, max_size=50)
SIZES = {"a": 5000, "b": 700_000, "c": 300_000, "d": 40_000}
FILES = {name: noise(size, number) for number, (name, size) in enumerate(SIZES.items())}
TAR = files_tar(FILES)


@given(steps=STEPS, shuffler=st.randoms(use_true_random=False))
def test_ranges_come_back(steps: list[tuple[int, int]], shuffler: Random) -> None:
    at, ranges = 0, []
    for gap, size in steps:
        ranges.append((at + gap, size))
        at += gap + size
    shuffler.shuffle(ranges)
    assert parse_ranges(format_ranges(ranges), BLOB_BYTES) == tuple(ranges)


@given(text=st.text(st.sampled_from("0123456789+,- x"), max_size=60), size=st.integers(0, 10_000))
def test_whatever_is_taken_lies_in_the_blob_and_nothing_twice(text: str, size: int) -> None:
    try:
        ranges = parse_ranges(text, size)
    except FormatError:
        return
    covered: set[int] = set()
    for offset, length in ranges:
        span = set(range(offset, offset + length))
        assert span
        assert not span & covered
        assert offset + length <= size
        covered |= span


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "1", "1+0", "01+1", "-1+2", "1+2,", " 1+2", "٣+1", "5+6", "0+4,3+1", "9" * 17 + "+1",
        ",".join(f"{n}+1" for n in range(MAX_RANGES + 1)), "0+1," * 30_000,
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_what_is_hostile_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match=PREFETCH_ANNOTATION):
        parse_ranges(text, 10 if len(text) < 100 else BLOB_BYTES)


def test_a_long_list_loses_its_end() -> None:
    ranges = [(10**12 + 10 * n, 1) for n in range(MAX_RANGES)]
    text = format_ranges(ranges)
    assert len(text) <= WRITTEN_TEXT_BYTES
    parsed = parse_ranges(text, BLOB_BYTES * 2)
    assert parsed == tuple(ranges[: len(parsed)])


@settings(deadline=None, max_examples=30)
@given(
    reads=st.lists(
        st.tuples(st.sampled_from(sorted(SIZES)), st.integers(0, 750_000), st.integers(1, 200_000)),
        min_size=1, max_size=12,
    ),
    kind=st.sampled_from([LayerKind.ESTARGZ, LayerKind.ZSTD_CHUNKED_PODMAN, LayerKind.ZSTD_CHUNKED_STARGZ]),
)  # fmt: skip
def test_what_is_read_is_needed_and_hardly_anything_else(reads: list[tuple[str, int, int]], kind: LayerKind) -> None:
    accesses = tuple(FileAccess(path, min(offset, SIZES[path] - 1), size) for path, offset, size in reads)
    wanted = tuple(dict.fromkeys(access.path for access in accesses))
    options = WriteOptions(kind, 1, 128 << 10, prioritized=wanted, accesses=accesses)
    blobs, descriptors = set(), []
    for jobs in (1, 3):
        target = io.BytesIO()
        written = write_layer(io.BytesIO(TAR), target, options, jobs=jobs)
        verify_written(target, written)
        blobs.add(target.getvalue())
        descriptors.append(written.descriptor)
    assert len(blobs) == 1
    assert descriptors[0] == descriptors[1]
    with LayerReader.open(blobs.pop(), descriptor=descriptors[0]) as reader:
        assert {path: reader.read(path) for path in FILES} == FILES
        index = reader.index
        read = set()
        for access in accesses:
            inode = index.lookup(0, access.path.encode())
            assert inode is not None
            size = min(access.size or 0, SIZES[access.path] - access.offset)
            read |= set(range(*index.chunk_range(inode, access.offset, size)))
        groups = needed_chunks(index, descriptors[0])
        numbers = [number for group in groups for number in group]
        assert len(numbers) == len(set(numbers))
        assert set(numbers) >= read
        sizes = {number: index.chunk(number).blob_size for number in numbers}
        assert sum(sizes.values()) <= sum(sizes[number] for number in read) * (1 + UNREAD_PART)
        first = index.lookup(0, accesses[0].path.encode())
        assert first is not None
        assert index.chunk_range(first, accesses[0].offset, 1)[0] in groups[0]


def test_a_broken_annotation_leaves_the_landmark() -> None:
    target = io.BytesIO()
    written = write_layer(io.BytesIO(TAR), target, WriteOptions(LayerKind.ESTARGZ, 1, prioritized=("d", "a")))
    with LayerReader.open(target.getvalue(), descriptor=written.descriptor) as reader:
        broken = replace(written.descriptor, annotations={PREFETCH_ANNOTATION: "0+" + "9" * 15})
        for descriptor in (written.descriptor, broken):
            [group] = needed_chunks(reader.index, descriptor)
            owners = {reader.index.path(reader.index.owner_of_chunk(number)) for number in group}
            assert owners == {b"d", b"a"}
