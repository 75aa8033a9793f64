"""Members and frames read by other libraries (twin of _ext/writer.pyx and _ext/unpack.pyx)."""

import gzip

import zstandard


def unpack(codec: int, piece: bytes) -> bytes:
    """A whole stream of members (2) or frames (4)."""
    if codec == 2:
        return gzip.decompress(piece)
    with zstandard.ZstdDecompressor().stream_reader(piece, read_across_frames=True) as reader:
        return bytes(reader.read())
