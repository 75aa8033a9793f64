"""Fuzz target: the kernel `frames` beside its slow twin, on pieces bent from good ones and on noise.

    python -m tests.fuzz.fuzz_frames [libFuzzer options] [corpus directory]        (needs atheris)

With kernels built by clang with ``-fsanitize=address,fuzzer-no-link`` and atheris' ``asan_with_fuzzer.so``
preloaded, the fuzzer sees the kernel's own branches and every access outside a buffer.
"""

import hashlib
import struct
import sys
import zlib

from registry_storage._ext import frames
from tests.fakes.layer_blobs import gzip_member, skippable, zstd_frame
from tests.reference import slow_frames
from tests.reference.slow_frames import CORRUPT, GZIP, OK, TRAILING, ZSTD

HEAD = struct.Struct("<BBHHHH")
TEXT = b"".join(b"%d bottles " % number for number in range(300))
LARGEST = 1 << 18


def seeds() -> list[bytes]:
    """Good pieces of both codecs, asked for their beginning, middle and end."""
    pieces = [
        (GZIP, gzip_member(TEXT)),
        (GZIP, gzip_member(TEXT[:100]) + gzip_member(b"") + gzip_member(TEXT[100:])),
        (ZSTD, zstd_frame(TEXT)),
        (ZSTD, zstd_frame(TEXT, told=False)),
        (ZSTD, zstd_frame(TEXT[:9]) + skippable(b"x") + zstd_frame(TEXT[9:], told=False)),
    ]
    half = len(TEXT) // 2
    return [
        HEAD.pack(codec, 0, inner_offset, size, 50, 60) + piece
        for codec, piece in pieces
        for inner_offset, size in ((0, 10), (half, half), (0, len(TEXT)), (10, len(TEXT)))
    ]


def one_input(data: bytes) -> None:
    """Codec, whether to compress the rest first, two chunks by inner offset and size, then the piece."""
    if len(data) < HEAD.size:
        return
    codec, mode, inner_offset, size, other_offset, other_size = HEAD.unpack_from(data)
    codec = ZSTD if codec & ZSTD else GZIP
    piece = data[HEAD.size :]
    if mode & 1:
        piece = compress(codec, piece, mode)
    if mode & 2:
        size <<= 8
    if codec == ZSTD and not mode & 1:
        # Another version of the library may see a bent frame differently, so only crashes and digests count.
        verify_bent(piece, inner_offset, size)
        return
    whole, end = decompress(codec, piece)
    if len(whole) > LARGEST:
        return
    out = bytearray(size)
    status = frames.decode_into(codec, piece, inner_offset, out)
    compare(codec, (status, bytes(out[:LARGEST])), whole, end, inner_offset, size)
    chunks = [(inner_offset, size), (other_offset, other_size), (other_offset, size)]
    digests = [hashlib.sha256(whole[at : at + length]).digest() for at, length in chunks]
    jobs = [(0, len(piece), at, length, digest) for (at, length), digest in zip(chunks, digests, strict=True)]
    for (at, length), (status, got) in zip(chunks, frames.decode_many(codec, piece, jobs), strict=True):
        if status == OK:
            assert got == whole[at : at + length]
        compare(codec, (OK if status == slow_frames.MISMATCH else status, got), whole, end, at, length)
    for exact in (False, True):
        status, document = frames.decode_document(codec, piece, inner_offset, size, exact)
        if exact and status == OK:
            assert len(whole) == inner_offset + size
            assert end == OK
        if exact and status == TRAILING:
            assert len(whole) > inner_offset + size or end != OK
            continue
        compare(codec, (status, document), whole, end, inner_offset, size)


def verify_bent(piece: bytes, inner_offset: int, size: int) -> None:
    """Nothing but the right bytes comes out verified, and documents have their size."""
    out = bytearray(size)
    if frames.decode_into(ZSTD, piece, inner_offset, out) == OK:
        job = (0, len(piece), inner_offset, size, hashlib.sha256(out).digest())
        assert frames.decode_many(ZSTD, piece, [job]) == [(OK, bytes(out))]
    wrong = hashlib.sha256(b"another" + out).digest()
    ((status, _),) = frames.decode_many(ZSTD, piece, [(0, len(piece), inner_offset, size, wrong)])
    assert status != OK
    for exact in (False, True):
        status, document = frames.decode_document(ZSTD, piece, inner_offset, size, exact)
        assert len(document) == (size if status == OK else 0)


def compress(codec: int, text: bytes, mode: int) -> bytes:
    """A good piece of `text`, so that the fuzzer need not find out how to compress; mode bit 2: cut short."""
    told = bool(mode & 8)
    piece = gzip_member(text, mode >> 4 & 7) if codec == GZIP else zstd_frame(text, told=told)
    return piece[: -len(piece) // 3] if mode & 4 else piece


def decompress(codec: int, piece: bytes) -> tuple[bytes, int]:
    """`slow_frames.decompress`, but bombs are cut off."""
    if codec == GZIP:
        try:
            if len(zlib.decompressobj(wbits=31).decompress(piece, LARGEST + 1)) > LARGEST:
                return bytes(LARGEST + 1), OK
        except zlib.error:
            pass
    return slow_frames.decompress(codec, piece)


def compare(
    codec: int, fast: tuple[int, bytes], whole: bytes, end: int, inner_offset: int, size: int
) -> None:
    """The kernel's answer, given all that comes out of the piece and how that ends."""
    status, got = fast
    needed = inner_offset + size
    if status == OK:
        # Next to an error the twin loses some of the last bytes.
        assert len(whole) >= needed or (end == CORRUPT and len(whole) + slow_frames.LOST >= needed)
    elif len(whole) >= needed:
        # A zstd stream reads ahead, into what is broken behind the chunk.
        assert codec == ZSTD
        assert end == CORRUPT
    else:
        assert status == (CORRUPT if end == CORRUPT else slow_frames.TRUNCATED)
    if status == OK and len(whole) >= needed and len(got) == size:
        assert got == whole[inner_offset:needed] or len(got) == 32


def main() -> None:
    import atheris

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
