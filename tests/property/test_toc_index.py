"""The packed index says the same as the plain reading of the same TOC."""

import json
import sys
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry_storage.toc.index import TocIndex, build_index
from tests.fuzz import hostile_tocs
from tests.reference.toc_comparison import compare

TOC_OFFSET = 5000
DIGESTS = [f"sha256:{c * 64}" for c in "0123456789abcdef"]

COMPONENTS = st.one_of(
    st.sampled_from(["a", "b", "c", "ab", "abcdefgh", "abcdefghi"]),
    st.sampled_from([".wh.a", ".wh.b", ".wh..wh..opq", ".wh..wh.x", ".wh.", ".", ""]),
    st.sampled_from([".prefetch.landmark", ".no.prefetch.landmark", "stargz.index.json"]),
    st.text(max_size=12),
)
PATHS = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join)
PLAIN = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=3).map("/".join)
TIMES = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.datetimes().map(lambda moment: moment.isoformat() + "-07:30"),
    st.sampled_from(["", "0001-01-01T00:00:00Z", "0000-02-29T00:00:00Z"]),
    st.just("9999-12-31T23:59:59.999999999+00:00"),
)
XATTRS = st.dictionaries(
    st.one_of(st.sampled_from(["user.a", "user.overlay.opaque", "trusted.overlay.x"]), st.text(max_size=5)),
    st.sampled_from(["", "eA==", "eHk=", "eHl6", "!", "eA=", "eB==", "====", "e==="]),
    max_size=3,
)
NUMBERS = st.one_of(st.integers(0, 3), st.sampled_from([0o104755, 4294967294, (1 << 63) - 1]), st.integers())
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
STRANGE = st.dictionaries(
    st.one_of(
        st.sampled_from(["name", "type", "modtime", "digest", "chunkDigest", "chunkType", "linkName"]),
        st.sampled_from(["size", "mode", "uid", "gid", "devMajor", "chunkOffset", "chunkSize", "offset"]),
        st.sampled_from(["xattrs", "anything"]),
    ),
    st.recursive(
        st.one_of(st.none(), st.booleans(), NUMBERS, FLOATS, st.text()),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
        max_leaves=5,
    ),
    max_size=1,
)


@st.composite
def entry_groups(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One entry, with the chunks that belong to it."""
    kind = draw(st.sampled_from(["dir", "reg", "reg", "reg", "symlink", "hardlink", "char", "block", "fifo"]))
    name = draw(st.one_of(PLAIN, PLAIN, PATHS))
    entry: dict[str, Any] = {"name": name, "type": kind}
    if draw(st.booleans()):
        entry["mode"] = draw(st.integers(0, 0o177777))
        entry["uid"], entry["gid"] = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    if draw(st.integers(0, 3)) == 0:
        entry["modtime"] = draw(TIMES)
    if draw(st.integers(0, 5)) == 0:
        entry["xattrs"] = draw(XATTRS)
    if kind in ("symlink", "hardlink"):
        entry["linkName"] = draw(st.one_of(PLAIN, PLAIN, PATHS))
    if kind in ("char", "block"):
        entry |= {"devMajor": draw(st.integers(0, 4096)), "devMinor": draw(st.integers(0, 1 << 20))}
    group = [entry]
    if kind == "reg":
        sizes = draw(st.lists(st.sampled_from([1, 2, 100, 4095, 4096, 10000]), max_size=3))
        entry["size"] = sum(sizes)
        entry["digest"] = draw(st.sampled_from(DIGESTS))
        start = 0
        for i, size in enumerate(sizes):
            part: dict[str, Any] = entry if i == 0 else {"name": name, "type": "chunk"}
            part |= {"offset": draw(st.integers(0, TOC_OFFSET - 1)), "chunkOffset": start}
            if i + 1 < len(sizes) or draw(st.booleans()):
                part["chunkSize"] = size
            if len(sizes) > 1 or draw(st.booleans()):
                part["chunkDigest"] = draw(st.sampled_from(DIGESTS))
            if draw(st.integers(0, 5)) == 0:
                part["chunkType"] = "zeros"
            if draw(st.integers(0, 5)) == 0:
                part["innerOffset"] = draw(st.integers(0, 1000))
            if i:
                group.append(part)
            start += size
        if draw(st.integers(0, 5)) == 0:
            entry["endOffset"] = draw(st.integers(0, TOC_OFFSET))
    if draw(st.integers(0, 20)) == 0:
        draw(st.sampled_from(group)).update(draw(STRANGE))
    if draw(st.integers(0, 20)) == 0:
        del group[draw(st.integers(0, len(group) - 1))]
    return group


TOCS = st.lists(entry_groups(), max_size=12).map(
    lambda groups: {"version": 1, "entries": [entry for group in groups for entry in group]}
)


def encode(toc: object, ascii_only: bool) -> bytes:
    return json.dumps(toc, ensure_ascii=ascii_only).encode(errors="surrogatepass")


@settings(deadline=None, max_examples=500)
@given(TOCS, st.booleans())
def test_the_index_agrees_with_the_reference(toc: object, ascii_only: bool) -> None:
    compare(encode(toc, ascii_only), TOC_OFFSET)


@settings(deadline=None, max_examples=500)
@given(TOCS, st.data())
def test_the_index_agrees_with_the_reference_on_damaged_text(toc: object, data: st.DataObject) -> None:
    document = bytearray(encode(toc, data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(document) - 1))
        length = data.draw(st.integers(0, 3))
        document[start : start + length] = data.draw(
            st.one_of(st.binary(max_size=2), st.sampled_from(b'" \\ { } [ ] , : -'.split()))
        )
    compare(bytes(document), TOC_OFFSET)


@pytest.fixture
def deep_recursion() -> Iterator[None]:
    """The reference recurses, 512 brackets or 2048 directories deep."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("deep_recursion")
def test_the_index_agrees_with_the_reference_on_hostile_tocs() -> None:
    for toc in hostile_tocs.hostile_tocs():
        if len(toc.document) < 50_000:
            compare(toc.document, hostile_tocs.TOC_OFFSET)


JSON_TEXTS = st.lists(
    st.one_of(
        st.sampled_from(b'{ } [ ] , : " "a" \\u00e9 \\ \\ud83d 0 1 - . e true null fals E+5'.split()),
        st.sampled_from(b'"k": [] {}'.split()),
        st.sampled_from([b" ", b"\n", b"\x00", b"\x7f", b"\xff"]),
    ),
    max_size=14,
).map(b"".join)


@settings(deadline=None, max_examples=1500)
@given(JSON_TEXTS)
@example(b'"\\ud83d\\ude00\\ud83d"')
@example(b"[" * 509 + b"]" * 509)
@example(b"[" * 510 + b"]" * 510)
def test_skipped_values_are_checked_like_any_json(text: bytes) -> None:
    compare(b'{"entries":[{"type":"dir","x":' + text + b"}]}", TOC_OFFSET)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.binary(min_size=1, max_size=20), unique=True, max_size=60))
def test_every_name_of_any_bytes_is_found_in_sorted_order(names: list[bytes]) -> None:
    names = [name for name in names if not {0, 0x2F} & set(name) and name.strip(b".") and name[:4] != b".wh."]

    def quote(name: bytes) -> bytes:
        return b"".join(b"\\u%04x" % b if b < 0x20 or b in b'"\\' else bytes([b]) for b in name)

    entries = b",".join(b'{"type":"fifo","name":"d/%s"}' % quote(name) for name in names)
    index = TocIndex(build_index(b'{"entries":[%s]}' % entries, blob_size=1, toc_offset=1))
    directory = index.lookup(0, b"d")
    if directory is None:
        assert not names
        return
    assert [name for name, _ in index.children(directory, 0, 100)] == sorted(names)
    assert all(index.lookup(directory, name) is not None for name in names)
    assert index.lookup(directory, b"not there, surely not there") is None


CHUNK_SIZES = st.lists(st.one_of(st.sampled_from([1, 8, 1 << 16, 1 << 30]), st.integers(1, 1 << 17)), min_size=1)


@settings(deadline=None, max_examples=300)
@given(CHUNK_SIZES.flatmap(lambda sizes: st.permutations(sizes * 4)), st.lists(st.floats(0, 1), max_size=20))
@example([1] * 100 + [1 << 30], [])
@example([1 << 30] + [1] * 100, [])
def test_the_chunks_of_a_span_are_found_whatever_their_sizes(sizes: list[int], places: list[float]) -> None:
    starts = [0, *accumulate(sizes)]
    size = starts.pop()
    entries = [{"name": "f", "type": "chunk", "chunkOffset": start} for start in starts]
    entries[0] |= {"type": "reg", "size": size}
    for number, entry in enumerate(entries):
        entry |= {"offset": number, "chunkSize": sizes[number], "chunkDigest": DIGESTS[0]}
    toc = json.dumps({"version": 1, "entries": entries}).encode()
    index = TocIndex(build_index(toc, blob_size=TOC_OFFSET, toc_offset=TOC_OFFSET))
    inode = index.lookup(0, b"f")
    assert inode is not None
    inside = [*starts, *(start - 1 for start in starts[1:]), size - 1, *(int(place * (size - 1)) for place in places)]
    for first in inside:
        wanted = bisect_right(starts, first) - 1
        assert index.chunk_range(inode, first, 1) == (wanted, wanted + 1)
    first, last = sorted([inside[len(inside) // 2], inside[-1]])
    wanted_range = bisect_right(starts, first) - 1, bisect_right(starts, last)
    assert index.chunk_range(inode, first, last - first + 1) == wanted_range
