"""Coverage-guided fuzzing of the TOC kernels: build an index of anything, read everything of what comes out.

With atheris, and the kernels built by clang so that libFuzzer sees their branches and AddressSanitizer their
memory; the runtime of both comes with atheris and must be loaded first:

    CC=clang LDSHARED="clang -shared" CFLAGS="-fsanitize=address,fuzzer-no-link -g" \\
        python setup.py build_ext --inplace
    LD_PRELOAD=.../site-packages/asan_with_fuzzer.so ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \\
        PYTHONPATH=src:. python tests/fuzz/fuzz_toc.py CORPUS \\
        -dict=tests/fuzz/toc.dict -max_len=8192 -max_total_time=600

A CORPUS that is an empty directory is filled with the hostile TOCs. FUZZ_COMPARE=1 compares with the plain
reading instead, which is slower by far and finds other things.
"""

import ctypes
import os
import sys
from pathlib import Path

import atheris

from registry_storage.errors import FormatError
from registry_storage.toc.index import TocIndex, build_index
from tests.fuzz.hostile_tocs import TOC_OFFSET, hostile_tocs
from tests.fuzz.toc_reading import read_everything
from tests.reference.toc_comparison import compare

COMPARE = os.environ.get("FUZZ_COMPARE") == "1"


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
    try:
        read_everything(TocIndex(damaged, verify=False), limit=50)
    except (FormatError, ValueError, IndexError, AssertionError):
        return


def fill(corpus: Path) -> None:
    corpus.mkdir(exist_ok=True)
    if not any(corpus.iterdir()):
        for number, toc in enumerate(hostile_tocs()):
            if len(toc.document) <= 8192:
                (corpus / f"{number:04d}").write_bytes(toc.document)


def main() -> None:
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        fill(Path(sys.argv[1]))
    sys.setrecursionlimit(100_000)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
