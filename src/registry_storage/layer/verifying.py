"""Hashes again what a layer has on disk, without fetching anything."""

from collections.abc import AsyncGenerator, Iterator
from typing import NamedTuple

import trio

from ..errors import VerificationError
from ..formats.verified import verify_chunk
from ..toc.chunk import Chunk
from .layer import Layer

BATCH_BYTES = 16 << 20


class Verified(NamedTuple):
    """How far it is."""

    chunks: int
    size: int
    """Bytes."""
    damaged: int
    """Chunks that are dropped now; they are fetched again when they are read."""


async def verify(layer: Layer) -> AsyncGenerator[Verified, None]:
    """Batch after batch, with the sums so far; the last one is the result. Never raises for what is damaged."""
    content, total = layer.content, Verified(0, 0, 0)
    for batch in _batches(layer):
        damaged = await trio.to_thread.run_sync(_damaged, layer, batch)
        # What was evicted or is being fetched at this moment is not damaged.
        damaged = [n for n in damaged if content.is_present(n) and not layer.chunks.is_on_its_way(n)]
        if damaged:
            layer.evict(damaged)
        total = Verified(
            total.chunks + len(batch), total.size + sum(chunk.size for chunk in batch), total.damaged + len(damaged)
        )
        yield total


def _batches(layer: Layer) -> Iterator[list[Chunk]]:
    batch: list[Chunk] = []
    for number in range(layer.index.chunk_count):
        if not layer.content.is_present(number) or layer.chunks.is_on_its_way(number):
            continue
        chunk = layer.index.chunk(number)
        if not chunk.is_hole:
            batch.append(chunk)
        if sum(one.size for one in batch) >= BATCH_BYTES or len(batch) >= 1024:
            yield batch
            batch = []
    yield batch


def _damaged(layer: Layer, chunks: list[Chunk]) -> list[int]:
    found = []
    for chunk in chunks:
        try:
            verify_chunk(layer.content.read_chunk(chunk), chunk.digest_raw)
        except (VerificationError, OSError):
            found.append(chunk.number)
    return found
