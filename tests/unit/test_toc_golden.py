"""The packed index of layers that other tools made (`tests/golden/README.md`)."""

import os
import stat
from pathlib import Path

import pytest

from registry_storage.descriptor import Manifest
from registry_storage.formats.base import TocLocation
from registry_storage.formats.detect import detect
from registry_storage.formats.verified import VerifiedChunk, decode_chunks
from registry_storage.toc.index import TocIndex, build_index
from tests.reference.toc_comparison import compare

GOLDEN = Path(__file__).parent.parent / "golden"
MTIME_NS = 1_700_000_000 * 10**9

pytestmark = pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()))


def open_toc(name: str) -> tuple[bytes, int, int]:
    """The JSON, where the data ends, the blob's size."""
    layer = Manifest.parse((GOLDEN / name / "manifest.json").read_bytes(), name).layers[0]
    blob = (GOLDEN / name / "layer.blob").read_bytes()
    lazy = detect(layer)
    location = lazy.locate_toc(blob[-lazy.format.footer_size :])
    assert isinstance(location, TocLocation)
    return lazy.format.open_toc(blob[location.offset :], location, lazy.toc_digest), location.offset, len(blob)


def index_of(name: str) -> TocIndex:
    toc, toc_offset, blob_size = open_toc(name)
    return TocIndex(build_index(toc, blob_size=blob_size, toc_offset=toc_offset))


def walk(index: TocIndex, path: str) -> int:
    inode = 0
    for part in path.split("/"):
        child = index.lookup(inode, part.encode())
        assert child is not None, path
        inode = child
    return inode


def test_the_index_agrees_with_the_reference(name: str) -> None:
    toc, toc_offset, _ = open_toc(name)
    compare(toc, toc_offset)


def test_the_tree_is_the_one_that_was_packed(name: str) -> None:
    index = index_of(name)
    tool = index.attributes(walk(index, "usr/bin/tool"))
    assert (tool.mode, tool.nlink, tool.size) == (stat.S_IFREG | 0o4755, 2, 20)
    assert walk(index, "usr/bin/tool-link") == walk(index, "usr/bin/tool")
    assert index.read_link(walk(index, "etc/absolute")) == b"/etc/hostname"
    assert index.xattr(walk(index, "etc/hostname"), b"user.comment") == b"hello\x00\xff"
    assert index.xattr(walk(index, "usr/bin/tool"), b"security.capability") is not None
    assert index.attributes(walk(index, "dev-null")).rdev == os.makedev(1, 3)
    assert stat.S_ISBLK(index.mode(walk(index, "dev-loop")))
    assert index.attributes(walk(index, "dev-loop")).rdev == os.makedev(7, 0)
    assert index.mode(walk(index, "pipe")) == stat.S_IFIFO | 0o600
    assert index.mode(walk(index, "tmp")) == stat.S_IFDIR | 0o1777
    assert index.attributes(walk(index, "srv/\u00fcml\u00e4ut \u4e2d")).mtime_ns == MTIME_NS
    assert index.child_count(walk(index, "usr/share/small")) == 20
    top = [child for child, _ in index.children(0, 0, 100)]
    assert top == b"dev-loop dev-null etc pipe srv tmp usr".split()


def test_every_chunk_decodes_from_the_piece_the_index_names(name: str) -> None:
    layer = Manifest.parse((GOLDEN / name / "manifest.json").read_bytes(), name).layers[0]
    blob = (GOLDEN / name / "layer.blob").read_bytes()
    index = index_of(name)
    chunks = [index.chunk(number) for number in range(index.chunk_count)]
    present = [chunk for chunk in chunks if not chunk.is_hole]
    assert present
    for result in decode_chunks(detect(layer).format, blob, 0, present):
        assert isinstance(result, VerifiedChunk)
