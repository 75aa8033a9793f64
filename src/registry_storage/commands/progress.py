"""Progress for people: bars on a terminal, plain lines elsewhere; all of it on standard error."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ..convert.report import Reporter
from ..logs import printable


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


class Bars:
    """A bar per layer that is being worked on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def message(self, text: str) -> None:
        """See Reporter."""
        self._progress.console.print(printable(text), markup=False, highlight=False)

    def step(self, layer: str, stage: str, total: int) -> Callable[[int], None]:
        """See Reporter."""
        with self._lock:
            task = self._tasks.get(layer)
            if task is None:
                task = self._tasks[layer] = self._progress.add_task(layer, stage=stage, total=total)
            else:
                self._progress.reset(task, stage=stage, total=total)
        return lambda done: self._progress.update(task, completed=done)

    def done(self, layer: str, outcome: str) -> None:
        """See Reporter."""
        with self._lock:
            task = self._tasks.pop(layer, None)
            if task is not None:
                self._progress.remove_task(task)
        self.message(f"layer {layer}: {outcome}")


@contextlib.contextmanager
def reporter(*, bars: bool | None = None) -> Iterator[Reporter]:
    """What suits standard error, or `bars` or not."""
    if not (sys.stderr.isatty() if bars is None else bars):
        yield Lines()
        return
    columns = (
        TextColumn("{task.description}"),
        TextColumn("{task.fields[stage]:<8}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bars(progress)
