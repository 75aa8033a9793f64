"""A lazily served layer becomes complete: one pass over its blob brings what is missing and verifies its diffID.

Until then the layer's tree is as good as its TOC digest, and the diffID is what the image's config claims.
"""

import stat
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from ..digest import Digest
from ..errors import VerificationError
from ..formats.chunker import crc64
from ..formats.tar.content import SourceEntry
from ..formats.verified import verify_chunk
from ..registry.hosts import LinkEstimate
from .activity import Activity
from .blob_pipe import BlobPipe, with_blob
from .layer import Layer
from .source import ByteSource
from .tar_pass import TarPass, crc_of

SLICE_BYTES: Final = 2 << 20
QUIET_SECONDS: Final = 2.0
MAX_CHUNK_BYTES: Final = 64 << 20
"""Larger ones are left to whoever reads them: one is in memory at a time."""
_ADOPT: Final = 64


@dataclass(frozen=True, slots=True)
class Completed:
    """A layer whose blob and tar have the right digests."""

    tar_size: int
    tar_split: Path | None
    """None where the tree cannot give the tar back."""


class QuietSource:
    """A blob in slices that give way to readers."""

    def __init__(self, source: ByteSource, activity: Activity) -> None:
        self._source = source
        self._activity = activity

    @property
    def link(self) -> LinkEstimate:
        """Of the blob."""
        return self._source.link

    async def stream(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """See ByteSource."""
        while size:
            await self._activity.quiet(QUIET_SECONDS)
            part = min(size, SLICE_BYTES)
            async with aclosing(self._source.stream(offset, part)) as pieces:
                async for piece in pieces:
                    yield piece
            offset, size = offset + part, size - part


async def complete_layer(
    layer: Layer, diff_id: Digest, split_path: Path, activity: Activity, limiter: trio.CapacityLimiter
) -> Completed:
    """Bring all of the layer, and write its tar-split to `split_path`.

    Raises VerificationError where blob or tar are not what manifest and config say, FormatError, RegistryError and
    OSError; then no tar-split is left.
    """
    source = QuietSource(layer.source, activity)

    def work(pipe: BlobPipe) -> Completed:
        completion = _Completion(layer, diff_id, trio.from_thread.run_sync)
        try:
            completion.complete(pipe, split_path)
        except BaseException:
            split_path.unlink(missing_ok=True)
            raise
        return Completed(completion.tar_size, split_path if split_path.exists() else None)

    return await with_blob(source, layer.descriptor.size, work, limiter, lambda _: None)


class _Completion(TarPass):
    """Puts the contents of files where the layer's TOC wants them; what it does not want is passed by."""

    def __init__(self, layer: Layer, diff_id: Digest, on_loop: Callable[..., object]) -> None:
        super().__init__(layer.descriptor, diff_id)
        self._layer = layer
        self._on_loop = on_loop
        self._done: list[int] = []

    def complete(self, pipe: BlobPipe, split_path: Path) -> None:
        """The whole blob."""
        self.run(pipe, split_path)
        self._adopt(0)

    def entry(self, one: SourceEntry) -> int | None:
        """See TarPass."""
        index, size = self._layer.index, one.entry.size
        inode = self._find(one.entry.path)
        if one.entry.sparse is not None or inode is None or not size or index.attributes(inode).size != size:
            crc = crc_of(one)
            return crc if one.entry.sparse is None else None
        crc, (first, end) = 0, index.chunk_range(inode, 0, size)
        for number in range(first, end):
            chunk = index.chunk(number)
            wanted = not (chunk.is_hole or chunk.size > MAX_CHUNK_BYTES or self._layer.content.is_present(number))
            parts = []
            for view in one.stream.views(chunk.size):
                crc = crc64(view, crc)
                if wanted:
                    parts.append(bytes(view))
            if wanted:
                try:
                    verified = verify_chunk(b"".join(parts), chunk.digest_raw)
                except VerificationError:  # a name that comes again, with another content
                    continue
                self._layer.content.write([(chunk, verified)])
                self._done.append(number)
                self._adopt(_ADOPT)
        return crc

    def _find(self, path: bytes) -> int | None:
        inode = 0
        for name in path.split(b"/"):
            try:
                found = self._layer.index.lookup(inode, name)
            except ValueError:  # below a file
                return None
            if found is None:
                return None
            inode = found
        return inode if stat.S_ISREG(self._layer.index.mode(inode)) else None

    def _adopt(self, at_least: int) -> None:
        """Bits are the event loop's."""
        if self._done and len(self._done) >= at_least:
            numbers, self._done = self._done, []
            self._on_loop(self._layer.chunks.adopt, numbers)
