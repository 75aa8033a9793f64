"""Every hostile TOC ends in a clear error or in a sound tree, soon and within the limits of memory."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from registry_storage.errors import FormatError
from registry_storage.toc.index import TocIndex, build_index

from . import fuzz_toc
from .hostile_tocs import TOC_OFFSET, HostileToc, hostile_tocs
from .toc_reading import read_everything

ROOT = Path(__file__).parents[2]


def verdict(toc: HostileToc) -> FormatError | None:
    try:
        packed = build_index(
            toc.document, blob_size=TOC_OFFSET + 100, toc_offset=TOC_OFFSET, max_entries=100_000
        )
    except FormatError as error:
        return error
    read_everything(TocIndex(packed), limit=300)
    return None


def test_every_hostile_toc_is_refused_or_understood() -> None:
    wrong = []
    slow = []
    for toc in hostile_tocs():
        start = time.process_time()
        error = verdict(toc)
        if time.process_time() - start > 2:
            slow.append(toc.name)
        if toc.refused is not None and toc.refused != (error is not None):
            wrong.append((toc.name, error))
        if error is not None:
            assert str(error).startswith("TOC")
            assert len(str(error)) < 1000
    assert not wrong
    assert not slow


def test_damaged_indexes_of_hostile_tocs_are_refused_or_read() -> None:
    for seed in fuzz_toc.seeds():
        fuzz_toc.one_input(seed)


def test_errors_name_the_entry_and_the_field() -> None:
    for toc in hostile_tocs():
        if toc.name.startswith(("name ", "chunks", "circle", "size ", "digest ", "time ")):
            error = verdict(toc)
            if error is not None:
                assert error.entry is not None, toc.name
                assert error.field is not None or "not JSON" in str(error), (toc.name, error)


def build_in_a_process(maker: str, count: int, limit_bytes: int) -> tuple[str, int]:
    """What became of ``maker(count)`` in bounded address space; peak resident bytes beyond the document."""
    script = textwrap.dedent(f"""
        import resource, sys
        resource.setrlimit(resource.RLIMIT_AS, ({limit_bytes}, {limit_bytes}))
        from registry_storage.errors import FormatError
        from registry_storage.toc.index import TocIndex, build_index
        from tests.fuzz.hostile_tocs import {maker}
        document = {maker}({count})
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            outcome = TocIndex(build_index(document, blob_size=9, toc_offset=9)).inode_count
        except FormatError as error:
            outcome = error
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base, outcome)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    kibibytes, outcome = done.stdout.split(" ", 1)
    return outcome.strip(), int(kibibytes) * 1024


def test_ten_million_entries_take_bounded_memory() -> None:
    outcome, extra = build_in_a_process("flat_directory", 10_000_000, 4 << 30)
    assert outcome == "10000001"
    assert extra < 10_000_000 * 200


def test_one_entry_more_than_ten_million_is_refused() -> None:
    outcome, _ = build_in_a_process("flat_directory", 10_000_001, 4 << 30)
    assert outcome.startswith("TOC entry 10000000")


def test_directories_that_nobody_lists_count_too() -> None:
    outcome, extra = build_in_a_process("deep_trees", 11_000_000, 4 << 30)
    assert "more than the limit allows" in outcome
    assert extra < 10_000_000 * 200


def test_no_memory_is_an_error_like_any_other() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        build_in_a_process("flat_directory", 3_000_000, 500 << 20)
    assert "MemoryError" in caught.value.stderr
