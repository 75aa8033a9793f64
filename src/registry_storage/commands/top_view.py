"""The screen of ``top``, from two looks at the daemon."""

from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ..logs import printable
from .status import duration, percent, share

_MOST_COLUMNS = 132
"""Of a table: on a wider screen the eye would lose the row between a name and its numbers."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the daemon said at one moment."""

    at: float
    """Seconds on any steady clock."""
    status: dict[str, Any]
    activity: dict[str, Any]


def screen(before: Look, now: Look, *, width: int, height: int) -> RenderableType:
    """Everything that fits: a summary, hosts, images and the slowest reads."""
    seconds = max(now.at - before.at, 1e-3)
    head = _head(before, now, seconds)
    hosts = _hosts(before, now, seconds, width)
    left = height - len(head) - 2 * 3 - len(hosts.rows) - 1
    most_slow = max(2, left // 3)
    slow = _slow(now, most_slow, width)
    images = _images(now, max(1, left - len(slow.rows)), width)
    return Group(*head, Text(""), hosts, Text(""), images, Text(""), slow)


def _head(before: Look, now: Look, seconds: float) -> list[RenderableType]:
    status, lane, old = now.status, now.activity["lane"], before.activity["lane"]
    answered, parked = lane["answered"] - old["answered"], lane["parked"] - old["parked"]
    hits = percent(1 - min(1.0, parked / answered)) if answered else "-"
    read, fetched = lane["read_bytes"] - old["read_bytes"], _fetched(now) - _fetched(before)
    title = f"registry-storage {status['version']}   up {duration(status['uptime_seconds'])}"
    title += f"   {decimal(now.activity['resident_bytes'])} of memory   {status['mountpoint']}"
    rates = f"requests {answered / seconds:,.0f}/s   answered at once {hits}   read {decimal(int(read / seconds))}/s"
    rates += f"   fetched {decimal(int(fetched / seconds))}/s"
    waiting = now.activity["memory"]
    more = f"since the start: read {decimal(lane['read_bytes'])}, fetched {decimal(_fetched(now))}"
    more += f", fetches hold {decimal(waiting['in_use_bytes'])}, {waiting['waiting']} wait"
    wrong = "".join(
        f", {now.activity[key]} chunks {word}"
        for key, word in (("refused_chunks", "refused"), ("damaged_chunks", "damaged"))
        if now.activity[key]
    )
    lines = [Text(title, "bold", no_wrap=True, overflow="ellipsis"), Text(rates, no_wrap=True, overflow="ellipsis")]
    last = Text(more, no_wrap=True, overflow="ellipsis")
    last.append(wrong, "bold red")
    return [*lines, last]


def _hosts(before: Look, now: Look, seconds: float, width: int) -> Table:
    table = _table(width, "HOST", "REQUESTS", "FAILED", "FETCHED", "NOW", "LINK")
    hosts = sorted(now.activity["hosts"].items(), key=lambda item: -item[1]["bytes"])
    for name, host in hosts[:4]:
        old = before.activity["hosts"].get(name, {"bytes": 0})
        failed = sum(count for code, count in host["requests"].items() if code == "0" or code >= "500")
        rate = decimal(int((host["bytes"] - old["bytes"]) / seconds))
        requests = sum(host["requests"].values())
        fetched, link = decimal(host["bytes"]), _link(host["link"])
        table.add_row(printable(name), f"{requests:,}", f"{failed:,}", fetched, f"{rate}/s", link)
    if not hosts:
        table.add_row("nobody was asked yet", "", "", "", "", "")
    return table


def _link(link: dict[str, float | None] | None) -> str:
    """Speed of one connection, and round trip, as measured."""
    if link is None:
        return "-"
    speed, trip = link["bytes_per_second"], link["round_trip_seconds"] or 0.0
    return f"{trip * 1e3:.1f} ms" if speed is None else f"{decimal(int(speed))}/s {trip * 1e3:.1f} ms"


def _images(now: Look, most: int, width: int) -> Table:
    table = _table(width, "IMAGE", "LAYERS", "USES", "ON DISK", "OF", "SHARE")
    images: dict[str, list[dict[str, Any]]] = {}
    uses: dict[str, int] = {}
    for layer in now.status["layers"]:
        for link in layer["links"]:
            images.setdefault(link["reference"], []).append(layer)
            uses[link["reference"]] = uses.get(link["reference"], 0) + link["uses"]
    order = sorted(images, key=lambda name: (-uses[name], name))
    for name in order[:most]:
        layers = images[name]
        part = share(layers)
        bar = "#" * round(part * 10) if width >= 100 else ""
        table.add_row(
            printable(name),
            str(len(layers)),
            str(uses[name]),
            decimal(sum(layer["disk_bytes"] for layer in layers)),
            decimal(sum(layer["content_bytes"] for layer in layers)),
            f"{bar:<10} {percent(part)}" if bar or width >= 100 else percent(part),
        )
    if len(order) > most:
        table.add_row(f"and {len(order) - most} more", "", "", "", "", "")
    elif not order:
        table.add_row("no image was asked for yet", "", "", "", "", "")
    return table


def _slow(now: Look, most: int, width: int) -> Table:
    table = _table(width, "LONGEST WAITS OF THE LAST MINUTES", "WAITS", "SECONDS")
    for one in now.activity["slowest_files"][:most]:
        table.add_row(printable(one["path"]), f"{one['waits']:,}", f"{one['seconds']:.2f}")
    return table


def _table(width: int, name: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False, width=min(width, _MOST_COLUMNS), header_style="bold cyan")
    table.add_column(name, ratio=1, no_wrap=True, overflow="ellipsis")
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True, overflow="ellipsis")
    return table


def _fetched(look: Look) -> int:
    return sum(host["bytes"] for host in look.activity["hosts"].values())
