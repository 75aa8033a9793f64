"""Node numbers say what they name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_storage.store.inodes import (
    ROOT,
    ChainNode,
    Kind,
    LayerNode,
    StoreNode,
    chain_node,
    layer_node,
    parse_node,
    store_node,
)

numbers = st.integers(1, (1 << 28) - 1)
inodes = st.integers(0, (1 << 32) - 2)


@given(st.sampled_from([kind for kind in Kind if kind is not Kind.ROOT]), numbers)
def test_a_store_node_is_read_back(kind: Kind, number: int) -> None:
    assert parse_node(store_node(kind, number)) == StoreNode(kind, number)


@given(numbers, inodes)
def test_a_layer_node_is_read_back(number: int, inode: int) -> None:
    assert parse_node(layer_node(number, inode)) == LayerNode(number, inode)


@given(numbers, inodes)
def test_a_chain_node_is_read_back(number: int, inode: int) -> None:
    assert parse_node(chain_node(number, inode)) == ChainNode(number, inode)


def test_the_root_is_the_kernels_root() -> None:
    assert parse_node(ROOT) == StoreNode(Kind.ROOT, 0)


def test_a_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError, match="does not fit"):
        store_node(Kind.LINK, 1 << 28)


def test_a_number_that_was_never_given_is_refused() -> None:
    with pytest.raises(ValueError, match="10 is not a valid Kind"):
        parse_node(10 << 28)
