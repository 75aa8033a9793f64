"""Progress for people: bars on a terminal, plain lines elsewhere; all of it on standard error."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..logs import printable

if TYPE_CHECKING:
    from ..convert.report import Reporter


class Lines:
    """A line for everything that has happened."""

    def message(self, text: str) -> None:
        """See Reporter."""
        sys.stderr.write(printable(text) + "\n")

    def step(self, layer: str, stage: str, total: int) -> Callable[[int], None]:
        """See Reporter; only the end of a layer is worth a line."""
        return lambda _: None

    def done(self, layer: str, outcome: str) -> None:
        """See Reporter."""
        self.message(f"layer {layer}: {outcome}")


@contextlib.contextmanager
def reporter(*, bars: bool | None = None) -> "Iterator[Reporter]":
    """What suits standard error, or `bars` or not."""
    if not (sys.stderr.isatty() if bars is None else bars):
        yield Lines()
        return
    from .bars import shown  # it takes a while, and few commands are watched

    with shown() as one:
        yield one
