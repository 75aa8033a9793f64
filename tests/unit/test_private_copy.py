"""What was mapped stays as it was, whatever happens to the file."""

import errno
import os
from pathlib import Path

import pytest

from registry_storage.cache.private_copy import map_private_copy

DATA = os.urandom(300_001)


def mapped(path: Path) -> memoryview:
    file = os.open(path, os.O_RDONLY)
    try:
        return memoryview(map_private_copy(file, path.parent))
    finally:
        os.close(file)


@pytest.mark.parametrize("copies", [True, False], ids=["a copy on disk", "no copy possible"])
def test_truncating_and_overwriting_the_file_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: bool
) -> None:
    if not copies:

        def refuse(*_: object) -> int:
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(os, "posix_fallocate", refuse)
    path = tmp_path / "index"
    path.write_bytes(DATA)
    memory = mapped(path)
    assert memory == DATA
    with path.open("r+b") as file:
        file.write(bytes(1000))
        file.truncate(5000)
    assert memory == DATA
    path.unlink()
    assert memory == DATA
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_no_index(tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        mapped(path)
