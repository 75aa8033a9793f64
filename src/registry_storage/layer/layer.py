"""One layer, ready to be read: who knows its tree, where its bytes are, and how they get here."""

from collections.abc import Container, Iterable, Iterator, Sequence

from ..cache.content import Content
from ..cache.root import LayerKey
from ..descriptor import Descriptor
from ..errors import CacheError
from ..formats.base import LayerFormat
from ..toc.chunk import Chunk
from ..toc.index import TocIndex
from .chunks import ChunkFetcher
from .loose import LooseChunks
from .source import BlobSource

MAX_TRIES = 4
BLOCK_BYTES = 4096
"""What a file system gives back as a whole."""


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
        loose: LooseChunks,
    ) -> None:
        self._loose = loose
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
        for _ in range(MAX_TRIES):
            length = await self.bring(inode, file_offset, size)
            if not length:
                return b""
            if all(map(self.content.is_ready, range(*self.index.chunk_range(inode, file_offset, length)))):
                return self.content.read(self.index.content_offset(inode) + file_offset, length)
            data = self.take_loose(inode, file_offset, length)
            if data is not None:
                return data  # else it was evicted before it was our turn
        raise CacheError(f"layer {self.key.layer_digest}: what is fetched is evicted at once: the cache is too small")

    def take_loose(self, inode: int, file_offset: int, length: int) -> bytes | None:
        """The bytes when some of them are in memory only, because the disk could not take them; else None."""
        numbers = range(*self.index.chunk_range(inode, file_offset, length))
        start = self.index.content_offset(inode) + file_offset
        parts: list[bytes] = []
        found = False
        for number in numbers:
            chunk = self.index.chunk(number)
            first, end = max(start, chunk.content_offset), min(start + length, chunk.content_offset + chunk.size)
            data = self._loose.get(self.content, number)
            if data is not None:
                parts.append(data[first - chunk.content_offset : end - chunk.content_offset])
                found = True
            elif self.content.is_ready(number):
                parts.append(self.content.read(first, end - first))
            else:
                return None
        return b"".join(parts) if found else None

    def missing_from(self, number: int) -> int | None:
        """The first chunk from `number` on that is not on disk; None when there is none."""
        for candidate in range(number, self.index.chunk_count):
            if not self.content.is_present(candidate) and not self.index.chunk(candidate).is_hole:
                return candidate
        return None

    def evict(self, numbers: Iterable[int]) -> int:
        """Give back those of these chunks that nobody fetches at this moment; returns the bytes that are free then."""
        before = self.content.disk_bytes
        going = [n for n in numbers if self.content.is_present(n) and not self.chunks.is_on_its_way(n)]
        gone, spans = set(going), []
        for first, last in _runs(going):
            start, final = self.index.chunk(first).content_offset, self.index.chunk(last)
            spans.append((self._block_start(first, start, gone), self._block_end(last, final, gone)))
        self.content.evict(going, spans)
        return before - self.content.disk_bytes

    def _block_start(self, first: int, start: int, gone: Container[int]) -> int:
        """Where the block begins in which `start` is, if nothing is in it that must stay; else `start`."""
        aligned = start - start % BLOCK_BYTES
        for number in range(first - 1, -1, -1):
            chunk = self.index.chunk(number)
            if chunk.content_offset + chunk.size <= aligned:
                break
            if not self._may_go(chunk, gone):
                return start
        return aligned

    def _block_end(self, last: int, final: Chunk, gone: Container[int]) -> int:
        """Where the block ends in which the chunk `last` ends, if nothing is in it that must stay; else its own end."""
        end = final.content_offset + final.size
        aligned = end + -end % BLOCK_BYTES
        for number in range(last + 1, self.index.chunk_count):
            chunk = self.index.chunk(number)
            if chunk.content_offset >= aligned:
                break
            if not self._may_go(chunk, gone):
                return end
        return aligned

    def _may_go(self, chunk: Chunk, gone: Container[int]) -> bool:
        if chunk.is_hole or chunk.number in gone:
            return True
        return not (self.content.is_present(chunk.number) or self.chunks.is_on_its_way(chunk.number))


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of numbers that follow each other."""
    first = last = None
    for number in numbers:
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = number
    if first is not None and last is not None:
        yield first, last
