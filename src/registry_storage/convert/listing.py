"""The names in a layer's tar."""

import os
from pathlib import Path

import trio

from ..formats.tar.parser import BLOCK, TarParser
from ..formats.tar.stream import BlockStream
from ..formats.unpacking import unpacked_blocks


def list_names(path: Path) -> list[str]:
    """Cleaned paths of everything but directories, in the order of the tar, as `os.fsdecode` gives them.

    Blocks; to be called in a thread of trio's. Raises FormatError, OSError.
    """
    names: list[str] = []
    with path.open("rb") as file:
        stream = BlockStream(unpacked_blocks(file, lambda _: trio.from_thread.check_cancelled()))
        parser = TarParser(stream)
        while (entry := parser.next()) is not None:
            if entry.type != "dir":
                names.append(os.fsdecode(entry.path))
            for _ in stream.views(entry.stored_size + -entry.stored_size % BLOCK):
                pass
    return names
