"""Sparse entries of a tar (GNU tar manual, "Storing Sparse Files"), and the plain entries that take their place."""

from typing import Final

from ...errors import FormatError
from .entry import TarEntry
from .stream import TarBytes

_BLOCK: Final = 512
_MAX_PARTS: Final = 1 << 16
_MAX_MAP_BYTES: Final = 2 << 20
_Records = list[tuple[bytes, bytes]]


def read_old(entry: TarEntry, block: bytes, stream: TarBytes, raw: list[bytes], pax: _Records) -> None:
    """GNU's own type ``S``: the map is in the header and in blocks behind it."""
    parts = _old_parts(block[386:482])
    real_size = _octal(block[483:495])
    more = block[482]
    while more:
        extension = stream.take(_BLOCK)
        parts += _old_parts(extension[:504])
        more = extension[504]
        _check_count(parts)
    _become_plain(entry, block, parts, real_size, raw, pax)


def read_pax(entry: TarEntry, block: bytes, stream: TarBytes, raw: list[bytes], pax: _Records) -> None:
    """GNU's formats 0.0, 0.1 and 1.0 in an extended header."""
    values = dict(pax)
    numbers: list[int]
    if values.get(b"GNU.sparse.major") == b"1":
        numbers, taken = _map_before_data(stream)
        entry.stored_size -= taken
    elif b"GNU.sparse.map" in values:
        if values[b"GNU.sparse.map"].count(b",") > 2 * _MAX_PARTS:
            raise FormatError(f"tar: sparse map: wanted at most {_MAX_PARTS} parts")
        numbers = [_number(text) for text in values[b"GNU.sparse.map"].split(b",") if text]
    elif b"GNU.sparse.offset" in values:
        numbers = [_number(value) for key, value in pax if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes")]
    else:
        return
    if len(numbers) % 2:
        raise FormatError("tar: a sparse map with an odd count of numbers")
    parts = list(zip(numbers[::2], numbers[1::2], strict=True))
    _check_count(parts)
    size = values.get(b"GNU.sparse.realsize", values.get(b"GNU.sparse.size"))
    if size is None:
        raise FormatError("tar: a sparse file without its real size")
    entry.name = values.get(b"GNU.sparse.name", entry.name)
    _become_plain(entry, block, parts, _number(size), raw, pax)


def _map_before_data(stream: TarBytes) -> tuple[list[int], int]:
    """The map of format 1.0: decimal lines in whole blocks before the data; and the bytes it takes."""
    text = bytearray(stream.take(_BLOCK))
    first, found, rest = text.partition(b"\n")
    count = _number(bytes(first)) if found else _MAX_PARTS + 1
    if count > _MAX_PARTS:
        raise FormatError(f"tar: sparse map: wanted at most {_MAX_PARTS} parts, got {bytes(first[:40])!r}")
    lines = rest.count(b"\n")
    while lines < 2 * count:
        block = stream.take(_BLOCK)
        lines += block.count(b"\n")
        text += block
        if len(text) > _MAX_MAP_BYTES:
            raise FormatError(f"tar: sparse map: wanted at most {_MAX_MAP_BYTES} bytes, got more")
    return [_number(bytes(line)) for line in text.split(b"\n")[1 : 2 * count + 1]], len(text)


def _old_parts(data: bytes) -> list[tuple[int, int]]:
    parts = []
    for at in range(0, len(data) - 23, 24):
        if not data[at]:
            break
        parts.append((_octal(data[at : at + 12]), _octal(data[at + 12 : at + 24])))
    return parts


def _octal(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise FormatError(f"tar: sparse map: wanted an octal number, got {text!r}") from None


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise FormatError(f"tar: sparse map: wanted a number, got {text[:40]!r}")
    return int(text)


def _check_count(parts: list[tuple[int, int]]) -> None:
    if len(parts) > _MAX_PARTS:
        raise FormatError(f"tar: sparse map: wanted at most {_MAX_PARTS} parts")


def _become_plain(
    entry: TarEntry, block: bytes, parts: list[tuple[int, int]], real_size: int, raw: list[bytes], pax: _Records
) -> None:
    """Check the map and replace the headers by those of a regular file that holds its holes."""
    end = 0
    for offset, size in parts:
        if offset < end or offset + size > real_size:
            raise FormatError(f"tar: sparse map: wanted ascending parts in {real_size} bytes, got {offset} + {size}")
        end = offset + size
    if sum(size for _, size in parts) != entry.stored_size:
        raise FormatError(f"tar: sparse map: wanted parts of {entry.stored_size} bytes together")
    entry.sparse = tuple((offset, size) for offset, size in parts if size)
    entry.size = real_size
    records = [
        (key, value)
        for key, value in pax
        if not key.startswith(b"GNU.sparse.") and key not in (b"size", b"path", b"linkpath")
    ]
    records.append((b"path", entry.name))
    if real_size >= 1 << 33:
        records.append((b"size", b"%d" % real_size))
    body = b"".join(_record(key, value) for key, value in records)
    head = _header(b"PaxHeaders/sparse", len(body), b"x")
    # Numbers of GNU's base 256 stay, pax readers know them.
    plain = bytearray(_BLOCK)
    plain[:100] = entry.name[:100].ljust(100, b"\0")
    plain[100:124] = block[100:124]
    plain[124:136] = b"%011o\0" % (real_size if real_size < 1 << 33 else 0)
    plain[136:148] = block[136:148]
    plain[156:157] = b"0"
    plain[257:265] = b"ustar\x0000"
    plain[265:329] = block[265:329]
    _seal(plain)
    raw[:] = [head, body + bytes(-len(body) % _BLOCK), bytes(plain)]


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    size = rest + len(str(rest))
    size = rest + len(str(size))
    return b"%d %s=%s\n" % (size, key, value)


def _header(name: bytes, size: int, kind: bytes) -> bytes:
    header = bytearray(_BLOCK)
    header[: len(name)] = name
    header[100:124] = b"0000000\0" * 3
    header[124:136] = b"%011o\0" % size
    header[136:148] = b"00000000000\0"
    header[156:157] = kind
    header[257:265] = b"ustar\x0000"
    _seal(header)
    return bytes(header)


def _seal(header: bytearray) -> None:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
