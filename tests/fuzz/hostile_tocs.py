"""TOCs that nobody honest writes, each with what must become of it."""

import base64
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TOC_OFFSET = 1 << 20
DIGEST = "sha256:" + "5a" * 32

Entry = dict[str, Any]


@dataclass(frozen=True)
class HostileToc:
    """A document; `refused` None: either is right, as long as it is one of the two."""

    name: str
    document: bytes
    refused: bool | None = True


def encode(entries: list[Entry]) -> bytes:
    return json.dumps({"version": 1, "entries": entries}).encode()


def regular(name: str, size: int = 0, **more: Any) -> Entry:
    return {"name": name, "type": "reg", "size": size, "offset": 10, "chunkDigest": DIGEST, **more}


def link(name: str, target: str) -> Entry:
    return {"name": name, "type": "hardlink", "linkName": target}


def chunk(name: str, chunk_offset: int, **more: Any) -> Entry:
    return {"name": name, "type": "chunk", "chunkOffset": chunk_offset, "chunkDigest": DIGEST, **more}


def hostile_tocs() -> Iterator[HostileToc]:
    """All of them, the same at every call; none needs more than some megabytes."""
    yield from names()
    yield from hard_links()
    yield from numbers()
    yield from chunks()
    yield from wrong_types()
    yield from texts()
    yield from crowds()


def names() -> Iterator[HostileToc]:
    bad = [
        "..",
        "../x",
        "a/..",
        "a/../b",
        "./..",
        "a/b/../../..",
        "\0",
        "a\0b",
        "a/\0",
    ]
    bad += ["x" * 256, "d/" + "x" * 256, "x/" * 2049, ".wh..", ".wh...", "a/.wh..", "a/.wh..."]
    for name in bad:
        for kind in ("reg", "dir", "symlink", "hardlink", "char", "fifo"):
            yield HostileToc(
                f"name {name[:20]!r} of a {kind}", encode([{"name": name, "type": kind, "linkName": "b"}])
            )
        yield HostileToc(f"link to {name[:20]!r}", encode([regular("b"), link("a", name)]))
    for name in [
        "/",
        "/etc/passwd",
        "//x",
        "...",
        "..a",
        "a..",
        ".",
        "",
        "./",
        "a/./b",
        "a//b",
        "a/",
        ".wh.",
        "-",
        "\n",
        "\x7f",
        "\ufeff",
        "ﬀ",
    ]:
        yield HostileToc(f"odd name {name!r}", encode([{"name": name, "type": "dir"}]), refused=False)
    for target in ["..", "/etc/shadow", "../" * 1000, "\n", "x" * 4095, "loop"]:
        document = encode([{"name": "loop", "type": "symlink", "linkName": target}])
        yield HostileToc(f"symlink to {target[:20]!r}", document, refused=False)
    for target in ["", "a\0", "x" * 4096]:
        yield HostileToc(
            f"symlink to {target[:20]!r}", encode([{"name": "a", "type": "symlink", "linkName": target}])
        )
    below = ["reg", "symlink", "char", "block", "fifo"]
    for kind in below:
        entries = [{"name": "a", "type": kind, "linkName": "b"}, regular("a/b")]
        yield HostileToc(f"entry below a {kind}", encode(entries))
    yield HostileToc("entry below a hard link", encode([regular("f"), link("a", "f"), regular("a/b")]))
    yield HostileToc("entry below a link to come", encode([link("a", "f"), regular("a/b"), regular("f")]))
    yield HostileToc("root as a file", encode([regular("./")]))
    yield HostileToc("root as a hard link", encode([regular("a"), link(".", "a")]))
    yield HostileToc("whiteout of the landmark", encode([regular(".wh..prefetch.landmark")]), refused=None)
    opaque = [regular(".wh..wh..opq"), regular("a/.wh..wh..opq"), regular("a")]
    yield HostileToc("opaque directory replaced by a file", encode(opaque), refused=False)


def hard_links() -> Iterator[HostileToc]:
    for length in (1, 2, 3, 1000):
        ring = [link(str(i), str((i + 1) % length)) for i in range(length)]
        yield HostileToc(f"circle of {length} hard links", encode(ring))
        yield HostileToc(
            f"tail to a circle of {length}", encode([*(link(f"t{i}", str(i)) for i in range(length)), *ring])
        )
    chain = [link(str(i), str(i + 1)) for i in range(20_000)]
    yield HostileToc("long chain", encode([*chain, regular("20000")]), refused=False)
    yield HostileToc("long chain backwards", encode([regular("20000"), *reversed(chain)]), refused=False)
    yield HostileToc("long chain to nothing", encode(chain))
    yield HostileToc("link to itself after a file", encode([regular("a"), link("a", "a")]), refused=False)
    yield HostileToc("link to a directory", encode([{"name": "d", "type": "dir"}, link("a", "d")]))
    yield HostileToc("link to a directory to come", encode([link("a", "d"), regular("d/f")]))
    yield HostileToc("link to the root", encode([link("a", ".")]))
    yield HostileToc("link into itself", encode([link("a", "a/b")]))
    yield HostileToc(
        "link over its own directory", encode([regular("d/f", 1), link("d", "d/f")]), refused=False
    )
    yield HostileToc("link to a whiteout", encode([regular(".wh.a"), link("b", "a")]))
    yield HostileToc("link to a marked name", encode([regular(".wh.a"), link("b", ".wh.a")]))
    yield HostileToc(
        "link to the landmark", encode([regular(".prefetch.landmark", 1), link("b", ".prefetch.landmark")])
    )
    many = [regular("f"), *(link(f"l{i}", "f") for i in range(70_000))]
    yield HostileToc("more links than 16 bits", encode(many), refused=False)


def numbers() -> Iterator[HostileToc]:
    fields = ["size", "mode", "uid", "gid", "devMajor", "devMinor", "offset", "endOffset", "innerOffset"]
    fields += ["chunkOffset", "chunkSize"]
    texts = [
        "-1",
        "1.0",
        "1e3",
        "-0.5",
        "9223372036854775808",
        "18446744073709551616",
        "1" * 5000,
        "1e999999999",
    ]
    texts += ["true", "{}", "[]", '"1"', "- 1", "+1", "01", "0x1", "1.", ".5", "NaN", "Infinity", "1e", "--1"]
    for field, text in itertools.product(fields, texts):
        document = b'{"version":1,"entries":[{"name":"a","type":"char","%s":%s}]}'
        yield HostileToc(f"{field} {text[:25]}", document % (field.encode(), text.encode()))
    for field in fields:
        for number in (1 << 31, 1 << 32, (1 << 63) - 1):
            yield HostileToc(
                f"{field} {number}", encode([regular("a", **{"size": 5, field: number})]), refused=None
            )
            yield HostileToc(
                f"{field} {number} of a device", encode([{"name": "a", "type": "char", field: number}]), None
            )
    hole = {"chunkType": "zeros"}
    yield HostileToc("hole of 8 TiB", encode([regular("a", 1 << 43, **hole)]), refused=False)
    yield HostileToc("holes of 16 TiB", encode([regular(name, 1 << 43, **hole) for name in "ab"]))
    yield HostileToc(
        "hidden holes of 16 TiB", encode([regular(f".wh.{name}", 1 << 43, **hole) for name in "ab"])
    )
    yield HostileToc("hole without end", encode([regular("a", (1 << 63) - 1, **hole)]))
    yield HostileToc(
        "file without data of 2^63", encode([{"name": "a", "type": "reg", "size": (1 << 63) - 1}])
    )


def chunks() -> Iterator[HostileToc]:
    for name, parts in {
        "overlap": [(0, 60), (50, 50)],
        "gap": [(0, 40), (50, 50)],
        "twice the first": [(0, 50), (0, 50)],
        "out of order": [(50, 50), (0, 50)],
        "too long": [(0, 50), (50, 51)],
        "too short": [(0, 50), (50, 49)],
        "one too many": [(0, 50), (50, 50), (100, 1)],
        "empty last": [(0, 50), (50, 50), (100, 0)],
        "to the end and beyond": [(0, 0), (100, 100)],
        "sum beyond 64 bits": [(0, 50), (50, (1 << 63) - 1)],
        "offset beyond 64 bits": [(0, 50), ((1 << 63) - 1, 50)],
    }.items():
        (start, size), *rest = parts
        entries = [regular("f", 100, chunkOffset=start, chunkSize=size)]
        entries += [chunk("f", start, chunkSize=size, offset=20) for start, size in rest]
        yield HostileToc(f"chunks: {name}", encode(entries))
        hidden = [dict(entry, name=".prefetch.landmark") for entry in entries]
        yield HostileToc(f"chunks of a hidden file: {name}", encode(hidden))
    yield HostileToc("chunk first", encode([chunk("f", 0)]))
    yield HostileToc("chunk after a directory", encode([{"name": "f", "type": "dir"}, chunk("f", 0)]))
    yield HostileToc("chunk after a link", encode([regular("f", 1), link("g", "f"), chunk("f", 1)]))
    yield HostileToc("chunk of another file", encode([regular("f", 9, chunkSize=4), chunk("g", 4)]))
    yield HostileToc("chunk with ..", encode([regular("f", 9, chunkSize=4), chunk("g/../f", 4)]))
    yield HostileToc("no digest", encode([regular("f", 9, chunkDigest="")]))
    yield HostileToc(
        "digest of the file for a part", encode([regular("f", 9, chunkDigest="", digest=DIGEST, chunkSize=4)])
    )
    yield HostileToc("chunk of 1 GiB and 1", encode([regular("f", (1 << 30) + 1)]))
    yield HostileToc("inner offset beyond 1 GiB", encode([regular("f", 1, innerOffset=1 << 30)]))
    yield HostileToc("inner offset of 2^63 - 1", encode([regular("f", 1, innerOffset=(1 << 63) - 1)]))
    for offset in (TOC_OFFSET, TOC_OFFSET + 1, 1 << 40, (1 << 63) - 1):
        yield HostileToc(f"offset {offset}", encode([regular("f", 1, offset=offset)]))
        yield HostileToc(
            f"end offset {offset}", encode([regular("f", 1, endOffset=offset)]), refused=offset > TOC_OFFSET
        )
    yield HostileToc("end before start", encode([regular("f", 1, endOffset=10)]))
    shared = [regular(f"f{i}", 100, offset=10, innerOffset=i) for i in range(1000)]
    yield HostileToc("pieces that overlap", encode(shared), refused=False)
    backwards = [regular(f"f{i}", 100, offset=TOC_OFFSET - 1 - i) for i in range(5000)]
    yield HostileToc("offsets backwards", encode(backwards), refused=False)


def wrong_types() -> Iterator[HostileToc]:
    values = [True, 1, 1.5, [], {}, ["a"], {"a": "b"}]
    for field, value in itertools.product(
        ["name", "type", "linkName", "modtime", "digest", "chunkType"], values
    ):
        yield HostileToc(f"{field} {value}", encode([{"name": "a", "type": "dir", field: value}]))
    for value in [
        True,
        1,
        "a",
        [],
        {"": ""},
        {"a": 1},
        {"a": None},
        {"a": {}},
        {"a\0": ""},
        {"a": "="},
        {"a": "eA"},
    ]:
        yield HostileToc(f"xattrs {value}", encode([{"name": "a", "type": "dir", "xattrs": value}]))
    big = base64.b64encode(bytes(65537)).decode()
    yield HostileToc(
        "xattr of 64 KiB and 1", encode([{"name": "a", "type": "dir", "xattrs": {"user.a": big}}])
    )
    many = {f"user.{i}": "" for i in range(1025)}
    yield HostileToc("1025 xattrs", encode([{"name": "a", "type": "dir", "xattrs": many}]))
    steering = {"trusted.overlay.redirect": "eA==", "user.overlay.opaque": "eQ=="}
    yield HostileToc(
        "steering xattrs", encode([{"name": "a", "type": "dir", "xattrs": steering}]), refused=False
    )
    for kind in ["", "REG", "socket", "whiteout", "reg\0", "chunk "]:
        yield HostileToc(f"type {kind!r}", encode([{"name": "a", "type": kind}]))
    for text in ["now", "2024-01-01", "2024-13-01T00:00:00Z", "2023-02-29T00:00:00Z", "2024-01-01T24:00:00Z"]:
        yield HostileToc(f"time {text}", encode([regular("a", modtime=text)]))
    for text in [
        "sha256:",
        "sha256:" + "A" * 64,
        "sha512:" + "a" * 128,
        "md5:" + "a" * 32,
        "a" * 71,
        DIGEST + "0",
    ]:
        yield HostileToc(f"digest {text[:12]}", encode([regular("a", 1, chunkDigest=text)]))
    for text in [
        "",
        "[]",
        "1",
        "null",
        "{}",
        '{"entries":1}',
        '{"entries":[[]]}',
        '{"entries":[null]}',
        "{entries:[]}",
    ]:
        yield HostileToc(f"document {text}", text.encode())
    for text in [
        '{"entries":[],"entries":[]}',
        '{"entries":[]}{}',
        '{"entries":[]}\0',
        '{"entries":[],"version":2}',
    ]:
        yield HostileToc(f"document {text}", text.encode())


def texts() -> Iterator[HostileToc]:
    def named(name: bytes, label: str, *, refused: bool) -> HostileToc:
        return HostileToc(label, b'{"entries":[{"type":"dir","name":"' + name + b'"}]}', refused)

    for raw in [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80" * 255, b"\xe2\x80\xae"]:
        yield named(raw, f"raw bytes {raw[:4]!r}", refused=False)
    for escape in [
        b"\\ud800",
        b"\\udc00",
        b"\\ud800\\ud800",
        b"\\udc00\\ud800",
        b"\\ud83d\\ude00",
        b"\\ud800a",
        b"\\uFFFF",
        b"\\u002fetc",
    ]:
        yield named(escape, f"escape {escape!r}", refused=False)
    for escape in [
        b"\\u0000",
        b"\\u002e\\u002e",
        b"a\\/..",
        b"\\u2",
        b"\\u12g4",
        b"\\x41",
        b"\\",
        b"\\ud800\\u",
    ]:
        yield named(escape, f"escape {escape!r}", refused=True)
    for byte in range(0x20):
        yield named(bytes([byte]), f"control character {byte}", refused=True)
    yield named(b"\\ud800" * 85, "replacement characters up to 255 bytes", refused=False)
    yield named(b"\\ud800" * 86, "replacement characters beyond 255 bytes", refused=True)
    yield named(b"\\u0061" * 10_000, "long escaped name", refused=True)
    for brackets in (b"[]", b"{}"):
        opening = brackets[:1] if brackets == b"[]" else b'{"a":'
        for depth, refused in ((500, False), (100_000, True), (1_000_000, True)):
            nest = opening * depth + (b"0" if brackets == b"{}" else b"") + brackets[1:] * depth
            document = b'{"x":%s,"entries":[{"type":"dir","y":%s}]}' % (nest, nest)
            yield HostileToc(f"{depth} deep {brackets!r}", document, refused)
        yield HostileToc(f"unclosed {opening!r}", b'{"entries":[{"x":' + opening * 500)
    whole = encode(
        [regular("a", 5, xattrs={"user.a": "eA=="}, modtime="2024-01-01T00:00:00Z", x=[{"y": "\u00e9"}])]
    )
    for length in range(len(whole)):
        yield HostileToc(f"cut at {length}", whole[:length])
    for pair in (
        b'"name":"dir"',
        b'"size":0',
        b'"xattrs":{"user.a":"eA=="}',
        b'"type":"dir"',
        b'"modtime":""',
    ):
        document = b'{"entries":[{"type":"dir","name":"a",%s,%s}]}' % (pair, pair)
        yield HostileToc(f"twice {pair!r}", document, refused=False)
    yield HostileToc("name twice, the last one bad", b'{"entries":[{"type":"dir","name":"a","name":".."}]}')
    yield HostileToc("byte order mark", b"\xef\xbb\xbf" + whole)
    yield HostileToc("UTF-16", whole.decode().encode("utf-16"))
    yield HostileToc("spaces", whole.replace(b",", b" , ").replace(b":", b" \n:\t\r ", 2), refused=False)


def crowds() -> Iterator[HostileToc]:
    """Many of something: these must end soon."""
    deep = "/".join("d" * 2047)
    yield HostileToc("path of 2048 directories", encode([regular(f"{deep}/f"), regular(deep)]), refused=False)
    fights = [regular(f"a/{deep[:2000]}/f" if i % 2 else "a") for i in range(200)]
    yield HostileToc("a file and a deep tree in turn", encode(fights), refused=True)
    same = [regular("f", 3, uid=i) for i in range(20_000)]
    yield HostileToc("one name twenty thousand times", encode(same), refused=False)
    gone = [regular(f"d/.wh.{i}") for i in range(20_000)] * 2
    yield HostileToc("whiteouts twice", encode(gone), refused=False)
    prefix = "x" * 240
    alike = [regular(f"{prefix}{i:08d}") for i in range(20_000, 0, -1)]
    yield HostileToc("long names that differ at the end", encode(alike), refused=False)
    repeated = b",".join(b'"user.%d":"eA=="' % (i % 3) for i in range(50_000))
    document = b'{"entries":[{"type":"dir","name":"a","xattrs":{%s}}]}' % repeated
    yield HostileToc("one xattr again and again", document, refused=False)
    sized = b'"xattrs":{"user.a":"%s"}' % base64.b64encode(bytes(60_000))
    document = b'{"entries":[{"type":"dir","name":"a",%s}]}' % b",".join([sized] * 50)
    yield HostileToc("xattrs again and again", document, refused=False)


def flat_directory(count: int) -> bytearray:
    """`count` pipes in one directory, in no order: about 34 bytes of JSON each, made piece by piece."""
    document = bytearray(b'{"version":1,"entries":[')
    for start in range(0, count, 100_000):
        numbers = range(start, min(start + 100_000, count))
        document += b"".join(
            b'{"name":"%08x","type":"fifo"},' % (i * 2654435761 & 0xFFFFFFFF) for i in numbers
        )
    document[-1:] = b"]}"
    return document


def deep_trees(count: int) -> bytearray:
    """Paths that between them need `count` directories nobody lists: the least JSON for the most inodes."""
    document = bytearray(b'{"version":1,"entries":[')
    path = b"/".join([b"d"] * 2000)
    for i in range(count // 2000 + 1):
        document += b'{"name":"%05d/%s","type":"dir"},' % (i, path)
    document[-1:] = b"]}"
    return document
