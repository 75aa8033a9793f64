"""One TOC entry, said plainly: which fields it has and what may stand in them."""

import base64
import datetime
import re
from dataclasses import dataclass, field

from .json_text import Pairs

NUMBERS = (
    b"size mode uid gid devMajor devMinor offset endOffset innerOffset chunkOffset chunkSize".split()
)
TYPES = b"dir reg symlink hardlink char block fifo chunk".split()
_TIME = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_DIGEST = re.compile(rb"sha256:([0-9a-f]{64})")


class RefusedError(ValueError):
    """The TOC breaks its format or a limit."""


def refuse_unless(condition: object, message: str) -> None:
    if not condition:
        raise RefusedError(message)


def clean(raw: bytes) -> list[bytes]:
    """The components of a path."""
    refuse_unless(len(raw) <= 4096 and b"\0" not in raw, "path")
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    refuse_unless(b".." not in parts and all(len(part) <= 255 for part in parts), "path")
    return parts


def read_time(text: bytes) -> int:
    if not text:
        return 0
    match = _TIME.fullmatch(text)
    refuse_unless(match, "time")
    assert match
    year, *rest = (int(group) for group in match.groups()[:6])
    sign, hours, minutes = match[8], int(match[9] or 0), int(match[10] or 0)
    refuse_unless(hours < 24 and minutes < 60, "zone")
    try:
        # datetime has no year 0, which is a leap year like 2000
        moment = datetime.datetime(year or 2000, *rest, tzinfo=datetime.UTC)  # type: ignore[misc,arg-type]
    except ValueError:
        raise RefusedError("time") from None
    if year == 0:
        return 0
    shift = datetime.timedelta(hours=hours, minutes=minutes) * (-1 if sign == b"-" else 1)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    seconds = (moment - epoch) // datetime.timedelta(seconds=1) - shift // datetime.timedelta(seconds=1)
    fraction = int((match[7] or b"0")[:9].ljust(9, b"0"))
    return seconds * 10**9 + fraction if seconds >= 0 else 0


def read_digest(text: bytes) -> bytes:
    if not text:
        return b""
    match = _DIGEST.fullmatch(text)
    refuse_unless(match, "digest")
    assert match
    return bytes.fromhex(match[1].decode())


def read_xattrs(pairs: Pairs) -> dict[bytes, bytes]:
    found = {}
    for name, text in pairs:
        refuse_unless(0 < len(name) <= 255 and b"\0" not in name and isinstance(text, bytes), "xattr")
        assert isinstance(text, bytes)
        try:
            value = base64.b64decode(text, validate=True)
        except ValueError:
            raise RefusedError("base64") from None
        refuse_unless(len(value) <= 65536, "xattr")
        if not re.match(rb"(trusted|user)\.overlay\..", name, re.DOTALL):
            found[name] = value
            refuse_unless(len(found) <= 1024, "xattrs")
    return found


@dataclass
class Entry:
    """The fields of one entry, of the right types."""

    numbers: dict[bytes, int]
    name: bytes = b""
    link: bytes = b""
    type: bytes = b""
    mtime_ns: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    digest: bytes = b""
    chunk_digest: bytes = b""
    hole: bool = False

    def __getitem__(self, key: bytes) -> int:
        return self.numbers[key]

    @classmethod
    def read(cls, pairs: object) -> "Entry":
        refuse_unless(isinstance(pairs, Pairs), "entry")
        assert isinstance(pairs, Pairs)
        entry = cls(dict.fromkeys(NUMBERS, 0))
        for key, value in pairs:
            if value is not None:
                entry.take(key, value)
        return entry

    def take(self, key: bytes, value: object) -> None:
        if key in self.numbers:
            refuse_unless(isinstance(value, int) and not isinstance(value, bool), "number")
            assert isinstance(value, int)
            refuse_unless(0 <= value < 1 << 63, "number")
            self.numbers[key] = value
        elif key == b"xattrs":
            refuse_unless(isinstance(value, Pairs), "xattrs")
            assert isinstance(value, Pairs)
            self.xattrs = read_xattrs(value)
        elif key in (b"name", b"linkName", b"type", b"modtime", b"digest", b"chunkDigest", b"chunkType"):
            refuse_unless(isinstance(value, bytes), "text")
            assert isinstance(value, bytes)
            self.take_text(key, value)

    def take_text(self, key: bytes, text: bytes) -> None:
        match key:
            case b"name":
                self.name = text
            case b"linkName":
                self.link = text
            case b"type":
                refuse_unless(text in TYPES, "type")
                self.type = text
            case b"modtime":
                self.mtime_ns = read_time(text)
            case b"digest":
                self.digest = read_digest(text)
            case b"chunkDigest":
                self.chunk_digest = read_digest(text)
            case b"chunkType":
                refuse_unless(text in (b"", b"data", b"zeros"), "chunkType")
                self.hole = text == b"zeros"
