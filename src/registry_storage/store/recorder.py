"""Writes down what is read, in order: the view of a workload that optimizing an image needs.

JSON lines as other tools write them, ``{"path", "manifestDigest", "layerIndex"}``, with the part of the file as
two further fields, ``offset`` and ``size`` (bytes), and ``seconds`` (on no particular clock). A file that is read again
is written down again.
"""

import json
import time
from pathlib import Path
from typing import Any

from ..cache.ledger import Ledger
from ..errors import ConfigError, RegistryStorageError
from ..layer.layer import Layer
from ..layer.pool import Pool


class Recorder:
    """One file, written line by line, so that it is right whenever the daemon ends. Raises ConfigError."""

    def __init__(self, path: Path, pool: Pool, ledger: Ledger) -> None:
        try:
            self._file = path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise ConfigError(f"record file {path}: {error.strerror}") from None
        self._pool = pool
        self._ledger = ledger
        self._origins: dict[int, dict[str, Any] | None] = {}
        self._paths: dict[tuple[int, int], str] = {}

    async def note(self, number: int, layer: Layer, inode: int, offset: int, size: int) -> None:
        """`size` bytes at `offset` of an entry of the layer with this number were read."""
        origin = await self._origin(number)
        if origin is None or size == 0:
            return
        path = self._paths.get((number, inode))
        if path is None:
            path = self._paths[number, inode] = layer.index.path(inode).decode("utf-8", "surrogateescape")
        part = {"offset": offset, "size": size, "seconds": round(time.monotonic(), 6)}
        self._file.write(json.dumps({"path": path} | origin | part) + "\n")

    async def _origin(self, number: int) -> dict[str, Any] | None:
        """The manifest and the position in it of a layer number; None where that cannot be told."""
        if number not in self._origins:
            link = self._ledger.link_by_number(number)
            self._origins[number] = None
            if link is not None:
                try:
                    position = self._pool.position(await self._pool.image_of(link), link)
                except RegistryStorageError:
                    return None
                self._origins[number] = {"manifestDigest": str(link.manifest_digest), "layerIndex": position}
        return self._origins[number]

    def close(self) -> None:
        """Nothing may be noted afterwards."""
        self._file.close()
