"""Make the small tree that the golden layers hold: one of everything that a layer can hold.

    python3 make_root.py DIRECTORY        (as root: devices, owners, security.capability)
"""

import os
import random
import stat
import struct
import sys

MTIME = 1_700_000_000


def put(path: str, data: bytes, mode: int = 0o644) -> None:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)


def big(rng: random.Random) -> bytes:
    """More than 5 MB that compress to little: two eStargz chunks of the default size."""
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(60)]
    block = b" ".join(rng.choices(words, k=2500)) + b"\n"
    out = bytearray()
    number = 0
    while len(out) < 5_600_000:
        out += b"%08d " % number + block
        number += 1
    return bytes(out)


def sparse(path: str) -> None:
    """Holes between two pieces of data."""
    with open(path, "wb") as file:
        file.seek(1 << 20)
        file.write(b"in the middle " * 300)
        file.seek((1 << 20) + 307_200, os.SEEK_CUR)
        file.write(b"the end\n")


def make(root: str) -> None:
    os.makedirs(root)
    os.chdir(root)
    rng = random.Random(2)
    put("etc/hostname", b"golden\n")
    put("etc/empty", b"")
    put("usr/bin/tool", b"#!/bin/sh\necho tool\n", 0o4755)
    os.link("usr/bin/tool", "usr/bin/tool-link")
    os.symlink("tool", "usr/bin/tool-symlink")
    os.symlink("/etc/hostname", "etc/absolute")
    put("srv/big", big(rng))
    sparse("srv/sparse")
    put("srv/random", rng.randbytes(9000))
    put("srv/\u00fcml\u00e4ut \u4e2d", b"unicode\n")
    for number in range(20):
        put(f"usr/share/small/{number:02}", b"%d\n" % number * (number + 1))
    os.mknod("dev-null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod("dev-loop", stat.S_IFBLK | 0o660, os.makedev(7, 0))
    os.mkfifo("pipe", 0o600)
    os.setxattr("etc/hostname", "user.comment", b"hello\x00\xff")
    # Version 2 capabilities, cap_net_raw permitted: survives only after the last chmod and chown.
    os.setxattr("usr/bin/tool", "security.capability", struct.pack("<5I", 0x02000001, 0x2000, 0, 0, 0))
    os.makedirs("tmp")
    os.chmod("tmp", 0o1777)
    for directory, directories, files in os.walk(".", topdown=False):
        for name in files + directories:
            os.utime(os.path.join(directory, name), (MTIME, MTIME), follow_symlinks=False)
    os.utime(".", (MTIME, MTIME))


if __name__ == "__main__":
    make(sys.argv[1])
