"""Which layers a podman on this host builds upon: what its own storage refers to."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import CacheError


def referenced_layers(roots: Iterable[Path]) -> set[str]:
    """Ids of parents and images' layers in graph roots and run roots (a root that is not there refers to none).

    Raises CacheError for a file that cannot be understood: what is referred to is then not known.
    """
    found: set[str] = set()
    for root in roots:
        for name in ("layers.json", "volatile-layers.json"):
            for layer in _records(root / "overlay-layers" / name):
                found |= _strings(layer.get("parent"))
        for name in ("images.json", "volatile-images.json"):
            for image in _records(root / "overlay-images" / name):
                found |= _strings(image.get("layer"), *(image.get("mapped-layers") or ()))
    return found


def _strings(*values: object) -> set[str]:
    return {value for value in values if isinstance(value, str) and value}


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        document = json.loads(path.read_bytes() or b"[]")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise CacheError(f"{path}: {error}") from None
    if document is None:
        return []
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise CacheError(f"{path}: wanted an array of objects")
    return document
