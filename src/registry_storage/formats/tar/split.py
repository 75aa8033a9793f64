"""tar-split: everything of a tar but the contents of its files (vbatts/tar-split, tar/storage)."""

import binascii
from collections.abc import Callable
from typing import Final

from ...digest import Digest
from ..base import TarSplit
from ..pack import FrameStream
from ..toc_writer import json_string

_FEED_BYTES: Final = 1 << 18


class TarSplitLines:
    """One JSON object per line, handed to `feed` as they come; `flush` at the end."""

    def __init__(self, feed: Callable[[bytes], object]) -> None:
        self._feed = feed
        self._lines: list[bytes] = []
        self._held = 0
        self._position = 0

    def raw(self, data: bytes) -> None:
        """Headers or padding."""
        if data:
            payload = binascii.b2a_base64(data, newline=False)
            self._line(b'{"type":2,"payload":"%s","position":%d}\n' % (payload, self._position))

    def file(self, name: bytes, size: int, crc: int) -> None:
        """An entry, whatever its type, with its content."""
        try:
            name.decode()
            field = b'"name":' + json_string(name)
        except UnicodeDecodeError:
            field = b'"name_raw":"%s"' % binascii.b2a_base64(name, newline=False)
        if size:
            checksum = binascii.b2a_base64(crc.to_bytes(8, "big"), newline=False)
            self._line(
                b'{"type":1,%s,"size":%d,"payload":"%s","position":%d}\n' % (field, size, checksum, self._position)
            )
        else:
            self._line(b'{"type":1,%s,"payload":null,"position":%d}\n' % (field, self._position))

    def _line(self, line: bytes) -> None:
        self._position += 1
        self._lines.append(line)
        self._held += len(line)
        if self._held >= _FEED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand out what is held back."""
        self._feed(b"".join(self._lines))
        self._lines.clear()
        self._held = 0


class TarSplitWriter(TarSplitLines):
    """Compressed as podman's zstd:chunked holds it."""

    def __init__(self, level: int) -> None:
        self._stream = FrameStream(level)
        super().__init__(self._stream.feed)

    def finish(self) -> tuple[TarSplit, Digest]:
        """The whole, and its digest."""
        self.flush()
        payload = self._stream.finish()
        return TarSplit(payload, self._stream.size), Digest.of(payload)
