"""What a conversion tells whoever watches it."""

from collections.abc import Callable
from typing import Protocol


class Reporter(Protocol):
    """Called from any thread."""

    def message(self, text: str) -> None:
        """Something that the user should know."""

    def step(self, layer: str, stage: str, total: int) -> Callable[[int], None]:
        """A layer enters a stage (``fetch``, ``convert``, ``verify``, ``push``) of `total` bytes.

        What is returned takes the bytes done so far.
        """

    def done(self, layer: str, outcome: str) -> None:
        """A layer is where it should be."""
