"""Looks whether the files of the root are still as we left them, and mends what is not.

Nothing that another process does to them is believed: what is in memory is written anew, what may be wrong on disk is
hashed again before it is served, what is gone is fetched again.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import trio

from ..cache.ledger import Ledger
from ..cache.root import Root, write_atomically
from ..cache.signature import Signature
from ..errors import RegistryStorageError
from ..toc.index import Buffer
from .layer import Layer
from .loose import FULL
from .pool import Pool

_log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0


class Guard:
    """Used by the event loop's thread; a round costs a few system calls per open layer."""

    def __init__(self, root: Root, ledger: Ledger, pool: Pool, others: Sequence[Callable[[], None]]) -> None:
        """`others` are called in each round too."""
        self._root = root
        self._ledger = ledger
        self._pool = pool
        self._others = others
        self._indexes: dict[str, Signature | None] = {}
        self._failures: set[str] = set()
        """What went wrong in the last round."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(CHECK_SECONDS)
            self.check()

    def check(self) -> None:
        """One round."""
        checks: list[Callable[[], None]] = [self._root.check, self._ledger.check, *self._others]
        checks += [partial(self._check_layer, layer) for layer in self._pool.open_layers()]
        failures: set[str] = set()
        for check in checks:
            try:
                check()
            except (RegistryStorageError, OSError) as error:
                if not isinstance(error, OSError) or error.errno not in FULL:  # room is made by others
                    failures.add(str(error))
        for words in failures - self._failures:
            _log.error("the root directory cannot be mended: %s", words)
        self._failures = failures

    def _check_layer(self, layer: Layer) -> None:
        for words in layer.content.check():
            _log.warning("layer %s: %s", layer.key.layer_digest, words)
            layer.chunks.damage_is_told()
        self._check_index(str(layer.key), layer.index.buffer)

    def _check_index(self, name: str, buffer: Buffer) -> None:
        path = self._root.layers / name / "index"
        there = Signature.of(path)
        if self._indexes.setdefault(name, there) == there and there is not None:
            return
        if self._indexes[name] is not None:  # else the disk was full when it was made
            _log.warning("layer %s: index was changed by somebody else: it is written anew", name.partition("-")[0])
        write_atomically(path, memoryview(buffer))
        self._indexes[name] = Signature.of(path)
