"""One layer, ready to be read: who knows its tree, where its bytes are, and how they get here."""

import trio

from ..cache.content import Content
from ..cache.root import LayerKey
from ..descriptor import Descriptor
from ..errors import CacheError
from ..formats.base import LayerFormat
from ..toc.index import TocIndex
from .chunks import ChunkFetcher
from .source import BlobSource

MAX_TRIES = 4


class Layer:
    """Shared by all links to the same tree, and by everyone who reads."""

    def __init__(
        self,
        key: LayerKey,
        descriptor: Descriptor,
        layer_format: LayerFormat,
        index: TocIndex,
        content: Content,
        source: BlobSource,
        chunks: ChunkFetcher,
    ) -> None:
        self.key = key
        self.descriptor = descriptor
        self.format = layer_format
        self.index = index
        self.content = content
        self.source = source
        self.chunks = chunks

    async def bring(self, inode: int, file_offset: int, size: int, *, again: bool = False) -> int:
        """Have `size` bytes of a regular file from `file_offset` on ready in the content file.

        Returns how many of them the file has. `again`: what seems to be ready could not be read, so look at the
        disk. Raises RegistryError, VerificationError, FormatError or OSError.
        """
        length = min(size, self.index.attributes(inode).size - file_offset)
        if length <= 0:
            return 0
        first, end = self.index.chunk_range(inode, file_offset, length)
        if again:
            self.content.doubt(range(first, end))
        await self.chunks.ensure(first, end)
        return length

    async def read(self, inode: int, file_offset: int, size: int) -> bytes:
        """Up to `size` bytes of a regular file from `file_offset`: fewer at its end, none behind it.

        Raises as `bring`.
        """
        length = await self.bring(inode, file_offset, size)
        numbers = range(*self.index.chunk_range(inode, file_offset, length)) if length else range(0)
        for _ in range(MAX_TRIES):
            if all(map(self.content.is_ready, numbers)):  # or they were evicted before it was our turn
                return self.content.read(self.index.content_offset(inode) + file_offset, length)
            await self.bring(inode, file_offset, size)
        raise CacheError(f"layer {self.key.layer_digest}: what is fetched is evicted at once: the cache is too small")

    def missing_from(self, number: int) -> int | None:
        """The first chunk from `number` on that is not on disk; None when there is none."""
        for candidate in range(number, self.index.chunk_count):
            if not self.content.is_present(candidate) and not self.index.chunk(candidate).is_hole:
                return candidate
        return None

    async def evict_all(self) -> int:
        """Give back everything that nobody fetches at this moment; returns the bytes on disk that are free now."""
        before, held = self.content.disk_bytes, self.chunks.is_on_its_way
        numbers = [n for n in range(self.index.chunk_count) if self.content.is_present(n) and not held(n)]
        self.content.evict(self.index.chunk(number) for number in numbers)
        await trio.lowlevel.checkpoint()
        return before - self.content.disk_bytes

    def close(self) -> None:
        """Give back the mapped index and the content file."""
        self.content.close()
