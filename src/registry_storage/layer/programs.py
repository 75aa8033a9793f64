"""Brings what the dynamic loader will read of a program and of its libraries, before it asks for it.

Whoever begins a program waits for its head, then for its tables, then for the head of each library in turn: dozens of
round trips, one after the other, for what the heads tell beforehand. So two things are followed, each file once: the
program that an image's config names, when the image's layers are opened, and every file in which a reader misses
something. When it is a program or a library, exactly what will be read is fetched, its libraries side by side, and the
rest of it when the link has nothing else to do. All of it is a hint: what is not found, too much or broken is left to
the reader. Images that say themselves what is needed are left alone.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import partial

import trio

from ..digest import Digest
from ..errors import RegistryStorageError
from .ahead import reach_bytes
from .elf import HEAD_BYTES, MAGIC, MAX_NAME_BYTES, MAX_PATHS_BYTES, Dynamic, Program, Span
from .layer import Layer
from .needed import says_what_is_needed
from .spare import SpareTime
from .start import Start
from .union import Place, find

_log = logging.getLogger(__name__)

DIRECTORIES = tuple(
    f"{start}{end}".encode()
    for start in ("/usr/local/lib", "/usr/lib", "/lib")
    for end in ("/x86_64-linux-gnu", "/aarch64-linux-gnu", "/riscv64-linux-gnu", "64", "")
)
"""Where the loader looks for libraries, usually: what ld.so.cache says is not read."""
END_BYTES = 64 << 10
"""Of a program's beginning and of its end, which come first: headers and most tables, data and the dynamic section."""
MAX_FILES = 64
"""For one program: its libraries and theirs."""
MAX_NAMES = 512
"""The same, of names that are looked for in each directory of each layer."""
MAX_BYTES = 16 << 20
"""The same, of decoded tables and data."""
NAMED_BYTES = 4 << 20
"""Compressed: a program that the config names, or a library of it, which is no larger is brought whole. Of others parts
are read."""
BEGUN_BYTES = 1 << 20
"""The same of a file that a reader has begun: then the link has more to do."""
WHOLE_REACHES = 8
"""A file that costs no more than so many times what one request carries for nothing comes whole, with one request: its
parts would be several."""
MAX_IMAGES = 64
"""Whose layers are known; the oldest are forgotten, and their programs find libraries in their own layer only."""
_EXECUTABLE = 0o111


class _Image:
    """The open layers of one image."""

    def __init__(self) -> None:
        self.layers: dict[int, Layer] = {}
        self.followed: set[Place] = set()

    @property
    def from_above(self) -> list[Layer]:
        """The upper ones first."""
        return [self.layers[position] for position in sorted(self.layers, reverse=True)]


class Programs:
    """Of all images. Used from the event loop's thread only."""

    def __init__(self, nursery: trio.Nursery, spare: SpareTime) -> None:
        self._nursery = nursery
        self._spare = spare
        self._images: OrderedDict[Digest, _Image] = OrderedDict()
        self._image_of: dict[Layer, _Image] = {}

    def know(self, layer: Layer, manifest: Digest, position: int) -> None:
        """The layer is at this position of an image, 0 being the base: libraries may be in layers beside it."""
        image = self._images.setdefault(manifest, _Image())
        self._images.move_to_end(manifest)
        image.layers[position] = layer
        while len(self._images) > MAX_IMAGES:
            _, gone = self._images.popitem(last=False)
            self._image_of = {known: image for known, image in self._image_of.items() if image is not gone}
        self._image_of[layer] = image
        layer.chunks.begun = partial(self._begun, layer)

    def start(self, manifest: Digest, start: Start) -> None:
        """A container of the image will probably be started: bring the programs that its config names."""
        image = self._images.get(manifest)
        if image is None or _says_what_is_needed(image):
            return
        for path in start.candidates():
            place = find(image.from_above, path)
            if place is not None and place.layer.index.mode(place.inode) & _EXECUTABLE:
                _log.debug("%s is brought: the image's config names it", path.decode("utf-8", "backslashreplace"))
                self._nursery.start_soon(partial(self._bring, image, place, expected=True, whole_bytes=NAMED_BYTES))

    def _begun(self, layer: Layer, inode: int) -> None:
        """A reader misses something in a file: told when its first chunk is missed, or ready."""
        image = self._image_of.get(layer)
        if image is not None and not _says_what_is_needed(image):
            expected = bool(layer.index.mode(inode) & _EXECUTABLE)
            bring = partial(self._bring, image, Place(layer, inode), expected=expected, whole_bytes=BEGUN_BYTES)
            self._nursery.start_soon(bring)

    async def _bring(self, image: _Image, place: Place, *, expected: bool, whole_bytes: int) -> None:
        try:
            async with trio.open_nursery() as nursery:
                await _Search(image, self._spare, nursery, whole_bytes).follow(place, expected=expected)
        except* (RegistryStorageError, OSError) as group:
            _log.debug("programs are not fetched ahead: %s", group.exceptions[0])


def _says_what_is_needed(image: _Image) -> bool:
    return any(says_what_is_needed(layer.index, layer.descriptor) for layer in image.layers.values())


class _Search:
    """For one program."""

    def __init__(self, image: _Image, spare: SpareTime, nursery: trio.Nursery, whole_bytes: int) -> None:
        self._image = image
        self._whole_bytes = whole_bytes
        self._spare = spare
        self._nursery = nursery
        self._left_files = MAX_FILES
        self._left_names = MAX_NAMES
        self._left_bytes = MAX_BYTES

    async def follow(self, place: Place, *, expected: bool) -> None:
        """Bring what is read of a file, then of what it needs. `expected`: it is a program or a library, surely."""
        if place in self._image.followed or not self._left_files:
            return
        size = place.size
        if place.compressed_bytes <= WHOLE_REACHES * reach_bytes(place.layer.source.link):
            ends = [Span(0, size)]
        else:
            ends = [Span(0, min(size, END_BYTES)), Span(max(0, size - END_BYTES), min(size, END_BYTES))]
        if expected:
            await self._fetch(place, ends)
        head = await self._read(place, Span(0, min(size, HEAD_BYTES)))
        if head.startswith(b"#!"):
            self._follow_first([head[2:].split(b"\n")[0].strip().split(b" ")[0]])
        if not head.startswith(MAGIC) or place in self._image.followed:
            return
        self._image.followed.add(place)
        self._left_files -= 1
        program = Program(head, size)
        await self._fetch(place, ends)
        self._nursery.start_soon(self._fetch, place, [span for span in program.always_read() if self._afford(span)])
        if program.dynamic is not None:
            await self._follow_needed(place, program, Dynamic(await self._read(place, program.dynamic)))
        self._spare.bring(place, self._whole_bytes)

    async def _follow_needed(self, place: Place, program: Program, dynamic: Dynamic) -> None:
        names = await self._strings(place, program, dynamic.needed, MAX_NAME_BYTES)
        directories = await self._directories(place, program, dynamic)
        if program.interpreter is not None:
            self._follow_first([_text(await self._read(place, program.interpreter))])
        for name in names:
            self._left_names -= 1
            if name and b"/" not in name and self._left_names >= 0:
                await trio.lowlevel.checkpoint()  # many layers and directories take a while, which others need not wait
                self._follow_first(b"%b/%b" % (directory, name) for directory in directories)

    def _follow_first(self, paths: Iterable[bytes]) -> None:
        for path in paths:
            found = find(self._image.from_above, path) if path.startswith(b"/") else None
            if found is not None:
                self._nursery.start_soon(partial(self.follow, found, expected=True))
                return

    async def _directories(self, place: Place, program: Program, dynamic: Dynamic) -> list[bytes]:
        found = b":".join(await self._strings(place, program, dynamic.paths, MAX_PATHS_BYTES)).split(b":")
        if any(b"$" in path for path in found):
            origin = place.path.rpartition(b"/")[0]
            found = [path.replace(b"$ORIGIN", origin).replace(b"${ORIGIN}", origin) for path in found]
        return [*(path for path in found if path.startswith(b"/")), *DIRECTORIES]

    async def _strings(self, place: Place, program: Program, addresses: Iterable[int], most: int) -> list[bytes]:
        spans = [span for address in addresses if (span := program.at_address(address, most)) is not None]
        return [_text(await self._read(place, span)) for span in spans]

    def _afford(self, span: Span) -> bool:
        self._left_bytes -= span.size
        return self._left_bytes >= 0

    @staticmethod
    async def _fetch(place: Place, spans: Sequence[Span]) -> None:
        index = place.layer.index
        numbers = {n for span in spans for n in range(*index.chunk_range(place.inode, span.offset, span.size))}
        await place.layer.chunks.bring_at_once(sorted(numbers))

    async def _read(self, place: Place, span: Span) -> bytes:
        await self._fetch(place, [span])
        return await place.layer.read(place.inode, *span)


def _text(data: bytes) -> bytes:
    return data.partition(b"\0")[0]
