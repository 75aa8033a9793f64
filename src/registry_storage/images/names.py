"""How containers-storage names layers, links and big data."""

import base64
import hashlib
import re

from ..digest import Digest

_PLAIN_KEY = re.compile(r"[a-z0-9.]+", re.ASCII)
_LINK_LENGTH = 26
MANIFEST_KEY = "manifest"


def layer_id(parent: str | None, diff_id: Digest) -> str:
    """The id that podman gives a layer when it pulls it, so that it knows ours as the same."""
    if parent is None:
        return diff_id.hex
    return hashlib.sha256(f"{parent}+{diff_id.hex}".encode()).hexdigest()


def link_name(layer: str) -> str:
    """The short name below ``overlay/l``: unique across stores, and the same whenever the layer is written."""
    digest = hashlib.sha256(f"registry-storage link {layer}".encode()).digest()
    return base64.b32encode(digest).decode("ascii")[:_LINK_LENGTH]


def big_data_file(key: str) -> str:
    """The file that holds an image's big data (containers/storage, makeBigDataBaseName)."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    return "=" + base64.b64encode(key.encode()).decode("ascii")


def manifest_key(digest: Digest) -> str:
    """The key under which one of an image's manifests is kept."""
    return f"manifest-{digest}"
