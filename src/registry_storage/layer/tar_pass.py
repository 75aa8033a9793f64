"""One pass over a layer's whole blob: its digest, its diffID, and its tar-split on the way."""

import gzip
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import DiffIdError, VerificationError
from ..formats.chunker import crc64
from ..formats.tar.content import SourceEntry
from ..formats.tar.parser import KeepingParser
from ..formats.tar.split import TarSplitLines
from ..formats.tar.stream import BlockStream
from ..formats.toc_writer import check_describable
from ..formats.unpacking import unpacked_blocks
from ..toc.special_names import HIDDEN_AT_ROOT
from .blob_pipe import BlobPipe

TAR_SPLIT: Final = "tar-split.gz"
_GZIP_LEVEL: Final = 4


class TarPass(ABC):
    """For one layer, in one thread; what is done with the entries is the subclass's."""

    def __init__(self, descriptor: Descriptor, diff_id: Digest) -> None:
        self.tar_size = 0
        self._descriptor = descriptor
        self._diff_id = diff_id
        self._summer = hashlib.sha256()

    @abstractmethod
    def entry(self, one: SourceEntry) -> int | None:
        """Take an entry's content, not its padding: its CRC-64, or None where the tree does not hold it as it is."""

    def run(self, pipe: BlobPipe, split_path: Path) -> None:
        """Write the tar-split to `split_path`, unless the tree cannot give the tar back.

        Raises FormatError, VerificationError (messages of the latter name the layer) and OSError.
        """
        with gzip.GzipFile(split_path, "wb", compresslevel=_GZIP_LEVEL, mtime=0) as packed:
            exact = self._read(pipe, TarSplitLines(packed.write))
        what = f"layer {self._descriptor.digest}"
        if pipe.digest != self._descriptor.digest:
            raise VerificationError(f"{what}: the blob", wanted=str(self._descriptor.digest), got=str(pipe.digest))
        diff_id = Digest(self._summer.hexdigest())
        if diff_id != self._diff_id:
            raise DiffIdError(f"{what}: the diffID of its tar", wanted=str(self._diff_id), got=str(diff_id))
        if not exact:
            split_path.unlink()

    def _blocks(self, pipe: BlobPipe) -> Iterator[bytes]:
        for block in unpacked_blocks(pipe, lambda _: None):
            self._summer.update(block)
            self.tar_size += len(block)
            yield block

    def _read(self, pipe: BlobPipe, split: TarSplitLines) -> bool:
        stream = BlockStream(self._blocks(pipe))
        parser = KeepingParser(stream)
        exact = True
        while (entry := parser.next()) is not None:
            check_describable(entry)
            split.raw(entry.raw)
            one = SourceEntry(entry, stream)
            if entry.sparse is None and entry.path.split(b"/", 1)[0] in HIDDEN_AT_ROOT:
                # Nobody can read it from the tree.
                for view in stream.views(entry.stored_size):
                    split.raw(bytes(view))
            else:
                crc = self.entry(one)
                exact = exact and crc is not None
                split.file(entry.name, entry.size, crc or 0)
            split.raw(one.padding())
        split.raw(parser.before_end)
        for data in stream.rest():
            split.raw(data)
        split.flush()
        return exact


def crc_of(one: SourceEntry) -> int:
    """Take the content and nothing but its checksum."""
    crc = 0
    for view in one.stream.views(one.entry.stored_size):
        crc = crc64(view, crc)
    return crc
