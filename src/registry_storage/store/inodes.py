"""Node numbers: what they name can be told from the number alone, so nothing is lost with a process.

    bits 63…32   layer number (0: the store's own tree; highest bit set: a chain)
    bits 31…0    in a layer: index of the entry + 1; in a chain: see chain.py;
                 in the store's own tree: kind (4 bits), number of the image or link (28 bits)
"""

import enum
from typing import NamedTuple

ROOT = 1
_LOW = (1 << 32) - 1
_CHAIN = 1 << 31
_ID_BITS = 28
_ID = (1 << _ID_BITS) - 1


class Kind(enum.IntEnum):
    """What a node of the store's own tree is."""

    ROOT = 0
    IMAGE = 1
    """``<base64 of the reference>/``"""
    MANIFEST = 2
    CONFIG = 3
    LINK = 4
    """``<base64 of the reference>/<digest>/``"""
    LAYER_NAME = 5
    """``layer``, a symbolic link to ``diff``."""
    INFO = 6
    BLOB = 7
    STATE = 8
    """``diff/.registry-storage/``, which no listing shows."""
    STATE_DOCUMENT = 9
    """``diff/.registry-storage/<layer digest>.json``"""


class StoreNode(NamedTuple):
    """A node of the store's own tree."""

    kind: Kind
    number: int
    """Of the image (IMAGE, MANIFEST, CONFIG) or of the link (the others); 0 for the root."""


class LayerNode(NamedTuple):
    """An entry of a layer."""

    number: int
    inode: int


class ChainNode(NamedTuple):
    """An entry of the merged tree up to a layer."""

    number: int
    serial: int


Node = StoreNode | LayerNode | ChainNode


def store_node(kind: Kind, number: int) -> int:
    """The node number; `number` below 2^28 (checked)."""
    if not 0 < number <= _ID:
        raise OverflowError(f"{kind.name} number {number} does not fit into {_ID_BITS} bits")
    return kind << _ID_BITS | number


def layer_node(number: int, inode: int) -> int:
    """The node number of an entry of a layer."""
    return number << 32 | (inode + 1)


def chain_node(number: int, serial: int) -> int:
    """The node number of an entry of a chain."""
    return (_CHAIN | number) << 32 | (serial + 1)


def parse_node(node: int) -> Node:
    """What a node number names. Raises ValueError for one that we never give."""
    high, low = node >> 32, node & _LOW
    if high & _CHAIN:
        return ChainNode(high ^ _CHAIN, low - 1)
    if high:
        return LayerNode(high, low - 1)
    if low == ROOT:
        return StoreNode(Kind.ROOT, 0)
    return StoreNode(Kind(low >> _ID_BITS), low & _ID)
