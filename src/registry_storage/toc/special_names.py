"""Names in a layer that mean something to the formats (estargz.md; OCI layer.md, "Whiteouts")."""

from typing import Final

PREFETCH_LANDMARK: Final = b".prefetch.landmark"
"""At the root: everything before it in the blob is prioritized."""
NO_PREFETCH_LANDMARK: Final = b".no.prefetch.landmark"
"""At the root: nothing is prioritized."""
TOC_NAME: Final = b"stargz.index.json"
"""At the root: the TOC itself, as eStargz stores it in the tar."""
HIDDEN_AT_ROOT: Final = frozenset({PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK, TOC_NAME})
"""Never shown in the root directory, nor anything below them."""
LANDMARK_CONTENT: Final = b"\x0f"
"""The one byte that either landmark holds."""
