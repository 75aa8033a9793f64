"""Ranges of a layer's uncompressed tar, for chunks of a plain layer that were lost."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio

from ..errors import UnavailableError
from ..formats.base import Compression
from ..formats.unpacking import Unpacking, detect_compression
from ..registry.hosts import LinkEstimate
from .source import ByteSource

_log = logging.getLogger(__name__)


class TarOfBlob:
    """What ChunkFetcher takes for a source; every range costs the blob from its start up to the range's end."""

    def __init__(self, name: str, source: ByteSource, blob_size: int, workers: trio.CapacityLimiter) -> None:
        self._name = name
        self._source = source
        self._blob_size = blob_size
        self._workers = workers

    @property
    def link(self) -> LinkEstimate:
        """Of the blob."""
        return self._source.link

    async def stream(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """Exactly `size` bytes of the tar from `offset`, as they arrive. Raises RegistryError and FormatError."""
        _log.info("layer %s: streamed again, for bytes %d to %d of its tar", self._name, offset, offset + size)
        at, end, unpacking, first = 0, offset + size, None, b""
        async with aclosing(self._source.stream(0, self._blob_size)) as parts:
            async for part in parts:
                if unpacking is None:
                    first += part
                    if len(first) < 8 and len(first) < self._blob_size:
                        continue
                    part, compression = first, detect_compression(first)
                    unpacking = _Stored() if compression is Compression.NONE else Unpacking(compression)
                blocks = iter(unpacking.feed(part))
                while block := await trio.to_thread.run_sync(next, blocks, b"", limiter=self._workers):
                    start, at = at, at + len(block)
                    wanted = block[max(0, offset - start) : max(0, end - start)]
                    if wanted:
                        yield wanted
                if at >= end:
                    return
        raise UnavailableError(f"layer {self._name}: its tar ended at byte {at}, before byte {end}")


class _Stored:
    """Unpacking of what is not compressed."""

    def feed(self, data: bytes) -> list[bytes]:
        return [data]
