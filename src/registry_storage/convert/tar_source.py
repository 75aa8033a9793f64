"""The entries of a source layer, in the source's order or in one of ours."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Final

from ..errors import InvalidInputError
from ..formats.tar.content import SourceEntry
from ..formats.tar.entry import clean_path
from ..formats.tar.parser import KeepingParser, TarParser
from ..formats.tar.stream import BlockStream, FileStream
from ..formats.unpacking import unpacked_blocks
from ..toc.special_names import HIDDEN_AT_ROOT
from .accesses import FileAccess, first_files, read_parts, through_links
from .ordering import Place, prioritize


class Landmark:
    """Stands in the entries where the prioritized ones end."""


LANDMARK: Final = Landmark()


class TarSource:
    """A source layer. `entries` first, then `end`."""

    def __init__(self, source: BinaryIO, progress: Callable[[int], None]) -> None:
        self._blocks = unpacked_blocks(source, progress)
        self._parser: TarParser | None = None
        self.missing: tuple[str, ...] = ()
        self.accesses: tuple[FileAccess, ...] = ()
        """Those that were given, with the paths that hard links mean."""
        self.parts: Mapping[str, float] = {}
        """Which part of a large file is read, where that is known."""

    def entries(self, *, keep_hidden: bool = False) -> Iterator[SourceEntry]:
        """In the source's order. Landmarks and TOC are left out unless `keep_hidden`."""
        stream = BlockStream(self._blocks)
        self._parser = parser = KeepingParser(stream) if keep_hidden else TarParser(stream)
        while (entry := parser.next()) is not None:
            one = SourceEntry(entry, stream)
            if entry.path in HIDDEN_AT_ROOT and not keep_hidden:
                one.skip()
            else:
                yield one

    def end(self) -> tuple[bool, Iterator[bytes]]:
        """Whether the source has end-of-archive blocks; and everything behind the last entry, these included."""
        parser = self._parser
        if parser is None:
            raise ValueError("entries come before the end")

        def rest() -> Iterator[bytes]:
            yield parser.before_end
            yield from parser.stream.rest()

        return parser.has_end, rest()

    def reordered(
        self, wanted: tuple[str, ...], accesses: tuple[FileAccess, ...] = (), *, allow_missing: bool
    ) -> Iterator[SourceEntry | Landmark]:
        """Prioritized entries, the landmark, the other entries; the tar goes through a temporary file.

        Raises InvalidInputError for paths that are missing, unless `allow_missing`. Sets all that is public here.
        """
        with tempfile.TemporaryFile(prefix="layer-") as spool:
            places, positions = self._spool(spool)
            sizes = {os.fsdecode(place.path): place.size for place in places if place.size}
            links = {
                os.fsdecode(place.path): os.fsdecode(place.link) for place in places if place.type == "hardlink"
            }
            self.accesses = through_links(accesses, links)
            self.parts = read_parts(self.accesses, sizes)
            order = prioritize(places, first_files(wanted, self.parts))
            self.missing = order.missing
            if order.missing and not allow_missing:
                raise InvalidInputError(
                    f"prioritized files: {len(order.missing)} are not in the layer, first {order.missing[0]!r:.300}"
                )
            stream = FileStream(spool)
            parser = TarParser(stream)

            def at(number: int) -> SourceEntry:
                stream.seek(positions[number])
                entry = parser.next()
                if entry is None:
                    raise OSError(f"the temporary file has changed at byte {positions[number]}")
                return SourceEntry(entry, stream)

            for number in order.first:
                yield at(number)
            yield LANDMARK
            for number in order.rest:
                yield at(number)

    def _spool(self, spool: BinaryIO) -> tuple[list[Place], list[int]]:
        stream = BlockStream(self._blocks, tee=spool)
        parser = TarParser(stream)
        places: list[Place] = []
        positions: list[int] = []
        while True:
            position = stream.position
            entry = parser.next()
            if entry is None:
                break
            if entry.path not in HIDDEN_AT_ROOT:
                link = clean_path(entry.link) if entry.type == "hardlink" else b""
                places.append(Place(entry.path, entry.type, link, entry.size))
                positions.append(position)
            SourceEntry(entry, stream).skip()
        for _ in stream.rest():
            pass
        spool.flush()
        spool.seek(0)
        return places, positions
