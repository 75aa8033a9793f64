"""Tars that hold what layers hold, made in memory."""

import io
import random
import tarfile
from collections.abc import Iterable, Mapping
from typing import Final

MTIME: Final = 1_700_000_000


def entry(name: str, **fields: object) -> tarfile.TarInfo:
    """A header with the given fields of `tarfile.TarInfo`."""
    info = tarfile.TarInfo(name)
    info.mtime = MTIME
    info.mode = 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def make_tar(
    entries: Iterable[tuple[tarfile.TarInfo, bytes]], *, tar_format: int = tarfile.PAX_FORMAT
) -> bytes:
    """A tar of headers and contents, in their order."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tar_format, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def files_tar(files: Mapping[str, bytes]) -> bytes:
    """A tar of regular files."""
    return make_tar((entry(name), content) for name, content in files.items())


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that do not compress, the same every time."""
    return random.Random(seed).randbytes(size)


def text(size: int, seed: int = 1) -> bytes:
    """Bytes that compress to about a third, the same every time."""
    rng = random.Random(seed)
    words = [bytes(rng.choices(b"etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(500)]
    out = bytearray()
    while len(out) < size:
        out += rng.choice(words) + b" "
    return bytes(out[:size])


def sample_entries(chunk_size: int) -> list[tuple[tarfile.TarInfo, bytes]]:
    """One of everything; the files have sizes around multiples of `chunk_size`."""
    found: list[tuple[tarfile.TarInfo, bytes]] = [
        (entry("etc/", type=tarfile.DIRTYPE, mode=0o755), b""),
        (entry("etc/empty"), b""),
        (entry("etc/hostname", uid=1000, gid=100, uname="user", gname="users"), b"sample\n"),
        (entry("etc/link", type=tarfile.SYMTYPE, linkname="../etc/hostname", mode=0o777), b""),
        (entry("bin/tool", mode=0o4755, pax_headers={"SCHILY.xattr.user.note": "text"}), text(300)),
        (entry("bin/again", type=tarfile.LNKTYPE, linkname="bin/tool", mode=0o4755), b""),
        (entry("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666), b""),
        (entry("dev/disk", type=tarfile.BLKTYPE, devmajor=8, devminor=17, mode=0o660), b""),
        (entry("dev/pipe", type=tarfile.FIFOTYPE, mode=0o600), b""),
        (entry("gone/.wh.file"), b""),
        (entry("opaque/.wh..wh..opq"), b""),
        (entry("n" * 200 + "/" + "m" * 200), b"long name"),
        (entry("names/\u00fcml\u00e4ut \u4e2d"), b"not ASCII"),
        (entry('names/quote"back\\slash\n'), b"special"),
        (entry("times/fraction", mtime=1_500_000_000.25), b"time"),
        (entry("times/before", mtime=-1.0), b"before 1970"),
        (entry("twice"), b"first"),
        (entry("zeros"), bytes(3 * chunk_size + 5000) + b"end"),
        (entry("holes"), b"a" * 2000 + bytes(5000) + b"b" * 2000 + bytes(1023) + b"c"),
    ]
    for number, size in enumerate(
        (1, chunk_size - 1, chunk_size, chunk_size + 1, 2 * chunk_size - 1, 2 * chunk_size, 2 * chunk_size + 1)
    ):
        found.append((entry(f"sizes/{size}"), noise(size, number)))
    found += [(entry(f"small/{number:03}"), text(10 + number * 7, number)) for number in range(60)]
    found.append((entry("twice"), b"second"))
    return found


def sample_tar(chunk_size: int) -> bytes:
    """`sample_entries` as a tar."""
    return make_tar(sample_entries(chunk_size))
