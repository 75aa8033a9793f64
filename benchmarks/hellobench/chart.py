"""The chart of a run, as SVG: for each link a panel, for each image a group of bars, one for each mode."""

from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.hellobench import report
from benchmarks.hellobench.plan import MODES, SPEEDS
from benchmarks.hellobench.report import Cell, Results, Table

_COLOURS = {
    "gzip": "#9aa0a6",
    "partial": "#c9b28f",
    "estargz": "#7fb3d8",
    "zstd": "#3b82c4",
    "estargz-optimized": "#7cc49a",
    "zstd-optimized": "#2e9e63",
    "added-estargz": "#e3b37a",
    "added-zstd": "#c9822e",
    "added-zstd-optimized": "#8f5a1b",
}
_PHASES = (("pull_seconds", 1.0), ("create_seconds", 0.75), ("run_seconds", 0.5))
"""Stacked from the bottom, with their opacities."""
_WIDTH, _PANEL_HEIGHT, _MARGIN = 960, 260, 48
_TEXT = 'font-family="sans-serif" fill="#333"'


def draw(results: Results) -> str:
    """The whole document."""
    table = report.tabulate(results.samples)
    links = report.links_in(table)
    height = len(links) * _PANEL_HEIGHT + 70
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        *_legend(report.modes_in(table)),
    ]
    for number, link in enumerate(links):
        lines += _panel(table, link, 34 + number * _PANEL_HEIGHT)
    about, counts = results.about, [cell.count for cell in table.values()]
    samples = "medians of " + (f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}")
    if max(counts) == 1:
        samples = "one sample of each"
    footer = (
        f"Seconds from nothing until ready: pull (dark), create, run (light); {samples}.",
        f"{about['machine']}; {about['date']}.",
    )
    lines += [_words(_MARGIN, height - 26 + 15 * number, 11, text) for number, text in enumerate(footer)]
    return "\n".join([*lines, "</svg>\n"])


def _legend(modes: Sequence[str]) -> Iterator[str]:
    x = float(_MARGIN)
    for mode in modes:
        yield _bar(x, 10, 12, 12, _COLOURS[mode], 1)
        yield _words(x + 17, 20, 12, MODES[mode].title)
        x += 30 + 6.6 * len(MODES[mode].title)


def _panel(table: Table, link: str, top: float) -> Iterator[str]:
    images, modes = report.images_in(table), report.modes_in(table)
    known = [cell for key, cell in table.items() if key[0] == link]
    highest = max(cell.pull_seconds + cell.create_seconds + cell.run_seconds for cell in known)
    bottom, scale = top + _PANEL_HEIGHT - 40, (_PANEL_HEIGHT - 90) / highest
    yield _words(_MARGIN, top + 24, 14, SPEEDS[link].title, weight="bold")
    step = _step(highest)
    for mark in range(1, int(highest / step) + 1):
        y = bottom - mark * step * scale
        yield f'<line x1="{_MARGIN}" x2="{_WIDTH - 16}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>'
        yield _words(_MARGIN - 6, y + 4, 11, f"{mark * step:g} s", anchor="end")
    group = (_WIDTH - _MARGIN - 16) / len(images)
    width = group * 0.84 / len(modes)
    for position, image in enumerate(images):
        left = _MARGIN + group * position + group * 0.08
        yield _words(left + group * 0.42, bottom + 18, 13, image, anchor="middle")
        for number, mode in enumerate(modes):
            if cell := table.get((link, image, mode)):
                yield from _stack(cell, left + number * width, bottom, width - 2, scale, _COLOURS[mode])
    yield f'<line x1="{_MARGIN}" x2="{_WIDTH - 16}" y1="{bottom}" y2="{bottom}" stroke="#888"/>'


def _stack(cell: Cell, x: float, bottom: float, width: float, scale: float, colour: str) -> Iterator[str]:
    y = bottom
    for name, opacity in _PHASES:
        height = getattr(cell, name) * scale
        y -= height
        yield _bar(x, y, width, height, colour, opacity)
    yield _words(x + width / 2, y - 3, 10, f"{cell.seconds:.1f}", anchor="middle")


def _step(highest: float) -> float:
    """Of the lines that help the eye: about five of them."""
    return next((step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10) if highest / step <= 6), 20)


def _bar(x: float, y: float, width: float, height: float, colour: str, opacity: float) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{colour}" fill-opacity="{opacity}"/>'


def _words(x: float, y: float, size: int, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    style = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" {_TEXT}'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
