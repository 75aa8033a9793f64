"""The store's own tree as podman and people see it, without any FUSE: nodes in, values out.

What is below ``diff`` belongs to the lane, which answers from the layer itself.

    <base64 of the reference>/                 an image
        manifest, config                       its documents
        <layer digest or TOC digest>/          a link to one of its layers
            diff/                              the extracted layer
                .registry-storage/             never listed
                    <layer digest>.json        how much of the layer is here
            layer -> diff                      the name that the originating design gave it
            info                               what containers-storage wants to know of it
            blob                               the layer as it is in the registry
            use                                never visible: creating it counts a use
            chain/                             the merged tree from the base layer up to this one
"""

import base64
import binascii
import re
import time
from collections.abc import Sequence

from ..cache.ledger import Image, Ledger, Link
from ..digest import Digest
from ..errors import InvalidDigestError, InvalidReferenceError, NoSuchNodeError
from ..layer.layer import Layer
from ..layer.pool import Pool
from ..layer.whole_blob import WholeBlobs
from ..podman.graph_roots import graph_roots_of
from ..reference import Reference
from . import chain, layer_state
from .attributes import Stat, directory_stat, document_stat, file_stat, layer_stat, symlink_stat
from .info import build_info
from .inodes import ChainNode, Kind, LayerNode, StoreNode, chain_node, layer_node, parse_node, store_node

LAYER_TARGET = b"diff"
UNCOMPRESSED_SIZE = "io.containers.estargz.uncompressed-size"

Listing = Sequence[tuple[bytes, int]]


def decode_reference(name: bytes) -> str:
    """The image reference that a directory name stands for (standard base64 with padding).

    Raises NoSuchNodeError for any other spelling: every directory has one name.
    """
    try:
        text = base64.b64decode(name, validate=True).decode("ascii")
        canonical = str(Reference.parse(text))
    except (binascii.Error, UnicodeDecodeError, InvalidReferenceError) as error:
        raise NoSuchNodeError(f"{name[:200]!r} is not the base64 of an image reference: {error}") from None
    if canonical != text or base64.b64encode(text.encode()) != name:
        raise NoSuchNodeError(f"{text!r}: podman's spelling is {canonical!r}")
    return text


class Tree:
    """Errors are those of `errors.py` and OSError; a name or node that is not there is a NoSuchNodeError."""

    def __init__(self, pool: Pool, ledger: Ledger, blobs: WholeBlobs) -> None:
        self._pool = pool
        self._ledger = ledger
        self._blobs = blobs
        self._chains: dict[int, chain.Chain] = {}
        self._states = layer_state.LayerStates()

    # Names

    async def lookup(self, node: int, name: bytes) -> Stat | None:
        """The node called `name` in a directory; None where a chain surely has none."""
        parent = parse_node(node)
        if isinstance(parent, ChainNode):
            merged = await self._chain(parent.number)
            serial = merged.lookup(parent.serial, name)
            return None if serial is None else self._chain_stat(merged, parent.number, serial)
        if isinstance(parent, LayerNode) and parent.inode == 0 and name == layer_state.NAME:
            return await self._state(parent.number)
        return await self.stat(await self._store_child(_own(parent), name))

    async def _store_child(self, parent: StoreNode, name: bytes) -> int:
        if parent.kind is Kind.ROOT:
            reference = decode_reference(name)
            await self._pool.image(reference)
            image = self._ledger.image(reference)
            if image is not None:
                return store_node(Kind.IMAGE, image.number)
        elif parent.kind is Kind.IMAGE:
            documents = {b"manifest": Kind.MANIFEST, b"config": Kind.CONFIG}
            if name in documents:
                return store_node(documents[name], parent.number)
            digest = _parse_digest(name)
            link = await self._pool.link(self._image(parent.number).reference, digest)
            return store_node(Kind.LINK, link.number)
        elif parent.kind is Kind.LINK:
            kinds = {b"layer": Kind.LAYER_NAME, b"info": Kind.INFO, b"blob": Kind.BLOB}
            if name == b"diff":
                return layer_node(parent.number, 0)
            if name == b"chain":
                return chain_node(parent.number, (await self._chain(parent.number)).root)
            if name in kinds:
                return store_node(kinds[name], parent.number)
        elif parent.kind is Kind.STATE and name == layer_state.document_name(await self._layer(parent.number)):
            return store_node(Kind.STATE_DOCUMENT, parent.number)
        raise NoSuchNodeError(f"no {name[:200]!r} here")

    async def children(self, node: int, start: int) -> Listing:
        """Names and nodes of a directory from position `start` on, some or all of them."""
        parent = parse_node(node)
        if isinstance(parent, ChainNode):
            merged = await self._chain(parent.number)
            return [
                (name, chain_node(parent.number, serial)) for name, serial in merged.children(parent.serial)[start:]
            ]
        parent = _own(parent)
        entries: list[tuple[bytes, int]] = []
        if parent.kind is Kind.ROOT:
            entries = [
                (base64.b64encode(image.reference.encode()), store_node(Kind.IMAGE, image.number))
                for image in self._ledger.images()
            ]
        elif parent.kind is Kind.IMAGE:
            entries = [(name, store_node(kind, parent.number)) for name, kind in _DOCUMENTS]
            links = self._ledger.links(self._image(parent.number).reference)
            entries += [(str(link.name_digest).encode(), store_node(Kind.LINK, link.number)) for link in links]
        elif parent.kind is Kind.LINK:
            await self._layer(parent.number)
            entries = [(b"diff", layer_node(parent.number, 0))]
            entries += [(name, store_node(kind, parent.number)) for name, kind in _LINK_FILES]
        elif parent.kind is Kind.STATE:
            name = layer_state.document_name(await self._layer(parent.number))
            entries = [(name, store_node(Kind.STATE_DOCUMENT, parent.number))]
        return entries[start:]

    # Attributes

    async def stat(self, node: int) -> Stat:
        """What stat(2) says of a node."""
        parsed = parse_node(node)
        if isinstance(parsed, LayerNode):
            layer = await self._layer(parsed.number)
            return layer_stat(node, layer.index.attributes(_checked(layer, parsed.inode)))
        if isinstance(parsed, ChainNode):
            return self._chain_stat(await self._chain(parsed.number), parsed.number, parsed.serial)
        kind, number = parsed
        if kind is Kind.STATE_DOCUMENT:  # always of another time, so the kernel never believes what it kept
            return document_stat(node, layer_state.DOCUMENT_BYTES, time.time_ns())
        if kind in (Kind.ROOT, Kind.IMAGE, Kind.LINK, Kind.STATE):
            return directory_stat(node, self._ledger.changed_ns)
        if kind is Kind.LAYER_NAME:
            return symlink_stat(node, LAYER_TARGET)
        if kind is Kind.BLOB:
            return file_stat(node, (await self._layer(number)).descriptor.size)
        return document_stat(node, len(await self._document(parsed)), self._ledger.changed_ns)

    async def read_link(self, node: int) -> bytes:
        """The target of a symbolic link."""
        parsed = parse_node(node)
        if isinstance(parsed, StoreNode):
            return LAYER_TARGET
        layer, inode = await self._entry(parsed)
        return layer.index.read_link(inode)

    async def xattrs(self, node: int) -> Sequence[tuple[bytes, bytes]]:
        """Extended attributes, names and values: of a chain's entries only."""
        parsed = parse_node(node)
        if isinstance(parsed, StoreNode):
            return ()
        layer, inode = await self._entry(parsed)
        return [(name, value) for name, value in layer.index.xattrs(inode) if not name.endswith(b".overlay.opaque")]

    async def xattr(self, node: int, name: bytes) -> bytes | None:
        """One extended attribute."""
        return dict(await self.xattrs(node)).get(name)

    # Contents

    async def read(self, node: int, offset: int, size: int) -> bytes:
        """Up to `size` bytes of a file from `offset`."""
        parsed = parse_node(node)
        if isinstance(parsed, StoreNode):
            if parsed.kind is Kind.STATE_DOCUMENT:
                document = await self._states.document(await self._layer(parsed.number))
                return document[offset : offset + size]
            if parsed.kind is Kind.BLOB:
                layer = await self._layer(parsed.number)
                return await self._blobs.read(layer, offset, size)
            return (await self._document(parsed))[offset : offset + size]
        layer, inode = await self._entry(parsed)
        return await layer.read(inode, offset, size)

    async def _document(self, node: StoreNode) -> bytes:
        if node.kind is Kind.INFO:
            return await self._info(self._link(node.number))
        image = await self._pool.image(self._image(node.number).reference)
        if node.kind is Kind.CONFIG:
            return await self._pool.config(image)
        return await self._pool.manifest(image)

    async def _info(self, link: Link) -> bytes:
        layer = await self._pool.layer(link)
        size = layer.descriptor.annotations.get(UNCOMPRESSED_SIZE, "")
        return build_info(
            link.name_digest,
            descriptor=layer.descriptor,
            toc_digest=link.toc_digest,
            diff_id=await self._pool.diff_id(link),
            compression=layer.format.compression,
            diff_size=int(size) if _NUMBER.fullmatch(size) else layer.index.total_file_bytes,
        )

    # Use

    def add_use(self, node: int, name: bytes, pid: int) -> int:
        """Process `pid` creates ``use`` in a link's directory: one more use. Returns how many there are now."""
        parsed = parse_node(node)
        if not isinstance(parsed, StoreNode) or parsed.kind is not Kind.LINK or name != b"use":
            raise NoSuchNodeError(f"only a layer's `use` can be created, not {name[:200]!r}")
        return self._pool.add_use(self._link(parsed.number), graph_roots_of(pid))

    def drop_use(self, node: int, name: bytes) -> int:
        """Removing a link's directory: one use less. Returns how many there are now."""
        parsed = parse_node(node)
        if not isinstance(parsed, StoreNode) or parsed.kind is not Kind.IMAGE:
            raise NoSuchNodeError(f"only a layer's directory can be given up, not {name[:200]!r}")
        link = self._ledger.link(self._image(parsed.number).reference, _parse_digest(name))
        if link is None:
            raise NoSuchNodeError(f"{name[:200]!r} was never used here")
        return self._pool.drop_use(link)

    # Parts

    async def _entry(self, node: LayerNode | ChainNode) -> tuple[Layer, int]:
        if isinstance(node, ChainNode):
            return (await self._chain(node.number)).locate(node.serial)
        raise NoSuchNodeError(f"layer {node.number}: its entries are the lane's")

    async def _state(self, number: int) -> Stat:
        """The state's directory, unless the layer has something of that name itself."""
        index = (await self._layer(number)).index
        own = index.lookup(0, layer_state.NAME)
        if own is None:
            return await self.stat(store_node(Kind.STATE, number))
        return layer_stat(layer_node(number, own), index.attributes(own))

    async def _layer(self, number: int) -> Layer:
        return self._pool.peek(number) or await self._pool.layer_by_number(number)

    async def _chain(self, number: int) -> chain.Chain:
        merged = self._chains.get(number)
        if merged is None:
            link = self._link(number)
            image = await self._pool.image_of(link)
            layers = []
            for descriptor in image.manifest.layers[: self._pool.position(image, link) + 1]:
                part = await self._pool.link(link.reference, descriptor.digest)
                layers.append(await self._pool.layer(part))
            merged = self._chains[number] = chain.Chain(layers)
        return merged

    @staticmethod
    def _chain_stat(merged: chain.Chain, number: int, serial: int) -> Stat:
        layer, inode = merged.locate(serial)
        return layer_stat(chain_node(number, serial), layer.index.attributes(inode))

    def _image(self, number: int) -> Image:
        image = self._ledger.image_by_number(number)
        if image is None:
            raise NoSuchNodeError(f"no image has the number {number}")
        return image

    def _link(self, number: int) -> Link:
        link = self._ledger.link_by_number(number)
        if link is None:
            raise NoSuchNodeError(f"no layer has the number {number}")
        return link


_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
_DOCUMENTS = ((b"manifest", Kind.MANIFEST), (b"config", Kind.CONFIG))
_LINK_FILES = ((b"layer", Kind.LAYER_NAME), (b"info", Kind.INFO), (b"blob", Kind.BLOB))


def _own(node: StoreNode | LayerNode) -> StoreNode:
    """A node of the store's own tree."""
    if isinstance(node, LayerNode):
        raise NoSuchNodeError(f"layer {node.number}: its entries are the lane's")
    return node


def _parse_digest(name: bytes) -> Digest:
    try:
        return Digest.parse(name.decode("ascii", "replace"))
    except InvalidDigestError as error:
        raise NoSuchNodeError(str(error)) from None


def _checked(layer: Layer, inode: int) -> int:
    if not 0 <= inode < layer.index.inode_count:
        raise NoSuchNodeError(f"layer {layer.key.layer_digest}: no entry {inode}")
    return inode
