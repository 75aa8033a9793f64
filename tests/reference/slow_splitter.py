"""podman's chunks and tar-split's checksum, one byte at a time (twin of _ext/splitter.pyx)."""

HOLE = 1024
WINDOW = 64
OFFSET = 31


class RollingSum:
    """bup's rolling sum."""

    def __init__(self) -> None:
        self.window = [0] * WINDOW
        self.s1 = WINDOW * OFFSET
        self.s2 = WINDOW * (WINDOW - 1) * OFFSET

    def roll(self, byte: int) -> bool:
        old = self.window.pop(0)
        self.window.append(byte)
        self.s1 = (self.s1 + byte - old) % 2**32
        self.s2 = (self.s2 + self.s1 - WINDOW * (old + OFFSET)) % 2**32
        return self.s2 & 0xFFFF == 0xFFFF


def runs_of(data: bytes) -> list[tuple[bytes, bool]]:
    """Data and holes in turn."""
    found: list[tuple[bytes, bool]] = []
    pending = b""
    at = 0
    while at < len(data):
        end = at
        while end < len(data) and data[end] == 0:
            end += 1
        if end - at >= HOLE:
            if pending:
                found.append((pending, False))
            pending = b""
            found.append((data[at:end], True))
        else:
            end = max(end, at + 1)
            pending += data[at:end]
        at = end
    if pending:
        found.append((pending, False))
    return found


def split(data: bytes, limit: int) -> list[tuple[int, bool]]:
    """(bytes, is a hole) of each chunk."""
    found: list[tuple[int, bool]] = []
    rolling = RollingSum()
    for run, is_hole in runs_of(data):
        size = 0
        for byte in run:
            size += 1
            ended = rolling.roll(byte)
            if (ended and not is_hole) or size == limit:
                found.append((size, is_hole))
                size = 0
        if size:
            found.append((size, is_hole))
    return found


def crc64(data: bytes, crc: int = 0) -> int:
    """Bit by bit, reflected polynomial of ISO 3309."""
    crc ^= 2**64 - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xD800000000000000 if crc & 1 else 0)
    return crc ^ (2**64 - 1)
