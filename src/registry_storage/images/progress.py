"""How far an image is, for whoever asks."""

from collections.abc import Callable, Iterator
from typing import Any

from ..digest import Digest


class Progress:
    """Written by the threads that unpack, read by the event loop: plain numbers, each replaced as a whole."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[str, int, int]] = {}
        self._told: dict[str, tuple[str, int, int]] = {}

    def unpacking(self, layer: Digest, size: int) -> Callable[[int], None]:
        """To be called with the bytes of the blob that were taken so far."""
        name = str(layer)

        def taken(count: int) -> None:
            self._layers[name] = ("unpack", count, size)

        taken(0)
        return taken

    def unpacked(self, layer: Digest, size: int) -> None:
        """The layer is here, and its digests matched."""
        self._layers[str(layer)] = ("unpacked", size, size)

    def opened(self, layer: Digest, size: int) -> None:
        """The layer is served lazily."""
        self._layers[str(layer)] = ("lazy", 0, size)

    def kept(self, layer: Digest, size: int) -> None:
        """The layer was here already."""
        self._layers[str(layer)] = ("here", size, size)

    def news(self) -> Iterator[dict[str, Any]]:
        """What has changed since the last call."""
        for layer, state in list(self._layers.items()):
            if self._told.get(layer) != state:
                self._told[layer] = state
                stage, done, total = state
                yield {"layer": layer, "stage": stage, "done": done, "total": total}
