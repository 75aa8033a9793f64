"""Compares a packed index with the plain reading of the same TOC."""

import stat
from typing import Any

from registry_storage.errors import FormatError
from registry_storage.toc.index import TocIndex, build_index

from . import toc_tree
from .toc_entry import RefusedError
from .toc_tree import Node, Piece

Description = dict[str, Any]


def describe_tree(tree: toc_tree.Tree) -> Description:
    """Everything observable, by path; hard links by the first path that reaches their inode."""
    found: dict[bytes, Description] = {}
    first: dict[int, bytes] = {}
    links: dict[int, int] = {}

    def visit(path: bytes, node: Node) -> None:
        links[id(node)] = links.get(id(node), 0) + 1
        xattrs = sorted(node.xattrs.items())
        if node.opaque:
            xattrs += [(b"trusted.overlay.opaque", b"y"), (b"user.overlay.opaque", b"y")]
        found[path] = {
            "same": first.setdefault(id(node), path),
            "id": id(node),
            "mode": node.mode,
            "owner": (node.uid, node.gid),
            "mtime_ns": node.mtime_ns,
            "size": 4096 if node.is_directory else node.size,
            "rdev": node.rdev,
            "target": node.target,
            "xattrs": xattrs,
            "pieces": node.pieces,
            "children": sorted(node.children),
        }
        for name in sorted(node.children):
            visit(path + b"/" + name, node.children[name])

    visit(b"", tree.root)
    for description in found.values():
        node_id = description.pop("id")
        if stat.S_ISDIR(description["mode"]):
            prefix = description["same"] + b"/"
            names = [prefix + name for name in description["children"]]
            description["nlink"] = 2 + sum(stat.S_ISDIR(found[name]["mode"]) for name in names)
        else:
            description["nlink"] = links[node_id]
    return {"paths": found, "prefetch": (tree.prefetch_end, tree.no_prefetch)}


def describe_index(index: TocIndex) -> Description:
    found: dict[bytes, Description] = {}
    first: dict[int, bytes] = {}

    def visit(path: bytes, inode: int) -> None:
        attributes = index.attributes(inode)
        is_directory = stat.S_ISDIR(attributes.mode)
        pieces = []
        if stat.S_ISREG(attributes.mode):
            for number in range(*index.chunk_range(inode, 0, 1 << 62)):
                chunk = index.chunk(number)
                assert index.owner_of_chunk(number) == inode
                pieces.append(
                    Piece(
                        None if chunk.is_hole else chunk.blob_offset,
                        chunk.blob_size,
                        chunk.inner_offset,
                        chunk.size,
                        chunk.content_offset - index.content_offset(inode),
                        chunk.digest_raw,
                    )
                )
        children = index.children(inode, 0, 1 << 30) if is_directory else []
        found[path] = {
            "same": first.setdefault(inode, path),
            "mode": attributes.mode,
            "owner": (attributes.uid, attributes.gid),
            "mtime_ns": attributes.mtime_ns,
            "size": attributes.size,
            "rdev": attributes.rdev,
            "target": index.read_link(inode) if stat.S_ISLNK(attributes.mode) else b"",
            "xattrs": list(index.xattrs(inode)),
            "pieces": pieces,
            "children": [name for name, _ in children],
            "nlink": attributes.nlink,
        }
        for position, (name, child) in enumerate(children):
            assert index.lookup(inode, name) == child
            assert index.child(inode, position) == (name, child)
            if stat.S_ISDIR(index.mode(child)):
                assert index.parent(child) == inode
                assert index.path(child) == (path + b"/" + name)[1:]
            visit(path + b"/" + name, child)

    visit(b"", 0)
    assert index.inode_count == len(first)
    check_content_file(index)
    return {"paths": found, "prefetch": (index.prefetch_end, index.no_prefetch)}


def check_content_file(index: TocIndex) -> None:
    """Files follow each other without overlap, large ones on pages; chunks belong to files in their order."""
    end = chunk = total = 0
    for inode in range(index.inode_count):
        attributes = index.attributes(inode)
        if stat.S_ISREG(attributes.mode) and attributes.size:
            start = index.content_offset(inode)
            assert end <= start < end + 4096
            assert start % (4096 if attributes.size >= 4096 else 8) == 0
            end = start + attributes.size
            total += attributes.size
            first, last = index.chunk_range(inode, 0, attributes.size)
            assert first == chunk < last
            assert {index.owner_of_chunk(number) for number in range(first, last)} == {inode}
            chunk = last
    assert (index.chunk_count, index.content_size, index.total_file_bytes) == (chunk, end, total)


def compare(document: bytes, toc_offset: int) -> None:
    """Build both; they refuse the same documents and mean the same by the others."""
    try:
        wanted = describe_tree(toc_tree.build(document, toc_offset))
    except RefusedError as refusal:
        try:
            build_index(document, blob_size=toc_offset + 9, toc_offset=toc_offset)
        except FormatError:
            return
        raise AssertionError(f"the kernel accepts what the reference refuses: {refusal}") from refusal
    got = describe_index(TocIndex(build_index(document, blob_size=toc_offset + 9, toc_offset=toc_offset)))
    assert got == wanted
