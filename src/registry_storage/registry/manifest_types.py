"""The media types of manifests: which are asked for, and which one it is that came."""

import json

from ..descriptor import INDEXES, MANIFESTS, OCI_INDEX, OCI_MANIFEST

ACCEPT = ", ".join(sorted(MANIFESTS | INDEXES))
"""For the header of that name."""


def media_type_of(content_type: str, data: bytes) -> str:
    """The media type of a manifest: its own word, which its digest covers, before the header's."""
    header = content_type.partition(";")[0].strip().lower()
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return header
    if not isinstance(document, dict):
        return header
    own = document.get("mediaType")
    if isinstance(own, str) and own in MANIFESTS | INDEXES:
        return own
    if header in MANIFESTS | INDEXES:
        return header
    if isinstance(own, str) and own:
        return own
    if "manifests" in document:  # OCI documents need not name their type
        return OCI_INDEX
    return OCI_MANIFEST if "layers" in document else header
