"""Results as JSON and as tables: medians, and their share of the full pull in the same run."""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmarks.hellobench.plan import BASE, MODES, SPEEDS
from benchmarks.hellobench.sample import Sample
from lab.workloads import WORKLOADS


@dataclass(slots=True)
class Results:
    """One run."""

    about: Mapping[str, Any]
    needed_bytes: dict[tuple[str, str], int] = field(default_factory=dict)
    """By (image, mode): compressed bytes of the chunks that the workload reads; empty when nobody asked."""
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cell:
    """The medians of all samples of one image, by one mode, over one link."""

    count: int
    seconds: float
    pull_seconds: float
    create_seconds: float
    run_seconds: float
    bytes: float
    requests: float
    store_cpu_seconds: float
    store_peak_bytes: float


Table = Mapping[tuple[str, str, str], Cell]
"""By (link, image, mode)."""


def tabulate(samples: Iterable[Sample]) -> Table:
    groups: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.link, sample.image, sample.mode), []).append(sample)
    names = [item.name for item in fields(Cell) if item.name != "count"]
    return {
        key: Cell(len(group), **{name: statistics.median(getattr(s, name) for s in group) for name in names})
        for key, group in groups.items()
    }


def links_in(table: Table) -> list[str]:
    return [name for name in SPEEDS if any(key[0] == name for key in table)]


def images_in(table: Table) -> list[str]:
    return list(dict.fromkeys(key[1] for key in sorted(table, key=_order)))


def modes_in(table: Table) -> list[str]:
    return [name for name in MODES if any(key[2] == name for key in table)]


def _order(key: tuple[str, str, str]) -> int:
    return list(WORKLOADS).index(key[1])


def share_of_full(table: Table, link: str, image: str, mode: str) -> float | None:
    """Seconds as a share of the full pull's; None where one of both is missing."""
    cell, full = table.get((link, image, mode)), table.get((link, image, BASE))
    return cell.seconds / full.seconds if cell and full else None


def mean_share(table: Table, link: str, mode: str) -> float | None:
    """The geometric mean over the images that both were measured for."""
    shares = [share_of_full(table, link, image, mode) for image in images_in(table)]
    known = [share for share in shares if share is not None]
    return math.exp(statistics.fmean(math.log(share) for share in known)) if known else None


def text(results: Results) -> str:
    """For a terminal: one table of seconds for each link, then what else was measured."""
    table = tabulate(results.samples)
    return "\n".join(line for link in links_in(table) for line in _link_lines(table, link, results.needed_bytes))


def means(results: Results, modes: Sequence[str]) -> str:
    """A table in Markdown: seconds as a share of the full pull's, the geometric mean over the images."""
    table = tabulate(results.samples)
    shown = [mode for mode in modes if mode in modes_in(table)]
    lines = [
        "| from nothing until ready | " + " | ".join(MODES[mode].title for mode in shown) + " |",
        "|---|" + "---|" * len(shown),
    ]
    for link in links_in(table):
        shares = [mean_share(table, link, mode) for mode in shown]
        cells = ["" if share is None else f"{100 * share:.0f} %" for share in shares]
        lines.append(f"| {SPEEDS[link].title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _link_lines(table: Table, link: str, needed_bytes: Mapping[tuple[str, str], int]) -> Iterable[str]:
    images = images_in(table)
    modes = [mode for mode in modes_in(table) if any(key[0] == link and key[2] == mode for key in table)]
    counts = sorted({cell.count for key, cell in table.items() if key[0] == link})
    of = "-".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    yield f"{SPEEDS[link].title}: seconds until ready = pull + create + run (median of {of}); share of the full pull"
    yield f"{'':26}" + "".join(f"{image:>19}" for image in images) + f"{'geometric mean':>16}"
    for mode in modes:
        cells = [_seconds(table, link, image, mode) for image in images]
        mean = mean_share(table, link, mode)
        yield f"{MODES[mode].title:26}" + "".join(f"{cell:>19}" for cell in cells) + _optional(mean, "16.3f")
    yield "   pull + create + run"
    for mode in modes:
        yield _row(table, link, mode, images, _parts)
    yield "   MB over the link / requests"
    for mode in modes:
        yield _row(table, link, mode, images, lambda c: f"{c.bytes / 1e6:.1f} / {c.requests:.0f}")
    if needed_bytes:
        yield "   bytes over the link / compressed bytes of the chunks that the workload reads"
        for mode in modes:
            if MODES[mode].lazy:
                cells = [_ratio(table.get((link, image, mode)), needed_bytes.get((image, mode))) for image in images]
                yield f"{MODES[mode].title:26}" + "".join(f"{cell:>19}" for cell in cells)
    yield "   the daemon: CPU seconds / MB of peak memory"
    for mode in modes:
        if MODES[mode].lazy:
            yield _row(
                table, link, mode, images, lambda c: f"{c.store_cpu_seconds:.2f} / {c.store_peak_bytes / 1e6:.0f}"
            )
    yield ""


def _seconds(table: Table, link: str, image: str, mode: str) -> str:
    cell, share = table.get((link, image, mode)), share_of_full(table, link, image, mode)
    return "" if cell is None else f"{cell.seconds:.2f}" + ("" if share is None else f" ({share:.3f})")


def _row(table: Table, link: str, mode: str, images: Sequence[str], words: Callable[[Cell], str]) -> str:
    cells = [table.get((link, image, mode)) for image in images]
    return f"{MODES[mode].title:26}" + "".join(f"{words(cell) if cell else '':>19}" for cell in cells)


def _parts(cell: Cell) -> str:
    return f"{cell.pull_seconds:.2f}+{cell.create_seconds:.2f}+{cell.run_seconds:.2f}"


def _ratio(cell: Cell | None, needed: int | None) -> str:
    return f"{cell.bytes / needed:.2f} of {needed / 1e6:.1f} MB" if cell and needed else ""


def _optional(number: float | None, form: str) -> str:
    return "" if number is None else format(number, form)


def save(path: Path, results: Results) -> None:
    """Everything that was measured, sample by sample."""
    needed = [[*key, size] for key, size in results.needed_bytes.items()]
    samples = [asdict(sample) for sample in results.samples]
    document = {"about": results.about, "needed_bytes": needed, "samples": samples}
    path.write_text(json.dumps(document, indent=1) + "\n")


def load(path: Path) -> Results:
    document = json.loads(path.read_text())
    needed = {(image, mode): size for image, mode, size in document["needed_bytes"]}
    return Results(document["about"], needed, [Sample(**sample) for sample in document["samples"]])
