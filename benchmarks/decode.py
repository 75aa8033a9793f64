"""Decode and verify chunks: the kernel beside zlib and zstandard with hashlib.

    python -m benchmarks.decode [--megabytes N]

Prints MB/s of uncompressed data per core, by CPU time on one thread, and on two threads by the clock, for
chunks of 4 KiB, 64 KiB and 4 MiB as the formats hold them: eStargz members with the padding and the tar
header that follow a payload; zstd frames that are the chunk and do not tell its size, as podman writes them.
"""

import argparse
import hashlib
import os
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import zstandard

from registry_storage._ext import frames

GZIP, ZSTD = 2, 4
SIZES = {"4 KiB": 4 << 10, "64 KiB": 64 << 10, "4 MiB": 4 << 20}
PER_CALL = 8 << 20
"""Decompressed bytes that one call of the kernel gets: a read-ahead's worth."""
HEADER = bytes(100) + b"0000644\0" + bytes(404)
Job = tuple[int, int, int, int, bytes]


class Sample(NamedTuple):
    span: bytes
    jobs: list[Job]


def real_data(size: int) -> bytes:
    """Bytes of real files: libraries and sources of the interpreter that runs this."""
    out = bytearray()
    for root in (Path(os.__file__).parent, Path("/usr/lib"), Path("/usr/share")):
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                out += path.read_bytes()[: 4 << 20]
            if len(out) >= size:
                return bytes(out[:size])
    raise SystemExit("not enough files on this machine for a sample")


def make_sample(codec: int, data: bytes, chunk_size: int) -> Sample:
    pieces, jobs, offset = [], [], 0
    frame = zstandard.ZstdCompressor(level=3, write_content_size=False, write_checksum=True)
    for at in range(0, len(data), chunk_size):
        chunk = data[at : at + chunk_size]
        if codec == GZIP:
            engine = zlib.compressobj(6, wbits=31)
            piece = engine.compress(chunk + bytes(-len(chunk) % 512) + HEADER) + engine.flush()
        else:
            piece = frame.compress(chunk)
        pieces.append(piece)
        jobs.append((offset, len(piece), 0, len(chunk), hashlib.sha256(chunk).digest()))
        offset += len(piece)
    return Sample(b"".join(pieces), jobs)


def by_kernel(codec: int, sample: Sample) -> None:
    batch: list[Job] = []
    size = 0
    for job in sample.jobs:
        batch.append(job)
        size += job[3]
        if size >= PER_CALL or job is sample.jobs[-1]:
            if any(status for status, _ in frames.decode_many(codec, sample.span, batch)):
                raise SystemExit("a chunk did not verify")
            batch, size = [], 0


def by_kernel_singly(codec: int, sample: Sample) -> None:
    for job in sample.jobs:
        ((status, _),) = frames.decode_many(codec, sample.span, [job])
        if status:
            raise SystemExit("a chunk did not verify")


def by_libraries(codec: int, sample: Sample) -> None:
    view = memoryview(sample.span)
    zstd = zstandard.ZstdDecompressor()
    for offset, piece_size, _, size, wanted in sample.jobs:
        piece = view[offset : offset + piece_size]
        if codec == GZIP:
            chunk = zlib.decompressobj(wbits=31).decompress(piece, size)
        else:
            chunk = zstd.decompress(piece, max_output_size=size)
        if hashlib.sha256(chunk).digest() != wanted:
            raise SystemExit("a chunk did not verify")


def measure(run: Callable[[int, Sample], None], codec: int, sample: Sample, threads: int) -> float:
    """MB/s, the best of five; one thread by CPU time, so that other load does not count."""
    best = float("inf")
    clock = time.process_time if threads == 1 else time.perf_counter
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            start = clock()
            list(pool.map(lambda _: run(codec, sample), range(threads)))
            best = min(best, clock() - start)
    return threads * sum(job[3] for job in sample.jobs) / best / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=32, help="size of the sample (default: %(default)s)")
    arguments = parser.parse_args()
    data = real_data(arguments.megabytes << 20)
    rows: list[tuple[str, int, Callable[[int, Sample], None]]] = [
        ("gzip: zlib + hashlib", GZIP, by_libraries),
        ("gzip: kernel, a chunk per call", GZIP, by_kernel_singly),
        ("gzip: kernel, 8 MiB per call", GZIP, by_kernel),
        ("zstd: zstandard + hashlib", ZSTD, by_libraries),
        ("zstd: kernel, a chunk per call", ZSTD, by_kernel_singly),
        ("zstd: kernel, 8 MiB per call", ZSTD, by_kernel),
    ]
    samples = {
        (codec, name): make_sample(codec, data, size)
        for codec in (GZIP, ZSTD)
        for name, size in SIZES.items()
    }
    print(f"decode + sha256, MB/s of uncompressed data, {arguments.megabytes} MiB: per core / two threads")
    print(f"{'':32}" + "".join(f"{name:>16}" for name in SIZES))
    for title, codec, run in rows:
        print(f"{title:32}", end="")
        for name in SIZES:
            one, two = (measure(run, codec, samples[codec, name], threads) for threads in (1, 2))
            print(f"{f'{one:.0f} / {two:.0f}':>16}", end="")
            sys.stdout.flush()
        print()


if __name__ == "__main__":
    main()
