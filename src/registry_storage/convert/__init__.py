"""Layers written, and read without daemon or registry."""

from .blob_reader import Entry, LayerReader, RangeSource
from .checking import Verified
from .layer_writer import WrittenLayer, write_layer
from .options import LayerKind, WriteOptions
from .verification import verify_written

__all__ = [
    "Entry", "LayerKind", "LayerReader", "RangeSource", "Verified", "WriteOptions", "WrittenLayer", "verify_written",
    "write_layer",
]  # fmt: skip
