"""Where the bytes of one blob can be fetched: the same blob may be in several repositories."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from .. import traces
from ..errors import NotFoundError, RegistryError, UnauthorizedError, UnavailableError
from ..registry.hosts import LinkEstimate
from ..registry.mirrors import ReadableBlob

_log = logging.getLogger(__name__)


class ByteSource(Protocol):
    """Where ranges of what a layer's index describes come from."""

    @property
    def link(self) -> LinkEstimate:
        """What a request costs."""

    def stream(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """Exactly `size` bytes from `offset`, in order, as they arrive. Raises RegistryError."""


class BlobSource:
    """One blob, by the references that lead to it; the one that worked last is asked first."""

    def __init__(self) -> None:
        self._blobs: dict[str, ReadableBlob] = {}

    def offer(self, reference: str, blob: ReadableBlob) -> None:
        """`reference` has this blob too."""
        self._blobs.setdefault(reference, blob)

    @property
    def link(self) -> LinkEstimate:
        """Round trip and bandwidth of the host that is asked first."""
        return next(iter(self._blobs.values())).link

    async def stream(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """Exactly `size` bytes from `offset`, in order, as they arrive. Raises RegistryError."""
        failure: RegistryError = UnavailableError("no repository is known for this blob")
        for reference, blob in tuple(self._blobs.items()):
            try:
                with traces.leaf("fetch range", reference=reference, offset=offset, size=size):
                    async with aclosing(blob.stream(offset, size)) as parts:
                        async for part in parts:
                            offset, size = offset + len(part), size - len(part)
                            yield part
            except (NotFoundError, UnauthorizedError, UnavailableError) as error:
                failure = error
                if len(self._blobs) > 1:
                    _log.info("%s: trying the next repository that has this blob: %s", reference, error)
                    self._blobs[reference] = self._blobs.pop(reference)
                continue
            return
        raise failure
