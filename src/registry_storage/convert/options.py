"""What a layer is to become."""

import enum
from dataclasses import dataclass
from typing import Final

from ..errors import InvalidInputError
from .accesses import FileAccess

DEFAULT_CHUNK_SIZE: Final = 4 << 20
MIN_CHUNK_SIZE: Final = 1 << 10
MAX_CHUNK_SIZE: Final = 256 << 20
"""A limit of ours: chunks are compressed whole, several at a time."""


class LayerKind(enum.Enum):
    """The formats that can be written."""

    ESTARGZ = "estargz"
    ZSTD_CHUNKED_PODMAN = "podman"
    """zstd:chunked with podman's annotations, tar-split, content-defined chunks and holes."""
    ZSTD_CHUNKED_STARGZ = "stargz"
    """zstd:chunked with stargz-snapshotter's annotations, chunks of fixed size."""
    UNCOMPRESSED = "uncompressed"
    """The source's tar, byte for byte."""

    @property
    def levels(self) -> range:
        """The compression levels it knows; empty: none."""
        return _LEVELS[self]

    @property
    def default_level(self) -> int | None:
        """The level for `WriteOptions.level` None."""
        return _DEFAULT_LEVELS.get(self)


_LEVELS: Final = {
    LayerKind.ESTARGZ: range(1, 13),
    LayerKind.ZSTD_CHUNKED_PODMAN: range(1, 20),
    LayerKind.ZSTD_CHUNKED_STARGZ: range(1, 20),
    LayerKind.UNCOMPRESSED: range(0),
}
_DEFAULT_LEVELS: Final = {
    LayerKind.ESTARGZ: 6,
    LayerKind.ZSTD_CHUNKED_PODMAN: 3,
    LayerKind.ZSTD_CHUNKED_STARGZ: 3,
}


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options of one layer; raises InvalidInputError for those that contradict each other."""

    kind: LayerKind
    level: int | None = None
    """Of the compression, in `LayerKind.levels`; None: the default."""
    chunk_size: int = DEFAULT_CHUNK_SIZE
    """Most bytes of a chunk, where chunks have a fixed size; the podman kind finds its chunks in the content."""
    min_chunk_size: int = 0
    """eStargz: payloads share a member until it has so many uncompressed bytes; 0: a member for each."""
    external_toc: bool = False
    """eStargz: the TOC goes to a layer of its own (`WrittenLayer.external_toc`)."""
    keep_diff_id: bool = False
    """The uncompressed tar stays the source's byte for byte: no landmark, no order of ours; eStargz must then
    have an external TOC. Sparse entries cannot be described so and are refused."""
    prioritized: tuple[str, ...] = ()
    """Paths of files that come first, in this order; as `os.fsdecode` gives them, `./` and `/` in front do not
    count. Parents and targets of hard links come along by themselves."""
    accesses: tuple[FileAccess, ...] = ()
    """What of these files is read, in the order of reading, where it is known; then files that are read in parts come
    behind the others, or stay where they are, and the annotation of `formats/prefetch_ranges.py` tells the parts."""
    allow_missing: bool = False
    """Leave out prioritized paths that the layer does not have (`WrittenLayer.missing` names them)."""

    def __post_init__(self) -> None:
        kind = self.kind
        if self.level is not None and self.level not in kind.levels:
            raise InvalidInputError(
                f"level of {kind.value}: wanted {_range(kind.levels)}, got {self.level}"
            )
        if not MIN_CHUNK_SIZE <= self.chunk_size <= MAX_CHUNK_SIZE:
            raise InvalidInputError(f"chunk size: wanted {MIN_CHUNK_SIZE} to {MAX_CHUNK_SIZE}, got {self.chunk_size}")
        if not 0 <= self.min_chunk_size <= MAX_CHUNK_SIZE:
            raise InvalidInputError(f"minimum chunk size: wanted 0 to {MAX_CHUNK_SIZE}, got {self.min_chunk_size}")
        if kind is not LayerKind.ESTARGZ and (self.min_chunk_size or self.external_toc):
            raise InvalidInputError(f"minimum chunk size and external TOC: wanted with estargz, got {kind.value}")
        has_landmark = kind is LayerKind.ZSTD_CHUNKED_STARGZ or (kind is LayerKind.ESTARGZ and not self.external_toc)
        if self.keep_diff_id and has_landmark:
            raise InvalidInputError("keeping the diffID: wanted estargz with an external TOC, or podman's kind")
        if self.prioritized and (self.keep_diff_id or kind is LayerKind.UNCOMPRESSED):
            raise InvalidInputError("prioritized files: they change the order, so the diffID cannot be kept")

    @property
    def effective_level(self) -> int:
        """The level to compress with; 0 where nothing is compressed."""
        return self.level if self.level is not None else self.kind.default_level or 0


def _range(levels: range) -> str:
    return f"{levels.start} to {levels.stop - 1}" if levels else "none"
