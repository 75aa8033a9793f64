"""Progress on a terminal."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ..logs import printable


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
def shown() -> Iterator[Bars]:
    """Until the end of the `with`."""
    columns = (
        TextColumn("{task.description}"),
        TextColumn("{task.fields[stage]:<8}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bars(progress)
