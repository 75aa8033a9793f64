"""The structure of a tar (POSIX.1-2017 pax, ustar; GNU long names and sparse files; as Go's archive/tar reads it)."""

from typing import Final

from ...errors import FormatError
from . import sparse
from .entry import TarEntry, clean_path
from .stream import TarBytes

BLOCK: Final = 512
MAX_EXTENDED_BYTES: Final = 4 << 20
"""Of an extended header or a long name."""
MAX_HEADERS_BYTES: Final = 16 << 20
"""Of everything that stands before one entry."""
_ZERO_BLOCK: Final = bytes(BLOCK)
_ENDS: Final = b" \0"

_TYPES: Final = {
    0x00: "reg", 0x30: "reg", 0x37: "reg", 0x53: "reg",
    0x31: "hardlink", 0x32: "symlink", 0x33: "char", 0x34: "block", 0x35: "dir", 0x36: "fifo",
}  # fmt: skip
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK, _GNU_SPARSE = 0x78, 0x67, 0x4C, 0x4B, 0x53
_XATTR: Final = b"SCHILY.xattr."
Records = list[tuple[bytes, bytes]]


class TarParser:
    """Goes through a tar; the caller takes each entry's content, `stored_size` bytes and padding, before the next."""

    def __init__(self, stream: TarBytes) -> None:
        self.stream = stream
        self.has_end = False
        """The tar ended with two blocks of zeros."""
        self.before_end = b""
        """What was read since the last entry and belongs to no entry: the first blocks of the end."""

    def next(self) -> TarEntry | None:
        """The next entry; None at the end. Raises FormatError."""
        raw: list[bytes] = []
        raw_size = 0
        pax: Records = []
        long_name = long_link = None
        while True:
            start = self.stream.position
            block = self.stream.take_block()
            if len(block) < BLOCK or block == _ZERO_BLOCK:
                if raw:
                    raise FormatError(f"tar: an extended header without an entry, at byte {start}")
                self._end(block)
                return None
            _check_sum(block, start)
            kind = block[156]
            if kind in (_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK):
                size = _number(block, 124, 136, "size")
                if not 0 <= size <= MAX_EXTENDED_BYTES:
                    raise FormatError(f"tar: extended header: wanted at most {MAX_EXTENDED_BYTES} bytes, got {size}")
                body = self.stream.take(size + -size % BLOCK)
                # A global header is for its tar alone; those who unpack layers do not apply it either.
                if kind == _PAX_GLOBAL:
                    self.global_headers(block + body)
                    continue
                raw += (block, body)
                raw_size += len(block) + len(body)
                _check_headers(raw_size)
                if kind == _PAX:
                    pax = _parse_pax(body[:size])
                elif kind == _LONG_NAME:
                    long_name = _text(body[:size])
                else:
                    long_link = _text(body[:size])
                continue
            raw.append(block)
            return self._entry(block, raw, pax, long_name, long_link)

    def global_headers(self, raw: bytes) -> None:
        """A global extended header was read and is left out."""

    def _end(self, block: bytes) -> None:
        second = self.stream.take_block() if len(block) == BLOCK else b""
        self.before_end = block + second
        if len(block) == BLOCK:
            if len(second) == BLOCK and second != _ZERO_BLOCK:
                raise FormatError(f"tar: a block of zeros between entries, before byte {self.stream.position}")
            self.has_end = len(second) == BLOCK
        elif block.strip(b"\0"):
            raise FormatError(f"tar: cut off after {self.stream.position} bytes")

    def _entry(
        self, block: bytes, raw: list[bytes], pax: Records, long_name: bytes | None, long_link: bytes | None
    ) -> TarEntry:
        kind = block[156]
        kind_name = _TYPES.get(kind)
        name = _text(block[:100])
        link = _text(block[157:257])
        major = minor = 0
        user = group = b""
        magic = block[257:265]
        if magic[:5] == b"ustar":
            user, group = _text(block[265:297]), _text(block[297:329])
            if kind in (0x33, 0x34):
                major, minor = _number(block, 329, 337, "devmajor"), _number(block, 337, 345, "devminor")
            if magic == b"ustar\x0000" and block[345]:
                prefix = _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
                name = prefix + b"/" + name
        size = _number(block, 124, 136, "size")
        mode = _number(block, 100, 108, "mode")
        uid, gid = _number(block, 108, 116, "uid"), _number(block, 116, 124, "gid")
        mtime_ns = _number(block, 136, 148, "mtime") * 1_000_000_000
        if long_name is not None:
            name = long_name
        if long_link is not None:
            link = long_link
        atime_ns = ctime_ns = None
        xattrs: dict[bytes, bytes] = {}
        for key, value in pax:
            if key.startswith(_XATTR):
                xattrs[key[len(_XATTR) :]] = value
                continue
            if not value:
                continue
            match key:
                case b"path":
                    name = value
                case b"linkpath":
                    link = value
                case b"size":
                    size = _decimal(key, value)
                case b"uid":
                    uid = _decimal(key, value)
                case b"gid":
                    gid = _decimal(key, value)
                case b"uname":
                    user = value
                case b"gname":
                    group = value
                case b"mtime":
                    mtime_ns = _nanoseconds(value)
                case b"atime":
                    atime_ns = _nanoseconds(value)
                case b"ctime":
                    ctime_ns = _nanoseconds(value)
        if kind_name is None:
            raise FormatError(f"tar: {_show(name)}: entries of type {chr(kind)!r} cannot be in a layer")
        if size < 0:
            raise FormatError(f"tar: {_show(name)}: size: wanted at least 0, got {size}")
        if kind == 0 and name.endswith(b"/"):
            kind_name = "dir"
        if kind_name != "reg":
            # Only regular files have content, whatever is said of the others.
            size = 0
        entry = TarEntry(
            name, b"", kind_name, b"", size, mode, uid, gid, user, group, mtime_ns,
            link, major, minor, xattrs, atime_ns, ctime_ns, size,
        )  # fmt: skip
        if kind == _GNU_SPARSE:
            sparse.read_old(entry, block, self.stream, raw, pax)
        elif pax and kind_name == "reg" and any(key.startswith(b"GNU.sparse.") for key, _ in pax):
            sparse.read_pax(entry, block, self.stream, raw, pax)
        entry.raw = b"".join(raw)
        entry.path = clean_path(entry.name)
        return entry


class KeepingParser(TarParser):
    """Keeps global headers as part of the entry behind them, so that no byte is lost."""

    def __init__(self, stream: TarBytes) -> None:
        super().__init__(stream)
        self._kept: list[bytes] = []
        self._kept_size = 0

    def global_headers(self, raw: bytes) -> None:
        """See TarParser."""
        self._kept.append(raw)
        self._kept_size += len(raw)
        _check_headers(self._kept_size)

    def next(self) -> TarEntry | None:
        """See TarParser."""
        entry = super().next()
        if self._kept:
            kept = b"".join(self._kept)
            if entry is None:
                self.before_end = kept + self.before_end
            else:
                entry.raw = kept + entry.raw
            self._kept.clear()
            self._kept_size = 0
        return entry


def _check_headers(size: int) -> None:
    if size > MAX_HEADERS_BYTES:
        raise FormatError(f"tar: extended headers of one entry: wanted at most {MAX_HEADERS_BYTES} bytes, got more")


def _check_sum(block: bytes, start: int) -> None:
    wanted = _number(block, 148, 156, "checksum")
    if sum(block) - sum(block[148:156]) + 256 != wanted:
        signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + 256
        if signed != wanted:
            raise FormatError(f"tar: a header with a wrong checksum at byte {start}")


def _number(block: bytes, start: int, end: int, what: str) -> int:
    first = block[start]
    if first & 0x80:
        # Base 256, two's complement, without the highest bit.
        value = int.from_bytes(block[start:end], "big") & ((1 << (8 * (end - start) - 1)) - 1)
        return value - (1 << (8 * (end - start) - 1)) if first & 0x40 else value
    if block[end - 1] in _ENDS:
        try:
            # As nearly all are: digits, and one byte that ends them.
            return int(block[start : end - 1], 8)
        except ValueError:
            pass
    text = block[start:end].strip(b" \0")
    try:
        return int(text.split(b"\0", 1)[0], 8) if text else 0
    except ValueError:
        raise FormatError(f"tar: {what}: wanted an octal number, got {text!r}") from None


def _text(data: bytes) -> bytes:
    return data.split(b"\0", 1)[0]


def _parse_pax(data: bytes) -> Records:
    records: Records = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        try:
            size = int(data[at:space])
        except ValueError:
            size = 0
        record = data[space + 1 : at + size]
        if space < 0 or size <= 0 or at + size > len(data) or not record.endswith(b"\n") or b"=" not in record:
            raise FormatError(f"tar: a broken extended header: {data[at : at + 60]!r}")
        key, _, value = record[:-1].partition(b"=")
        records.append((key, value))
        at += size
    return records


def _decimal(key: bytes, value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        raise FormatError(f"tar: {key.decode()}: wanted a number, got {value[:40]!r}") from None


def _nanoseconds(value: bytes) -> int:
    whole, _, fraction = value.partition(b".")
    try:
        nanoseconds = int((fraction + b"000000000")[:9])
        seconds = int(whole)
    except ValueError:
        raise FormatError(f"tar: time: wanted decimal seconds, got {value[:40]!r}") from None
    return seconds * 1_000_000_000 + (-nanoseconds if whole.startswith(b"-") else nanoseconds)


def _show(name: bytes) -> str:
    return repr(name.decode(errors="backslashreplace"))[:300]
