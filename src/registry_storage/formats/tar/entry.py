"""One entry of a tar, with the bytes of its headers."""

from dataclasses import dataclass, field

from ...errors import FormatError


@dataclass(slots=True)
class TarEntry:
    """As the headers say; made by `tar_parser` and not changed afterwards."""

    name: bytes
    """As in the tar."""
    path: bytes
    """Cleaned: no ``./``, no slash at either end; empty for the root."""
    type: str
    """As in a TOC: ``reg``, ``dir``, ``symlink``, ``hardlink``, ``char``, ``block``, ``fifo``."""
    raw: bytes
    """All its header blocks, extended ones first."""
    size: int = 0
    """Bytes of content, holes of a sparse file included."""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    user: bytes = b""
    group: bytes = b""
    mtime_ns: int = 0
    link: bytes = b""
    """Target of a symbolic link; name of the entry that a hard link means; other types may carry what means nothing."""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    atime_ns: int | None = None
    ctime_ns: int | None = None
    stored_size: int = 0
    """Bytes behind the headers, without padding."""
    sparse: tuple[tuple[int, int], ...] | None = None
    """(offset in the file, bytes) of what is stored of a sparse file."""


def clean_path(name: bytes) -> bytes:
    """`name` without ``.`` components and needless slashes. Raises FormatError for ``..``."""
    if name[:1] not in (b"/", b".") and b"//" not in name and b"/." not in name:
        return name[:-1] if name.endswith(b"/") else name
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise FormatError(f"tar: wanted a path without '..', got {name.decode(errors='backslashreplace')!r:.300}")
    return b"/".join(parts)
