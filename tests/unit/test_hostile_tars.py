"""A tar that nobody honest writes is refused with one line as soon as it is known, and nothing of it is left."""

import mmap
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from registry_storage.errors import FormatError
from registry_storage.layer import plain
from tests.unit.test_plain_layers import add, make_tar, sparse_tar, unpack

BLOCK = 512


def header(name: bytes, kind: bytes = b"0", size: bytes = b"00000000000\0", **fields: bytes) -> bytes:
    """A header block whose fields are what they are; its checksum is right."""
    places = {"mode": 100, "uid": 108, "gid": 116, "mtime": 136, "link": 157}
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:136] = b"0000644\0" + b"0000000\0" * 2 + size
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    for key, value in fields.items():
        block[places[key] : places[key] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def negative(number: int, width: int) -> bytes:
    """GNU's base 256, two's complement."""
    return (number % (1 << 8 * width)).to_bytes(width, "big")


def octal(number: int) -> bytes:
    return b"%011o\0" % number


def body(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header, its records byte for byte."""
    data = b""
    for key, value in records:
        size = len(key) + len(value) + 3
        while size != len(b"%d %s=%s\n" % (size, key, value)):
            size += 1
        data += b"%d %s=%s\n" % (size, key, value)
    return header(b"pax", kind, octal(len(data))) + body(data)


def of(*entries: tuple[str, bytes], **more: object) -> bytes:
    """Entries of a name and a type, the last with `more`."""

    def fill(archive: tarfile.TarFile) -> None:
        for number, (name, kind) in enumerate(entries, 1):
            add(
                archive,
                name,
                b"x" if kind == tarfile.REGTYPE else b"",
                kind,
                **(more if number == len(entries) else {}),
            )

    return make_tar(fill)


REG, DIR, LNK, SYM, CHR = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE
PADDED = 1 << 20

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    # Paths: at most 4096 bytes, 255 in each name, inside the layer, without NUL.
    "a path with '..'": (lambda: of(("a/../../etc/passwd", REG)), r"without '\.\.', got 'a/\.\./\.\./etc"),
    "a path that begins with '..'": (lambda: of(("../x", REG)), r"without '\.\.'"),
    "a long name": (lambda: of(("x" * 256, REG)), "255 in each name"),
    "a long path": (lambda: of(("/".join(["d" * 200] * 21), REG)), "a path of 4096 bytes"),
    "a NUL in a path": (lambda: pax((b"path", b"a\0b")) + header(b"a"), "NUL"),
    "a whiteout of '.'": (lambda: of((".wh..", REG)), "name"),
    "a whiteout of '..'": (lambda: of((".wh...", REG)), "name"),
    "a file as the root": (lambda: header(b"."), "root"),
    "below a file": (lambda: of(("a", REG), ("a/b", REG)), "not a directory"),
    "below a symbolic link": (lambda: header(b"a", b"2", link=b"/etc") + header(b"a/b"), "not a directory"),
    # Links
    "a link to nothing": (lambda: of(("a", LNK), linkname="missing"), "no such entry"),
    "a link to itself": (lambda: of(("a", LNK), linkname="a"), "circle|no such entry"),
    "a link out of the layer": (lambda: of(("a", LNK), linkname="../../etc/shadow"), r"'\.\.'"),
    "a link to a directory": (lambda: of(("d", DIR), ("a", LNK), linkname="d"), "link to a directory"),
    "a symbolic link to nowhere": (lambda: of(("a", SYM), linkname=""), "linkName"),
    "a symbolic link too far": (lambda: of(("a", SYM), linkname="x" * 4096), "linkName: too long"),
    # Attributes: 255 bytes of name, 64 KiB of value, 1024 of them.
    "a large attribute": (lambda: of(("a", REG), pax_headers={"SCHILY.xattr.user.a": "v" * 65_537}), "xattrs"),
    "a long attribute name": (lambda: of(("a", REG), pax_headers={"SCHILY.xattr.user." + "a" * 256: "v"}), "xattrs"),
    "an attribute without a name": (lambda: pax((b"SCHILY.xattr.", b"v")) + header(b"a"), "xattrs"),
    "many attributes": (
        lambda: of(("a", REG), pax_headers={f"SCHILY.xattr.user.{n}": "v" for n in range(1025)}), "too many attributes",
    ),
    # Numbers
    "an unknown type": (lambda: of(("a", b"Q")), "type 'Q'"),
    "a device out of range": (lambda: of(("a", CHR), devmajor=8191, devminor=1 << 20), "devM"),
    "an owner below 0": (lambda: header(b"a", uid=negative(-1, 8)), "uid"),
    "an owner beyond 32 bits": (lambda: pax((b"uid", b"4294967296")) + header(b"a"), "uid"),
    "an owner of 4000 digits": (lambda: pax((b"uid", b"9" * 4000)) + header(b"a"), "uid"),
    "an owner of 5000 digits": (lambda: pax((b"uid", b"9" * 5000)) + header(b"a"), "uid"),
    "a size below 0": (lambda: header(b"a", size=negative(-512, 12)), "size: wanted at least 0"),
    "an extended header of less than nothing": (lambda: header(b"a", b"x", negative(-512, 12)), "extended header"),
    "a global header of less than nothing": (lambda: header(b"a", b"g", negative(-512, 12)), "extended header"),
    "a size beyond the tar": (lambda: header(b"a", size=octal(1 << 32)) + b"x" * 1000, "cut off"),
    "a size beyond every disk": (
        lambda: header(b"a", size=b"\x80" + (1 << 80).to_bytes(11, "big")), "files: wanted at most",
    ),
    "a size of 4000 digits": (lambda: pax((b"size", b"9" * 4000)) + header(b"a"), "files: wanted at most"),
    "not a number": (lambda: header(b"a", size=b"0x00000000\0\0"), "octal"),
    "time is not a number": (lambda: pax((b"mtime", b"now")) + header(b"a"), "time"),
    # Headers
    "a wrong checksum": (lambda: b"b" + header(b"a")[1:], "checksum"),
    "a broken extended header": (lambda: header(b"a", b"x", octal(9)) + body(b"99 path=x"), "extended header"),
    "an extended header at the end": (lambda: pax((b"path", b"a")) + bytes(1024), "without an entry"),
    "a large extended header": (lambda: pax((b"comment", b"x" * (4 << 20))) + header(b"a"), "at most 4194304 bytes"),
    "many extended headers": (
        lambda: pax((b"comment", b"x" * PADDED)) * 17 + header(b"a"), "of one entry: wanted at most 16777216",
    ),
    "many global headers": (
        lambda: pax((b"comment", b"x" * PADDED), kind=b"g") * 17 + header(b"a"), "of one entry: wanted at most",
    ),
    # Sparse files: parts in order, inside the file, not too many; holes count as bytes of the file.
    "sparse parts that overlap": (lambda: sparse_tar(1000, [(0, b"x" * 10), (5, b"y" * 10)]), "ascending parts"),
    "sparse parts behind the end": (lambda: sparse_tar(10, [(5, b"x" * 10)]), "ascending parts in 10 bytes"),
    "sparse parts beyond 64 bits": (lambda: sparse_tar(10**19 - 1, [(10**19 - 10, b"x")]), "files: wanted at most"),
    "sparse files that are too large together": (
        lambda: _sparse_pax((b"GNU.sparse.map", b"0,0"), (b"GNU.sparse.size", b"%d" % (5 << 40))) * 2,
        "files: wanted at most",
    ),
    "many sparse parts": (lambda: _sparse_map(b"65537\n"), "sparse map: wanted at most 65536 parts"),
    "a sparse map without an end": (lambda: _sparse_map(b"65536\n" + b"0" * (3 << 20)), "sparse map: wanted at most"),
    "many sparse parts in a header": (
        lambda: _sparse_pax((b"GNU.sparse.map", b"0,0," * 65_537), (b"GNU.sparse.size", b"9")),
        "sparse map: wanted at most",
    ),
    "half a sparse part": (
        lambda: _sparse_pax((b"GNU.sparse.map", b"0"), (b"GNU.sparse.size", b"9")), "odd count",
    ),
    "a sparse file without a size": (lambda: _sparse_pax((b"GNU.sparse.map", b"0,0")), "without its real size"),
}  # fmt: skip


def _sparse_map(data: bytes) -> bytes:
    """GNU's format 1.0, whose map stands before the data."""
    records = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
    return pax(*records) + header(b"a", size=octal(len(data))) + body(data)


def _sparse_pax(*records: tuple[bytes, bytes]) -> bytes:
    """GNU's formats 0.0 and 0.1, whose map is in the header."""
    return pax(*records) + header(b"a")


@pytest.mark.parametrize("name", REFUSED)
async def test_a_hostile_tar_is_refused_with_one_line_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(FormatError, match=words) as caught:
        await unpack(tmp_path, make(), "zstd")
    assert str(caught.value).startswith("layer sha256:")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert os.listdir(tmp_path) == []


async def test_the_largest_that_is_allowed_is_taken(tmp_path: Path) -> None:
    """What the limits refuse begins one behind it."""
    value = "v" * 65_536
    path = "/".join(["d" * 255] * 15 + ["e" * 250])

    def fill(archive: tarfile.TarFile) -> None:
        add(archive, path, b"x", pax_headers={"SCHILY.xattr.user." + "a" * 250: value})
        add(archive, "s", kind=SYM, linkname="x" * 4095)

    tar = make_tar(fill)
    layer = await unpack(tmp_path, tar, "zstd")
    assert layer.read(path) == b"x"
    assert layer.index.xattr(layer.inode(path), b"user." + b"a" * 250) == value.encode()
    assert len(layer.index.read_link(layer.inode("s"))) == 4095


@pytest.mark.parametrize(("limit", "most"), [("MAX_ENTRIES", 1000), ("MAX_TOC_BYTES", 100_000)])
async def test_a_crowd_is_refused_while_it_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(plain, limit, most)
    tar = of(*((f"{number}", REG) for number in range(2000))) + b"what follows is never looked at"
    with pytest.raises(FormatError, match=rf"wanted at most .*{most}") as caught:
        await unpack(tmp_path, tar)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


async def test_what_the_headers_hold_does_not_gather_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = 0

    def stop(document: mmap.mmap, **_: object) -> bytes:
        nonlocal described
        described = len(document)
        raise FormatError("far enough")

    monkeypatch.setattr(plain, "build_index", stop)
    attributes = [(b"SCHILY.xattr.user.%d" % key, b"v" * 60_000) for key in range(20)]
    tar = b"".join(pax(*attributes) + header(b"%d" % number) for number in range(40))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="far enough"):
            await unpack(tmp_path, tar, "zstd")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert described > 60_000_000
    assert peak < 16 << 20
