"""ELF files that no processor runs, with what the dynamic loader looks at."""

import struct
from collections.abc import Sequence

TABLES_BYTES = 3000
"""Before the code."""
CODE_BYTES = 300_000
DATA_BYTES = 70_000
"""Behind it; the dynamic section is in it."""
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_BASE = 0x10000
"""Where the file is loaded."""


def program(needed: Sequence[str] = (), *, runpath: str = "", interpreter: str = "", fill: bytes = b"code") -> bytes:
    """A file of TABLES_BYTES + CODE_BYTES + DATA_BYTES."""
    strings = b"\0"
    entries: list[tuple[int, int]] = []
    for tag, text in [*((1, name) for name in needed), *([(29, runpath)] if runpath else [])]:
        entries.append((tag, len(strings)))
        strings += text.encode() + b"\0"
    strings_at = 1000
    entries += [(5, _BASE + strings_at), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    data_at = TABLES_BYTES + CODE_BYTES
    parts = [
        (_LOAD, 4, 0, TABLES_BYTES),
        (_LOAD, 5, TABLES_BYTES, CODE_BYTES),
        (_LOAD, 6, data_at, DATA_BYTES),
        (_DYNAMIC, 6, data_at, len(dynamic)),
    ]
    if interpreter:
        parts.insert(0, (_INTERPRETER, 4, 800, len(interpreter) + 1))
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, len(parts), 0, 0, 0
    )
    for kind, flags, offset, size in parts:
        head += struct.pack("<IIQQQQQQ", kind, flags, offset, _BASE + offset, 0, size, size, 4096)
    tables = bytearray(TABLES_BYTES)
    tables[: len(head)] = head
    tables[800 : 800 + len(interpreter)] = interpreter.encode()
    tables[strings_at : strings_at + len(strings)] = strings
    code = (fill * (CODE_BYTES // len(fill) + 1))[:CODE_BYTES]
    return bytes(tables) + code + dynamic.ljust(DATA_BYTES, b"\0")
