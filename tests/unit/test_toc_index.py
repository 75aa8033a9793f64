"""What a packed index answers about the layer whose TOC it was built from."""

import json
import os
import stat
from typing import Any

import pytest

from registry_storage.errors import FormatError
from registry_storage.toc.index import TocIndex, build_index

DIGEST = "sha256:" + "ab" * 32
RAW = bytes.fromhex("ab" * 32)
TOC_OFFSET = 1_000_000


def toc(*entries: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"version": 1, "entries": list(entries), **more}).encode()


def index_of(*entries: dict[str, Any]) -> TocIndex:
    return TocIndex(build_index(toc(*entries), blob_size=TOC_OFFSET + 500, toc_offset=TOC_OFFSET))


def refused(*entries: dict[str, Any]) -> FormatError:
    with pytest.raises(FormatError) as caught:
        index_of(*entries)
    return caught.value


def reg(name: str, size: int = 0, **more: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "type": "reg", "size": size}
    if size:
        entry |= {"offset": 100, "chunkDigest": DIGEST}
    return entry | more


def chunk(name: str, chunk_offset: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "chunk", "chunkOffset": chunk_offset, "chunkDigest": DIGEST, **more}


def directory(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "dir", **more}


def walk(index: TocIndex, path: str) -> int:
    inode = 0
    for name in path.split("/"):
        child = index.lookup(inode, name.encode())
        assert child is not None, path
        inode = child
    return inode


def test_an_empty_toc_is_an_empty_root_directory() -> None:
    index = index_of()
    assert index.inode_count == 1
    assert index.children(0, 0, 10) == []
    assert stat.S_ISDIR(index.mode(0))
    assert index.attributes(0) == (stat.S_IFDIR | 0o755, 0, 0, 2, 4096, 0, 0)


def test_a_file_keeps_what_its_entry_says() -> None:
    index = index_of(
        directory("usr/", mode=0o40755),
        reg("usr/sudo", 10, mode=0o104755, uid=7, gid=8, modtime="2024-02-29T12:00:00.5+01:00"),
    )
    inode = walk(index, "usr/sudo")
    attributes = index.attributes(inode)
    assert attributes == (stat.S_IFREG | 0o4755, 7, 8, 1, 10, 1709204400_500000000, 0)
    assert index.path(inode) == b"usr/sudo"
    assert index.attributes(walk(index, "usr")).nlink == 2
    assert index.attributes(0).nlink == 3


def test_names_are_sorted_by_bytes_and_found() -> None:
    names = ["b", "a", "ab", "é", "Z", "a-very-long-name-1", "a-very-long-name-0", "a-very-long-name"]
    index = index_of(*(reg(name) for name in names))
    found = index.children(0, 0, 100)
    assert [name for name, _ in found] == sorted(name.encode() for name in names)
    assert all(index.lookup(0, name) == inode for name, inode in found)
    assert index.lookup(0, b"a-very-long-name-2") is None
    assert [index.child(0, i) for i in range(len(names))] == found
    assert index.children(0, 3, 2) == found[3:5]


def test_chunks_cover_the_file_in_order() -> None:
    index = index_of(
        reg("f", 250, offset=100, chunkSize=100),
        chunk("f", 100, offset=180, chunkSize=100),
        chunk("./f", 200, offset=300, innerOffset=7),
        reg("g", 9, offset=300),
    )
    inode = walk(index, "f")
    assert index.chunk_range(inode, 0, 250) == (0, 3)
    assert index.chunk_range(inode, 99, 1) == (0, 1)
    assert index.chunk_range(inode, 99, 2) == (0, 2)
    assert index.chunk_range(inode, 200, 1 << 62) == (2, 3)
    assert index.chunk_range(inode, 250, 1) == (0, 0)
    assert index.chunk_range(inode, 0, 0) == (0, 0)
    chunks = [index.chunk(i) for i in range(index.chunk_count)]
    assert [(c.blob_offset, c.blob_size, c.inner_offset, c.size, c.content_offset) for c in chunks] == [
        (100, 80, 0, 100, 0),
        (180, 120, 0, 100, 100),
        (300, TOC_OFFSET - 300, 7, 50, 200),
        (300, TOC_OFFSET - 300, 0, 9, 256),
    ]
    assert all(chunk.digest_raw == RAW and not chunk.is_hole for chunk in chunks)
    assert [index.owner_of_chunk(i) for i in range(4)] == [inode] * 3 + [walk(index, "g")]
    assert index.content_size == 265


def test_large_files_start_at_a_page_of_the_content_file() -> None:
    index = index_of(reg("a", 1), reg("b", 4096), reg("c", 5), reg("d", 3))
    assert [index.content_offset(walk(index, name)) for name in "abcd"] == [0, 4096, 8192, 8200]
    assert index.total_file_bytes == 4105


def test_the_digest_of_the_file_serves_when_it_is_one_chunk() -> None:
    index = index_of(reg("f", 10, chunkDigest="", digest=DIGEST))
    assert index.chunk(0).digest_raw == RAW
    error = refused(reg("f", 10, chunkDigest="", digest=DIGEST, chunkSize=5))
    assert (error.entry, error.field) == (0, "chunkDigest")


def test_a_hole_has_no_bytes_in_the_blob() -> None:
    index = index_of(
        reg("f", 3 << 30, chunkSize=10, endOffset=150),
        {"name": "f", "type": "chunk", "chunkOffset": 10, "chunkType": "zeros", "offset": 140},
    )
    chunks = [index.chunk(i) for i in range(index.chunk_count)]
    assert [chunk.is_hole for chunk in chunks] == [False, True, True, True]
    assert sum(chunk.size for chunk in chunks) == 3 << 30
    assert chunks[1].blob_offset == 0
    assert chunks[1].digest_raw == bytes(32)
    assert (chunks[0].blob_offset, chunks[0].blob_size) == (100, 50)


def test_a_piece_ends_at_the_next_larger_offset_in_whatever_order() -> None:
    offsets = {"a": 500, "b": 200, "c": 200, "d": 300}
    index = index_of(*(reg(name, 1, offset=offset) for name, offset in offsets.items()))
    assert [index.chunk(i).blob_size for i in range(4)] == [TOC_OFFSET - 500, 100, 100, 200]


def test_end_offset_ends_the_last_data_chunk() -> None:
    assert index_of(reg("a", 1, endOffset=120)).chunk(0).blob_size == 20
    assert refused(reg("a", 1, endOffset=100)).field == "endOffset"
    assert refused(reg("a", 1, endOffset=TOC_OFFSET + 1)).field == "endOffset"


def test_hard_links_share_an_inode_whichever_comes_first() -> None:
    index = index_of(
        {"name": "early", "type": "hardlink", "linkName": "./dir/file"},
        {"name": "earlier", "type": "hardlink", "linkName": "early"},
        reg("dir/file", 3, uid=5),
        {"name": "late", "type": "hardlink", "linkName": "dir//file", "uid": 9},
    )
    inodes = {walk(index, name) for name in ("early", "earlier", "dir/file", "late")}
    assert len(inodes) == 1
    attributes = index.attributes(inodes.pop())
    assert (attributes.nlink, attributes.uid) == (4, 5)
    assert index.inode_count == 3


def test_a_hard_link_binds_to_the_entry_that_exists_at_its_moment() -> None:
    index = index_of(reg("a", 1), {"name": "b", "type": "hardlink", "linkName": "a"}, reg("a", 2))
    assert index.attributes(walk(index, "a"))[3:5] == (1, 2)
    assert index.attributes(walk(index, "b"))[3:5] == (1, 1)


def test_hard_links_to_nothing_to_directories_or_in_circles_are_refused() -> None:
    missing = refused({"name": "a", "type": "hardlink", "linkName": "nothing"})
    assert (missing.entry, missing.field) == (0, "linkName")
    assert refused(directory("d"), {"name": "a", "type": "hardlink", "linkName": "d"}).entry == 1
    assert refused({"name": "a", "type": "hardlink", "linkName": "d"}, directory("d")).entry == 0
    circle = refused(
        {"name": "a", "type": "hardlink", "linkName": "b"},
        {"name": "b", "type": "hardlink", "linkName": "c"},
        {"name": "c", "type": "hardlink", "linkName": "b"},
    )
    assert "circle" in str(circle)
    assert refused({"name": "a", "type": "hardlink"}).field == "linkName"


def test_the_last_of_two_entries_with_one_name_wins() -> None:
    index = index_of(reg("a", 1), reg("./a", 2, uid=3))
    assert index.attributes(walk(index, "a"))[1:5] == (3, 0, 1, 2)
    assert (index.inode_count, index.chunk_count) == (2, 1)


def test_a_later_directory_entry_keeps_the_children() -> None:
    index = index_of(reg("d/f"), directory("d", mode=0o700, uid=4), directory(".", mode=0o711))
    assert index.attributes(walk(index, "d"))[:2] == (stat.S_IFDIR | 0o700, 4)
    assert walk(index, "d/f")
    assert index.mode(0) == stat.S_IFDIR | 0o711


def test_a_later_file_replaces_a_directory_and_what_was_in_it() -> None:
    index = index_of(reg("d/e/f", 5), directory("d/g"), reg("d", 1), reg("x"))
    assert index.inode_count == 3
    assert index.chunk_count == 1
    assert stat.S_ISREG(index.mode(walk(index, "d")))
    again = index_of(reg("d/f"), reg("d"), reg("d2/f"), directory("d"), reg("d/g"))
    assert again.children(walk(again, "d"), 0, 9) == [(b"g", walk(again, "d/g"))]


def test_an_entry_below_a_file_is_refused() -> None:
    error = refused(reg("d"), reg("d/f"))
    assert (error.entry, error.field) == (1, "name")
    assert "d/f" in str(error)
    assert refused({"name": "d", "type": "symlink", "linkName": "x"}, reg("d/f")).entry == 1


def test_a_whiteout_becomes_a_device_unless_its_name_exists() -> None:
    index = index_of(reg("d/.wh.gone", uid=3), reg("d/.wh.here"), reg("d/here", 1), reg("d/.wh.gone"))
    assert [name for name, _ in index.children(walk(index, "d"), 0, 9)] == [b"gone", b"here"]
    attributes = index.attributes(walk(index, "d/gone"))
    assert (attributes.mode, attributes.rdev, attributes.nlink, attributes.uid) == (stat.S_IFCHR, 0, 1, 3)
    assert stat.S_ISREG(index.mode(walk(index, "d/here")))


def test_an_opaque_directory_says_so_in_both_name_spaces() -> None:
    value = {"user.x": "eA==", "trusted.overlay.opaque": "eA==", "user.overlay.redirect": "eA=="}
    index = index_of(reg("d/.wh..wh..opq"), directory("e", xattrs=value), reg("e/.wh..wh..opq"))
    opaque = ((b"trusted.overlay.opaque", b"y"), (b"user.overlay.opaque", b"y"))
    assert index.xattrs(walk(index, "d")) == opaque
    assert index.xattrs(walk(index, "e")) == ((b"user.x", b"x"), *opaque)
    assert index.xattr(walk(index, "e"), b"user.x") == b"x"
    assert index.xattr(walk(index, "e"), b"user.y") is None
    assert index.child_count(walk(index, "d")) == 0


def test_marked_names_are_never_visible() -> None:
    index = index_of(reg(".wh..wh.plnk"), reg(".wh..wh.aufs/x"), reg(".wh."), reg("a/.wh.d/f", 1))
    assert index.children(0, 0, 9) == []
    assert refused(reg("a/.wh...")).field == "name"
    assert refused(reg("a/.wh..")).field == "name"


def test_landmarks_and_the_toc_are_hidden_at_the_root_alone() -> None:
    index = index_of(
        reg("a", 1, offset=100),
        reg("./.prefetch.landmark", 1, offset=220),
        reg("stargz.index.json", 5, offset=300),
        reg("d/.prefetch.landmark", 1, offset=400),
    )
    assert [name for name, _ in index.children(0, 0, 9)] == [b"a", b"d"]
    assert index.prefetch_end == 220
    assert not index.no_prefetch
    assert walk(index, "d/.prefetch.landmark")
    assert index.chunk(0).blob_size == 120
    other = index_of(reg(".no.prefetch.landmark", 1))
    assert (other.prefetch_end, other.no_prefetch) == (0, True)


def test_devices_links_and_pipes() -> None:
    index = index_of(
        {"name": "c", "type": "char", "devMajor": 1, "devMinor": 0x12345},
        {"name": "b", "type": "block", "devMajor": 0xABC, "devMinor": 7, "mode": 0o660},
        {"name": "p", "type": "fifo"},
        {"name": "s", "type": "symlink", "linkName": "../../etc/é\n", "mode": 0o777},
    )
    assert index.attributes(walk(index, "c")).rdev == os.makedev(1, 0x12345)
    assert index.attributes(walk(index, "b")).rdev == os.makedev(0xABC, 7)
    assert index.mode(walk(index, "b")) == stat.S_IFBLK | 0o660
    assert stat.S_ISFIFO(index.mode(walk(index, "p")))
    target = "../../etc/é\n".encode()
    assert index.read_link(walk(index, "s")) == target
    assert index.attributes(walk(index, "s")).size == len(target)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59Z", 0),
        ("2000-02-29T23:59:59Z", 951868799_000000000),
        ("2038-01-19T03:14:08.000000001Z", 2147483648_000000001),
        ("2024-01-01T00:00:00.1234567891-00:30", 1704069000_123456789),
        ("", 0),
    ],
)
def test_times_keep_nanoseconds_and_never_go_before_1970(text: str, wanted: int) -> None:
    index = index_of(reg("f", modtime=text))
    assert index.attributes(walk(index, "f")).mtime_ns == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (rb'"\u00e9"', "é".encode()),
        (rb'"\ud83d\ude00"', "😀".encode()),
        (rb'"\ud83dx"', "\ufffdx".encode()),
        (rb'"\udc00\ud83d"', "\ufffd\ufffd".encode()),
        (b'"\xff\xfe"', b"\xff\xfe"),
        (rb'"a\/\"\\\b\f\n\r\t"', None),
        (rb'"\"\\\b\f\n\r\t"', b'"\\\b\f\n\r\t'),
    ],
)
def test_names_are_bytes_whatever_the_json_says(text: bytes, wanted: bytes | None) -> None:
    document = b'{"entries":[{"n\\u0061me":%s,"type":"reg"}],"version":1}' % text
    index = TocIndex(build_index(document, blob_size=1, toc_offset=1))
    name = index.child(0, 0)[0]
    assert name == wanted if wanted is not None else name == b"a"


def test_the_same_toc_gives_the_same_bytes() -> None:
    document = toc(*(reg(f"d{i % 7}/f{i}", 100 * i) for i in range(200)))
    first = build_index(document, blob_size=TOC_OFFSET, toc_offset=TOC_OFFSET)
    assert first == build_index(document, blob_size=TOC_OFFSET, toc_offset=TOC_OFFSET)


def test_a_leading_slash_is_dropped_as_podman_does() -> None:
    index = TocIndex(build_index(toc(reg("/app/run")), blob_size=TOC_OFFSET, toc_offset=TOC_OFFSET))
    app = index.lookup(0, b"app")
    assert app is not None
    assert index.lookup(app, b"run") is not None


@pytest.mark.parametrize(
    ("field", "entry"),
    [
        ("name", reg("a/../b")),
        ("name", reg("a\0b")),
        ("name", reg("x" * 256)),
        ("name", reg("x/" * 2049)),
        ("type", {"name": "a"}),
        ("type", {"name": "a", "type": "socket"}),
        ("type", reg("./")),
        ("size", reg("a", 1 << 50)),
        ("size", {"name": "a", "type": "reg", "size": -1}),
        ("size", {"name": "a", "type": "reg", "size": 1.0}),
        ("size", {"name": "a", "type": "reg", "size": "1"}),
        ("size", {"name": "a", "type": "reg", "size": 1 << 63}),
        ("uid", reg("a", uid=0xFFFFFFFF)),
        ("gid", reg("a", gid=1 << 32)),
        ("modtime", reg("a", modtime="yesterday")),
        ("modtime", reg("a", modtime="2023-02-29T00:00:00Z")),
        ("modtime", reg("a", modtime=5)),
        ("offset", reg("a", 1, offset=TOC_OFFSET)),
        ("offset", reg("a", 0, offset=TOC_OFFSET + 1)),
        ("innerOffset", reg("a", 1, innerOffset=1 << 30)),
        ("chunkSize", reg("a", (1 << 30) + 1)),
        ("chunkSize", reg("a", 10, chunkSize=11)),
        ("chunkOffset", reg("a", 10, chunkOffset=1)),
        ("size", reg("a", 10, chunkSize=9)),
        ("digest", reg("a", digest="sha512:00")),
        ("chunkDigest", reg("a", chunkDigest="sha256:" + "AB" * 32)),
        ("chunkType", reg("a", 1, chunkType="ones")),
        ("linkName", {"name": "a", "type": "symlink"}),
        ("linkName", {"name": "a", "type": "symlink", "linkName": "b\0"}),
        ("linkName", {"name": "a", "type": "symlink", "linkName": "b" * 4096}),
        ("linkName", {"name": "a", "type": "hardlink", "linkName": "/b"}),
        ("devMajor", {"name": "a", "type": "char", "devMajor": 4096}),
        ("devMinor", {"name": "a", "type": "char", "devMinor": 1 << 20}),
        ("xattrs", reg("a", xattrs=[])),
        ("xattrs", reg("a", xattrs={"user.a": "="})),
        ("xattrs", reg("a", xattrs={"user.a": 1})),
        ("xattrs", reg("a", xattrs={"": ""})),
        ("xattrs", reg("a", xattrs={"u" * 256: ""})),
        ("xattrs", reg("a", xattrs={"user.a": "AAAA" * 30000})),
        ("type", {"name": "a", "type": "chunk"}),
    ],
)
def test_what_breaks_the_format_is_refused_with_entry_and_field(field: str, entry: dict[str, Any]) -> None:
    error = refused(directory("fine"), entry)
    assert (error.entry, error.field) == (1, field), error
    assert "TOC entry 1" in str(error)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"version":1}',
        b'{"version":2,"entries":[]}',
        b'{"version":1,"entries":{}}',
        b'{"version":1,"entries":[]} x',
        b'{"version":1,"entries":[],"entries":[]}',
        b'{"version":1,"entries":[],}',
        b'{"version":1,"entries":[1]}',
        b'{"version":1,"entries":[null]}',
        b'{"version":1,"entries":[{"name":"a","type":"dir"},]}',
        b'{"version":1,"entries":[{"name":"a\n","type":"dir"}]}',
        b'{"version":1,"entries":[{"name":"\\x","type":"dir"}]}',
        b'{"version":1,"entries":[{"name":"\\u12","type":"dir"}]}',
        b'{"version":1,"entries":[{"name":"a","type":"dir","uid":01}]}',
        b'{"version":1,"entries":[{"name":"a","type":"dir","x":tru}]}',
        b'{"version":1,"entries":[{"name":"a","type":"dir","x":' + b"[" * 600 + b"]" * 600 + b"}]}",
        b'{"version":1,"entries":[{"name":"a","type":"dir","x":[1}}]}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_toc_is_refused(document: bytes) -> None:
    with pytest.raises(FormatError):
        build_index(document, blob_size=1, toc_offset=1)


def test_every_truncation_is_refused() -> None:
    strange = [1, {"b": None}, "\u00e9", 1.5e3]
    document = toc(directory("a", xattrs={"user.a": "eA=="}, x=strange), reg("b", 5))
    for length in range(len(document)):
        with pytest.raises(FormatError):
            build_index(document[:length], blob_size=TOC_OFFSET, toc_offset=TOC_OFFSET)


def test_unknown_fields_and_nulls_are_skipped() -> None:
    extra = {"x": [[], {}, [{"y": [True, False, None, -1.5e-3, "\\\""]}]]}
    index = index_of(reg("a", 1, extra=extra, uid=None, xattrs=None))
    assert index.attributes(walk(index, "a")).uid == 0


def test_entries_and_inodes_are_limited() -> None:
    document = toc(*(reg(f"f{i}") for i in range(11)))
    assert build_index(document, blob_size=1, toc_offset=1, max_entries=11)
    with pytest.raises(FormatError):
        build_index(document, blob_size=1, toc_offset=1, max_entries=10)
    with pytest.raises(FormatError):
        build_index(toc(reg("a/" * 20 + "f")), blob_size=1, toc_offset=1, max_entries=20)


def test_a_damaged_index_is_refused() -> None:
    good = build_index(toc(reg("d/f", 10), reg("g")), blob_size=TOC_OFFSET, toc_offset=TOC_OFFSET)
    TocIndex(good)
    for position in range(0, len(good), 5):
        bad = bytearray(good)
        bad[position] ^= 1
        with pytest.raises(FormatError):
            TocIndex(bad)
    with pytest.raises(FormatError):
        TocIndex(good[:-8])
    with pytest.raises(FormatError):
        TocIndex(b"")


def test_numbers_that_are_not_there_are_index_errors_and_wrong_types_value_errors() -> None:
    index = index_of(reg("f", 1), directory("d"))
    file, empty = walk(index, "f"), walk(index, "d")
    for call in (index.attributes, index.mode, index.path, index.xattrs, index.child_count, index.chunk):
        with pytest.raises(IndexError):
            call(3)
    for call in (index.child_count, index.parent, index.read_link):
        with pytest.raises(ValueError, match="wanted type"):
            call(file)
    with pytest.raises(IndexError):
        index.child(empty, 0)
    with pytest.raises(ValueError, match="wanted type"):
        index.content_offset(empty)
