"""For those who bring a compression of their own: what pytest runs against it."""

from .conformance import Codec, LayerConformance
from .sample_tar import sample_tar

__all__ = ["Codec", "LayerConformance", "sample_tar"]
