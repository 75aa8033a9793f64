"""A layer of everything that a file system can hold and a packaged program seldom does."""

import os
import random
import stat
from pathlib import Path

MULTI_CHUNK_SIZE = 9_000_001
"""More than two chunks of 4 MiB, and not a multiple of anything."""


def fill(root: Path) -> None:
    """Writes the oddities below `root`: an overlay over a Debian base, so that removals leave whiteouts."""
    top = root / "odd"
    top.mkdir()
    _contents(top)
    _names(top)
    _links(top)
    _devices(top)
    _owners_modes_times(top)
    _attributes(top)
    _removals(root)


def _contents(top: Path) -> None:
    (top / "empty").write_bytes(b"")
    (top / "one-byte").write_bytes(b"x")
    # Not compressible, always the same: several chunks, with a chunk border inside.
    (top / "random").write_bytes(random.Random(1).randbytes(MULTI_CHUNK_SIZE))
    (top / "repeated").write_bytes(b"0123456789abcdef" * 600_000)
    with (top / "sparse").open("wb") as file:
        file.write(b"head")
        file.seek(5_000_000)
        file.write(b"middle")
        file.seek(9_000_000)
        file.write(b"tail")
    with (top / "hole-only").open("wb") as file:
        file.truncate(3_000_000)
    (top / "zeros-then-text").write_bytes(bytes(20_000) + b"text" + bytes(5_000))
    (top / "page").write_bytes(b"p" * 4096)
    (top / "page-and-one").write_bytes(b"q" * 4097)
    many = top / "many"
    many.mkdir()
    for number in range(700):
        (many / f"{number:04}").write_text(f"file {number}\n")


def _names(top: Path) -> None:
    names = top / "names"
    names.mkdir()
    for name in (
        "with space",
        "new\nline",
        "tab\t",
        'quote"back\\slash',
        "ümlaut-ß-漢字-🐍",
        "-dash",
        "~",
        "*?[x]",
        "n" * 255,
        "percent%41",
        "\x01\x7f",
    ):
        (names / name).write_text(name)
    deep = names
    for _ in range(12):
        deep /= "d" * 60
        deep.mkdir()
    (deep / "far-down").write_text("far down")
    (deep / "far-down-link").symlink_to("/odd/" + "t" * 300)


def _links(top: Path) -> None:
    links = top / "links"
    links.mkdir()
    (links / "target").write_text("linked three times")
    os.link(links / "target", links / "second")
    (links / "below").mkdir()
    os.link(links / "target", links / "below" / "third")
    (links / "relative").symlink_to("target")
    (links / "absolute").symlink_to("/odd/links/target")
    (links / "dangling").symlink_to("no/such/file")
    (links / "to-itself").symlink_to("to-itself")
    (links / "long").symlink_to("x/" * 1000 + "end")
    os.link(links / "relative", links / "relative-again", follow_symlinks=False)


def _devices(top: Path) -> None:
    devices = top / "devices"
    devices.mkdir()
    os.mknod(devices / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(devices / "high", stat.S_IFCHR | 0o600, os.makedev(4000, 70_000))
    os.mknod(devices / "block", stat.S_IFBLK | 0o660, os.makedev(8, 17))
    os.mkfifo(devices / "pipe", 0o640)


def _owners_modes_times(top: Path) -> None:
    places = top / "modes"
    places.mkdir()
    for mode in (0o000, 0o444, 0o755, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777):
        path = places / f"{mode:04o}"
        path.write_text("mode")
        os.chown(path, 1000 + mode % 7, 100)
        path.chmod(mode)
    for name, mode in (("sticky", 0o1777), ("setgid", 0o2775), ("closed", 0o000)):
        (places / name).mkdir()
        (places / name).chmod(mode)
    large = places / "large-ids"
    large.write_text("ids")
    os.chown(large, 3_000_000_000, 2_500_000)
    dangling = places / "owned-link"
    dangling.symlink_to("nowhere")
    os.chown(dangling, 33, 34, follow_symlinks=False)
    for name, seconds in (("epoch", 0), ("year-1999", 915_148_800), ("year-2100", 4_102_444_800)):
        path = places / name
        path.write_text(name)
        os.utime(path, (seconds, seconds))
    fraction = places / "fraction"
    fraction.write_text("fraction")
    os.utime(fraction, ns=(1_500_000_000_123_456_789, 1_500_000_000_123_456_789))


def _attributes(top: Path) -> None:
    capable = top / "capable"
    capable.write_text("#!/bin/sh\n")
    capable.chmod(0o755)
    # cap_net_bind_service, permitted and effective (VFS_CAP_REVISION_2)
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(capable, "security.capability", capability)
    marked = top / "marked"
    marked.write_text("marked")
    os.setxattr(marked, "user.note", b"text")
    os.setxattr(marked, "user.binary", bytes(range(256)))
    os.setxattr(marked, "user.empty", b"")
    directory = top / "marked-directory"
    directory.mkdir()
    os.setxattr(directory, "user.note", b"on a directory")


def _removals(root: Path) -> None:
    (root / "etc/issue").unlink()
    (root / "usr/bin/tac").unlink()
    _remove(root / "usr/share/bug")
    # Emptied and made again: opaque, nothing of the base shows through.
    skeleton = root / "etc/skel"
    _remove(skeleton)
    skeleton.mkdir(mode=0o755)
    (skeleton / "only-this").write_text("only this\n")


def _remove(path: Path) -> None:
    for directory, directories, files in os.walk(path, topdown=False):
        for name in files:
            (Path(directory) / name).unlink()
        for name in directories:
            inner = Path(directory) / name
            inner.unlink() if inner.is_symlink() else inner.rmdir()
    path.rmdir()
