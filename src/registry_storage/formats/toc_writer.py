"""The TOC's JSON, entry by entry."""

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from ..errors import FormatError
from .tar.entry import TarEntry

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TO_ESCAPE: Final = re.compile(rb'["\\\x00-\x1f]')
_EMPTY_DIGEST: Final = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


class ChunkRecord(NamedTuple):
    """A chunk that is in the blob."""

    blob_offset: int
    inner_offset: int
    file_offset: int
    size: int
    is_hole: bool
    digest: bytes
    """sha256, 32 bytes."""
    blob_end: int
    """Where the piece that holds it ends in the blob."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What writers of TOCs do differently."""

    podman: bool
    """podman's: ``endOffset``, ``chunkType``, times of access and change, a digest only where there are chunks,
    no names of owners."""


class TocWriter:
    """Collects the entries of one TOC."""

    def __init__(self, dialect: Dialect) -> None:
        self._podman = dialect.podman
        self._parts: list[bytes] = []
        self.held_bytes = 0
        """Of the entries that were not drained yet."""
        self._users: dict[int, bytes] = {}
        self._groups: dict[int, bytes] = {}

    def add(self, entry: TarEntry, digest: bytes | None, chunks: list[ChunkRecord]) -> None:
        """The next entry of the tar; `digest` is the sha256 of a file that is not empty."""
        name = json_string(_toc_name(entry))
        text = [b'{"name":', name, b',"type":"', entry.type.encode(), b'"']
        if entry.size:
            text.append(b',"size":%d' % entry.size)
        if entry.mtime_ns and (time := format_time(entry.mtime_ns)):
            text.append(b',"modtime":"%s"' % time)
        if entry.link and (self._podman or entry.type in ("symlink", "hardlink")):
            # podman compares it with the header in the tar-split, whatever the type (buildah's whiteouts have one).
            as_is = self._podman or entry.type == "symlink"
            text += (b',"linkName":', json_string(entry.link if as_is else entry.link.lstrip(b"/")))
        if entry.mode:
            text.append(b',"mode":%d' % entry.mode)
        if entry.uid:
            text.append(b',"uid":%d' % entry.uid)
        if entry.gid:
            text.append(b',"gid":%d' % entry.gid)
        if self._podman:
            for key, time_ns in ((b"accesstime", entry.atime_ns), (b"changetime", entry.ctime_ns)):
                if time_ns and (time := format_time(time_ns)):
                    text.append(b',"%s":"%s"' % (key, time))
        else:
            text += _owner(b"userName", entry.uid, entry.user, self._users)
            text += _owner(b"groupName", entry.gid, entry.group, self._groups)
        if entry.major:
            text.append(b',"devMajor":%d' % entry.major)
        if entry.minor:
            text.append(b',"devMinor":%d' % entry.minor)
        if entry.xattrs:
            pairs = (
                json_string(key) + b':"' + base64.b64encode(value) + b'"' for key, value in sorted(entry.xattrs.items())
            )
            text += (b',"xattrs":{', b",".join(pairs), b"}")
        if entry.type == "reg" and digest is None and not self._podman:
            digest = _EMPTY_DIGEST
        if digest is not None:
            text.append(b',"digest":"sha256:%s"' % digest.hex().encode())
        if chunks:
            self._first_chunk(text, chunks)
        text.append(b"}")
        self._keep(text)
        for chunk in chunks[1:]:
            last = chunk is chunks[-1]
            more = [b'{"name":', name, b',"type":"chunk","chunkOffset":%d' % chunk.file_offset]
            self._chunk(more, chunk, told=self._podman or not last)
            more.append(b"}")
            self._keep(more)

    def _keep(self, text: list[bytes]) -> None:
        self._parts.append(b"".join(text))
        self.held_bytes += len(self._parts[-1]) + 1

    def _first_chunk(self, text: list[bytes], chunks: list[ChunkRecord]) -> None:
        single = len(chunks) == 1
        if self._podman:
            text.append(b',"endOffset":%d' % chunks[-1].blob_end)
            if single:
                # The digest of the file is the chunk's; a hole alone is data like any other.
                text.append(b',"offset":%d' % chunks[0].blob_offset)
                return
        self._chunk(text, chunks[0], told=not single)

    def _chunk(self, text: list[bytes], chunk: ChunkRecord, *, told: bool) -> None:
        if chunk.blob_offset:
            text.append(b',"offset":%d' % chunk.blob_offset)
        if chunk.inner_offset:
            text.append(b',"innerOffset":%d' % chunk.inner_offset)
        if told:
            text.append(b',"chunkSize":%d' % chunk.size)
        text.append(b',"chunkDigest":"sha256:%s"' % chunk.digest.hex().encode())
        if chunk.is_hole:
            text.append(b',"chunkType":"zeros"')

    def drain(self) -> bytes:
        """The entries so far, separated by commas, and forgotten: for whoever puts the document together."""
        parts = b",".join(self._parts)
        self._parts.clear()
        self.held_bytes = 0
        return parts

    def finish(self, tar_split_digest: str | None = None) -> bytes:
        """The document; nothing may have been drained."""
        end = b"]}" if tar_split_digest is None else b'],"tarSplitDigest":"%s"}' % tar_split_digest.encode()
        return b'{"version":1,"entries":[' + b",".join(self._parts) + end


def _toc_name(entry: TarEntry) -> bytes:
    """As in the tar; readers refuse absolute names."""
    name = entry.name.lstrip(b"/")
    return name or b"./"


def _owner(key: bytes, number: int, name: bytes, known: dict[int, bytes]) -> tuple[bytes, ...]:
    """Names stand on the first entry of an id, and where they change."""
    if not name or known.get(number) == name:
        return ()
    known[number] = name
    return (b',"', key, b'":', json_string(name))


def json_string(text: bytes) -> bytes:
    """A JSON string; bytes that are not UTF-8 stay as they are, because names are bytes."""
    if _TO_ESCAPE.search(text):
        text = _TO_ESCAPE.sub(lambda match: _ESCAPES.get(match[0], b"\\u%04x" % match[0][0]), text)
    return b'"' + text + b'"'


_ESCAPES: Final = {b'"': b'\\"', b"\\": b"\\\\"}


@lru_cache(4096)
def format_time(time_ns: int) -> bytes | None:
    """RFC 3339 in UTC; None: not in the years 1 to 9999, which it cannot say."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    try:
        text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    except OverflowError:
        return None
    if len(text) < 19:
        text = text.rjust(19, "0")
    if nanoseconds:
        text += f".{nanoseconds:09}".rstrip("0")
    return text.encode() + b"Z"


def check_describable(entry: TarEntry) -> None:
    """Raises FormatError for what no reader of TOCs takes."""
    if len(entry.path) > 4096 or any(len(part) > 255 for part in entry.path.split(b"/")):
        raise FormatError(f"tar: {entry.path[:300]!r}: wanted a path of 4096 bytes, 255 in each name")
