"""Layers by number, published by Python's thread while the lane looks them up."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from lane_layer cimport Layer

cdef extern from * nogil:
    """
    #define load_pointer(place) __atomic_load_n((place), __ATOMIC_ACQUIRE)
    #define store_pointer(place, value) __atomic_store_n((place), (value), __ATOMIC_RELEASE)
    """
    Layer **load_leaf "load_pointer"(Layer ***place)
    void store_leaf "store_pointer"(Layer ***place, Layer **value)
    Layer *load_layer "load_pointer"(Layer **place)
    void store_layer "store_pointer"(Layer **place, Layer *value)

cdef enum:
    LEAF_BITS = 12
    LEAF_LAYERS = 1 << 12
    LEAVES = 1 << 19             # layer numbers have 31 bits

cdef struct Table:
    Layer ***leaves              # never moved; pages that no number touches take no memory
    uint32_t used                # leaves from here on are NULL


cdef inline bint make_table(Table *table) noexcept:
    table.leaves = <Layer ***>calloc(LEAVES, sizeof(Layer **))
    return table.leaves != NULL


cdef inline bint publish(Table *table, uint32_t number, Layer *layer) noexcept:
    """`layer` may be NULL, which hides the number. False: no memory."""
    cdef Layer **leaf = table.leaves[number >> LEAF_BITS]
    if leaf == NULL:
        leaf = <Layer **>calloc(LEAF_LAYERS, sizeof(Layer *))
        if leaf == NULL:
            return False
        store_leaf(&table.leaves[number >> LEAF_BITS], leaf)
        table.used = max(table.used, (number >> LEAF_BITS) + 1)
    store_layer(&leaf[number & (LEAF_LAYERS - 1)], layer)
    return True


cdef inline Layer *find_layer(Table *table, uint32_t number) noexcept nogil:
    """The layer, or NULL. `number` is below 2^31."""
    cdef Layer **leaf = load_leaf(&table.leaves[number >> LEAF_BITS])
    return NULL if leaf == NULL else load_layer(&leaf[number & (LEAF_LAYERS - 1)])


cdef inline void free_table(Table *table) noexcept:
    cdef size_t i
    if table.leaves != NULL:
        for i in range(<size_t>table.used):
            free(table.leaves[i])
        free(table.leaves)
