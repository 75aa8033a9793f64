"""Which file system is mounted where (proc_pid_mountinfo(5))."""

import os
from pathlib import Path


def file_system_at(path: Path, table: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of what is mounted exactly at `path`, the uppermost; None: nothing is."""
    wanted = os.fsencode(path)
    found = None
    for line in table.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        place = before.split()[4].decode("unicode_escape").encode("latin-1")
        if place == wanted:
            found = after.split()[0].decode("ascii", "replace")
    return found
