"""Fuzz target: a TOC, as a registry may serve it, and the index that comes of it.

    python -m tests.fuzz.fuzz_toc [libFuzzer options] [corpus directory]           (needs atheris)

Whatever the bytes: an error of this package, or an index in which everything can be read and is consistent; and a
damaged index is refused or read, but never beyond its end. FUZZ_COMPARE=1 compares with the plain reading instead,
which is slower by far and finds other things. An empty corpus directory is filled with the hostile TOCs.

To see the kernels' branches and memory, build them with clang and load the runtime that comes with atheris:

    CC=clang LDSHARED="clang -shared" CFLAGS="-fsanitize=address,fuzzer-no-link -g" \\
        python setup.py build_ext --inplace
    LD_PRELOAD=.../site-packages/asan_with_fuzzer.so ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \\
        PYTHONPATH=src python -m tests.fuzz.fuzz_toc -dict=tests/fuzz/toc.dict -max_len=8192 CORPUS
"""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

from registry_storage.errors import FormatError
from registry_storage.toc.index import TocIndex, build_index
from tests.fuzz.hostile_tocs import TOC_OFFSET, hostile_tocs
from tests.fuzz.toc_reading import read_everything
from tests.reference.toc_comparison import compare

COMPARE = os.environ.get("FUZZ_COMPARE") == "1"
MAX_SEED = 8192


def seeds() -> list[bytes]:
    """The hostile TOCs that are not hostile by their size."""
    return [toc.document for toc in hostile_tocs() if len(toc.document) <= MAX_SEED]


def one_input(data: bytes) -> None:
    if COMPARE:
        compare(data, TOC_OFFSET)
        return
    try:
        # Memory that ends where the document ends, so that a read beyond it is seen; bytes have a NUL more.
        exact = memoryview((ctypes.c_ubyte * len(data)).from_buffer_copy(data)).cast("B")
        packed = build_index(exact, blob_size=TOC_OFFSET, toc_offset=TOC_OFFSET, max_entries=3000)
    except FormatError:
        return
    read_everything(TocIndex(packed), limit=50)
    damaged = bytearray(packed)
    for position in range(len(data) % 97, min(len(damaged), 4000), 97):
        damaged[position] ^= 1 << position % 8
    with suppress(FormatError, ValueError, IndexError, AssertionError):
        read_everything(TocIndex(damaged, verify=False), limit=50)


def main() -> None:
    import atheris

    corpus = Path(sys.argv[-1])
    if corpus.is_dir() and not any(corpus.iterdir()):
        for number, seed in enumerate(seeds()):
            (corpus / f"{number:04d}").write_bytes(seed)
    sys.setrecursionlimit(100_000)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
