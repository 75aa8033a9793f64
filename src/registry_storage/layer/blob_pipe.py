"""A blob on its way from the event loop to a thread that reads it like a file."""

import hashlib
from collections.abc import Callable
from contextlib import aclosing
from typing import TypeVar

import trio

from ..digest import Digest
from ..errors import RegistryError
from .source import ByteSource

T = TypeVar("T")

PIECE_BYTES = 256 << 10
PIECES = 8
"""That may wait for the thread: what is in flight is bounded, whatever the blob's size."""


class BlobPipe:
    """The thread's end; what passes is hashed."""

    def __init__(self, receive: trio.MemoryReceiveChannel[bytes], progress: Callable[[int], None]) -> None:
        self._receive = receive
        self._progress = progress
        self._summer = hashlib.sha256()
        self.taken = 0
        """Bytes so far."""

    def read(self, size: int, /) -> bytes:
        """The next piece, however much was wanted; none at the end."""
        try:
            data = trio.from_thread.run(self._receive.receive)
        except trio.EndOfChannel:
            return b""
        self._summer.update(data)
        self.taken += len(data)
        self._progress(self.taken)
        return data

    @property
    def digest(self) -> Digest:
        """Of what was read."""
        return Digest(self._summer.hexdigest())


async def with_blob(
    source: ByteSource,
    size: int,
    work: Callable[[BlobPipe], T],
    limiter: trio.CapacityLimiter,
    progress: Callable[[int], None],
) -> T:
    """`work` in a thread of `limiter`, with the blob of `size` bytes as it arrives.

    Raises what `work` raises; RegistryError where the blob does not arrive. `progress` is called in the thread.
    """
    send, receive = trio.open_memory_channel[bytes](PIECES)
    failure: RegistryError | None = None

    async def feed() -> None:
        nonlocal failure
        async with send:
            try:
                async with aclosing(source.stream(0, size)) as parts:
                    pending = bytearray()
                    async for part in parts:
                        pending += part
                        if len(pending) >= PIECE_BYTES:
                            await send.send(bytes(pending))
                            pending.clear()
                    if pending:
                        await send.send(bytes(pending))
            except RegistryError as error:
                failure = error
            except trio.BrokenResourceError:
                pass  # the thread has given up, and says why

    result: T
    wrong: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        async with receive:
            try:
                result = await trio.to_thread.run_sync(work, BlobPipe(receive, progress), limiter=limiter)
            except Exception as error:
                wrong = error
                nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if wrong is not None:
        raise wrong
    return result
