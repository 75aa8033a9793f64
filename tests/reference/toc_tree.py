"""What a TOC means, said plainly: the tree that the packed index must agree with."""

import itertools
import os
import stat
from dataclasses import dataclass, field, replace

from .json_text import Pairs, parse
from .toc_entry import Entry, RefusedError, clean, refuse_unless

GIB = 1 << 30


@dataclass(frozen=True)
class Piece:
    """One chunk: a hole has no blob offset."""

    blob_offset: int | None
    blob_size: int
    inner_offset: int
    size: int
    file_offset: int
    digest: bytes


@dataclass
class Node:
    """One inode."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    rdev: int = 0
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    opaque: bool = False
    children: dict[bytes, "Node"] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    link: list[bytes] | None = None
    """A hard link that waits for its target: the target's path."""

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass
class Tree:
    """A whole layer."""

    root: Node
    prefetch_end: int = 0
    no_prefetch: bool = False


class Builder:
    """Applies entries one after the other."""

    def __init__(self, toc_offset: int) -> None:
        self.toc_offset = toc_offset
        self.tree = Tree(Node(stat.S_IFDIR | 0o755))
        self.file: Node | None = None
        self.file_path: list[bytes] = []
        self.file_next = 0
        self.file_end = 0
        self.file_digest = b""
        self.total = 0
        self.offsets: list[int] = []
        self.links: list[Node] = []
        self.whiteouts: list[tuple[Node, bytes, Node]] = []
        self.files: list[Node] = []

    def add(self, entry: Entry) -> None:
        refuse_unless(entry.type, "no type")
        refuse_unless(max(entry[b"offset"], entry[b"endOffset"]) <= self.toc_offset, "offset")
        if entry.type == b"chunk":
            refuse_unless(self.file is not None, "stray chunk")
            refuse_unless(not entry.name or clean(entry.name) == self.file_path, "other file")
            self.add_chunk(entry)
            return
        self.close_file()
        path = clean(entry.name)
        if not path:
            refuse_unless(entry.type == b"dir", "root")
            self.describe(self.tree.root, entry)
            return
        node = self.place(path, entry)
        if entry.type == b"reg":
            node = node or Node(stat.S_IFREG)
            node.size = entry[b"size"]
            self.open_file(node, path, entry)

    def place(self, path: list[bytes], entry: Entry) -> Node | None:
        """Give the entry its name; None when it is not shown."""
        *above, name = path
        if path[0] in (b".prefetch.landmark", b".no.prefetch.landmark", b"stargz.index.json"):
            if path == [b".prefetch.landmark"] and entry.type == b"reg":
                self.tree.prefetch_end = entry[b"offset"]
            if path == [b".no.prefetch.landmark"]:
                self.tree.no_prefetch = True
            return None
        if any(part.startswith(b".wh.") for part in above):
            return None
        if name.startswith(b".wh."):
            refuse_unless(name not in (b".wh..", b".wh..."), "whiteout")
            if name == b".wh..wh..opq":
                self.open_parent(above).opaque = True
            elif name != b".wh." and not name.startswith(b".wh..wh."):
                whiteout = Node(stat.S_IFCHR)
                directory = self.open_parent(above)
                self.describe(whiteout, entry)
                whiteout.mode, whiteout.xattrs = stat.S_IFCHR, {}
                self.whiteouts.append((directory, name[4:], whiteout))
            return None
        directory = self.open_parent(above)
        if entry.type == b"hardlink":
            directory.children[name] = self.link_to(entry)
            return None
        node = self.new_node(entry)
        old = directory.children.get(name)
        if entry.type == b"dir" and old is not None and old.is_directory:
            node = old
        self.describe(node, entry)
        directory.children[name] = node
        return node

    def link_to(self, entry: Entry) -> Node:
        refuse_unless(entry.link, "no target")
        target = clean(entry.link)
        found = self.find(target)
        if found is None:
            found = Node(0, link=target)
            self.links.append(found)
        refuse_unless(not found.is_directory, "link to a directory")
        return found

    def new_node(self, entry: Entry) -> Node:
        match entry.type:
            case b"dir":
                return Node(stat.S_IFDIR)
            case b"reg":
                return Node(stat.S_IFREG)
            case b"fifo":
                return Node(stat.S_IFIFO)
            case b"symlink":
                refuse_unless(0 < len(entry.link) <= 4095 and b"\0" not in entry.link, "target")
                return Node(stat.S_IFLNK, target=entry.link, size=len(entry.link))
        major, minor = entry[b"devMajor"], entry[b"devMinor"]
        refuse_unless(major < 1 << 12 and minor < 1 << 20, "device")
        kind = stat.S_IFCHR if entry.type == b"char" else stat.S_IFBLK
        return Node(kind, rdev=os.makedev(major, minor))

    def describe(self, node: Node, entry: Entry) -> None:
        refuse_unless(entry[b"uid"] < 0xFFFFFFFF and entry[b"gid"] < 0xFFFFFFFF, "owner")
        node.mode = stat.S_IFMT(node.mode) | entry[b"mode"] & 0o7777
        node.uid, node.gid = entry[b"uid"], entry[b"gid"]
        node.mtime_ns = entry.mtime_ns
        node.xattrs = entry.xattrs

    def open_parent(self, path: list[bytes]) -> Node:
        node = self.tree.root
        for part in path:
            node = node.children.setdefault(part, Node(stat.S_IFDIR | 0o755))
            refuse_unless(node.is_directory, "below a file")
        return node

    def find(self, path: list[bytes]) -> Node | None:
        node: Node | None = self.tree.root
        for part in path:
            node = node.children.get(part) if node is not None and node.is_directory else None
        return node

    def open_file(self, node: Node, path: list[bytes], entry: Entry) -> None:
        self.total += node.size
        refuse_unless(self.total <= 1 << 43, "size")
        self.file, self.file_path, self.file_next = node, path, 0
        self.file_end, self.file_digest = entry[b"endOffset"], entry.digest
        self.files.append(node)
        if node.size:
            self.add_chunk(entry)

    def add_chunk(self, entry: Entry) -> None:
        assert self.file is not None
        left = self.file.size - self.file_next
        size = entry[b"chunkSize"] or left
        refuse_unless(entry[b"chunkOffset"] == self.file_next and 0 < size <= left, "chunk")
        offset, inner = entry[b"offset"], entry[b"innerOffset"]
        if entry.hole:
            for start in range(self.file_next, self.file_next + size, GIB):
                part = min(GIB, self.file_next + size - start)
                self.file.pieces.append(Piece(None, 0, 0, part, start, bytes(32)))
        else:
            refuse_unless(size <= GIB and inner + size <= GIB and offset < self.toc_offset, "chunk")
            digest = entry.chunk_digest or (self.file_digest if size == self.file.size else b"")
            refuse_unless(digest, "no digest")
            self.file.pieces.append(Piece(offset, 0, inner, size, self.file_next, digest))
        self.offsets.append(offset)
        self.file_next += size

    def close_file(self) -> None:
        file, self.file = self.file, None
        if file is None:
            return
        refuse_unless(self.file_next == file.size, "short")
        data = [i for i, piece in enumerate(file.pieces) if piece.blob_offset is not None]
        if self.file_end and data:
            last = file.pieces[data[-1]]
            assert last.blob_offset is not None
            size = self.file_end - last.blob_offset
            refuse_unless(size > 0, "endOffset")
            file.pieces[data[-1]] = replace(last, blob_size=size)

    def finish(self) -> Tree:
        self.close_file()
        targets = {id(link): self.find(link.link or []) for link in self.links}
        finals: dict[int, Node] = {}
        for link in self.links:
            node: Node | None = link
            for _ in range(len(self.links) + 1):
                if node is None or node.link is None:
                    break
                node = targets[id(node)]
            refuse_unless(node is not None and node.link is None and not node.is_directory, "hard link")
            assert node is not None
            finals[id(link)] = node
        for directory, name, whiteout in self.whiteouts:
            directory.children.setdefault(name, whiteout)
        self.relink(self.tree.root, finals)
        self.end_pieces()
        return self.tree

    def relink(self, directory: Node, finals: dict[int, Node]) -> None:
        for name, child in directory.children.items():
            directory.children[name] = finals.get(id(child), child)
            if child.is_directory:
                self.relink(child, finals)

    def end_pieces(self) -> None:
        ends = sorted({*self.offsets, self.toc_offset})
        following = dict(itertools.pairwise(ends))
        for file in self.files:
            file.pieces = [
                piece
                if piece.blob_offset is None or piece.blob_size
                else replace(piece, blob_size=following[piece.blob_offset] - piece.blob_offset)
                for piece in file.pieces
            ]


def build(document: bytes, toc_offset: int) -> Tree:
    """The tree of a TOC; RefusedError when it breaks its format or a limit other than their number."""
    try:
        value = parse(document)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    refuse_unless(isinstance(value, Pairs), "document")
    assert isinstance(value, Pairs)
    entries = [item for key, item in value if key == b"entries"]
    refuse_unless(len(entries) == 1 and (entries[0] is None or type(entries[0]) is list), "entries")
    versions = [item for key, item in value if key == b"version"]
    refuse_unless(all(type(item) is int and item == 1 for item in versions), "version")
    builder = Builder(toc_offset)
    for pairs in entries[0] or []:  # type: ignore[attr-defined]
        builder.add(Entry.read(pairs))
    return builder.finish()
