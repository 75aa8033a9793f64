"""Asks an index everything there is to ask, as a consumer with no sense of danger would."""

import stat

from registry_storage.toc.index import TocIndex


def read_everything(index: TocIndex, limit: int = 5000) -> None:
    """Every answer about the first `limit` inodes and chunks; a tree that breaks its own promises asserts."""
    for inode in range(min(index.inode_count, limit)):
        attributes = index.attributes(inode)
        assert attributes.mode == index.mode(inode)
        assert attributes.nlink >= 1
        for name, value in index.xattrs(inode):
            assert index.xattr(inode, name) == value
        match stat.S_IFMT(attributes.mode):
            case stat.S_IFDIR:
                read_directory(index, inode, limit)
            case stat.S_IFREG:
                read_file(index, inode, attributes.size)
            case stat.S_IFLNK:
                assert 0 < len(index.read_link(inode)) == attributes.size
            case stat.S_IFCHR | stat.S_IFBLK | stat.S_IFIFO:
                assert attributes.size == 0
            case other:
                raise AssertionError(f"type {other:o}")
    for number in range(min(index.chunk_count, limit)):
        chunk = index.chunk(number)
        assert chunk.number == number
        assert 0 < chunk.size <= 1 << 30
        assert chunk.blob_offset + chunk.blob_size <= index.toc_offset
        assert chunk.content_offset + chunk.size <= index.content_size


def read_directory(index: TocIndex, inode: int, limit: int) -> None:
    assert index.attributes(inode).nlink >= 2
    parent = index.parent(inode)
    assert stat.S_ISDIR(index.mode(parent))
    children = index.children(inode, 0, limit)
    assert len(children) == min(index.child_count(inode), limit)
    names = [name for name, _ in children]
    assert names == sorted(set(names))
    for position, (name, child) in enumerate(children):
        assert 0 < len(name) <= 255
        assert name not in (b".", b"..")
        assert not {0, 0x2F} & set(name)
        assert not name.startswith(b".wh.")
        assert child != 0
        assert index.lookup(inode, name) == child
        assert index.child(inode, position) == (name, child)
    if inode < 20 and children:
        assert index.path(children[0][1])


def read_file(index: TocIndex, inode: int, size: int) -> None:
    first, end = index.chunk_range(inode, 0, 1 << 63)
    assert (first == end) == (size == 0)
    offset = index.content_offset(inode)
    total = 0
    for number in range(first, end):
        chunk = index.chunk(number)
        assert chunk.content_offset - offset == total
        total += chunk.size
        assert index.chunk_range(inode, total - 1, 1) == (number, number + 1)
    assert total == size
    assert index.chunk_range(inode, size, 1) == (first, first)
