"""What is counted, for OpenMetrics and for ``registry-storagectl top``: one place for every name and label.

Cardinality is bounded: operations are a fixed set, and only so many hosts have a label of their own.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import nlargest
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

MAX_HOSTS = 32
OTHER_HOSTS = "other"
_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
_REMEMBERED_SECONDS = 600.0
_REMEMBERED_READS = 512

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)

OPERATIONS = Histogram(
    "registry_storage_operation_seconds",
    "FUSE requests that Python answered or made answerable: how long they took.",
    ["operation"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
OPERATION_ERRORS = Counter(
    "registry_storage_operation_errors", "FUSE requests that failed.", ["operation"], registry=REGISTRY
)
REGISTRY_REQUESTS = Counter(
    "registry_storage_registry_requests",
    "HTTP requests to registries, their token servers and storage hosts, by status; 0 is no answer.",
    ["host", "code"],
    registry=REGISTRY,
)
FIRST_BYTE = Histogram(
    "registry_storage_first_byte_seconds",
    "From a sent HTTP request to the headers of its answer.",
    ["host"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
NETWORK_BYTES = Counter(
    "registry_storage_network_bytes", "Bytes of HTTP bodies received.", ["host"], registry=REGISTRY
)
RETRIES = Counter(
    "registry_storage_retries",
    "Attempts that failed and were repeated, by status; 0 is no answer or a broken one.",
    ["host", "code"],
    registry=REGISTRY,
)
REFUSED_CHUNKS = Counter(
    "registry_storage_refused_chunks",
    "Chunks that were fetched and not kept: a wrong digest, or bytes that do not decode.",
    registry=REGISTRY,
)
DAMAGED_CHUNKS = Counter(
    "registry_storage_damaged_chunks", "Chunks on disk whose digest was no longer right.", registry=REGISTRY
)



def begin() -> None:
    """Whoever was loaded earlier serves from now on: so long have the counters counted."""
    for counter in (REFUSED_CHUNKS, DAMAGED_CHUNKS):  # those with labels begin when they are first needed
        counter.reset()


_hosts: set[str] = set()


def host_label(host: str) -> str:
    """`host`, or one label for all that came after the first 32."""
    if host in _hosts:
        return host
    if len(_hosts) >= MAX_HOSTS:
        return OTHER_HOSTS
    _hosts.add(host)
    return host


def count_reply(host: str, status: int, first_byte_seconds: float) -> None:
    """An answer came."""
    label = host_label(host)
    REGISTRY_REQUESTS.labels(label, str(status)).inc()
    FIRST_BYTE.labels(label).observe(first_byte_seconds)


def count_no_reply(host: str) -> None:
    """None came."""
    REGISTRY_REQUESTS.labels(host_label(host), "0").inc()


def count_retry(host: str, status: int) -> None:
    """An attempt failed, and there will be another."""
    RETRIES.labels(host_label(host), str(status)).inc()


def count_bytes(host: str, size: int) -> None:
    """`size` bytes of a body arrived."""
    NETWORK_BYTES.labels(host_label(host)).inc(size)


@contextmanager
def timed(operation: str) -> Iterator[None]:
    """Around the work for one FUSE request."""
    started = time.monotonic()
    try:
        yield
    finally:
        OPERATIONS.labels(operation).observe(time.monotonic() - started)


def count_error(operation: str) -> None:
    """It failed; that a name does not exist is no failure."""
    OPERATION_ERRORS.labels(operation).inc()


class SlowRead(NamedTuple):
    """A read that had to wait for bytes."""

    seconds: float
    at: float
    """time.monotonic() when it was over."""
    path: str
    layer: str


_slow: list[SlowRead] = []


def remember_read(seconds: float, path: str, layer: str) -> None:
    """A read waited for so long."""
    _slow.append(SlowRead(seconds, time.monotonic(), path, layer))
    if len(_slow) > _REMEMBERED_READS:
        _slow[:] = nlargest(_REMEMBERED_READS // 2, _recent())


class SlowFile(NamedTuple):
    """A file whose reads had to wait."""

    seconds: float
    """The longest of its waits."""
    waits: int
    path: str
    layer: str


def slowest_files(count: int) -> list[SlowFile]:
    """Of the last ten minutes, the longest wait first."""
    files: dict[tuple[str, str], SlowFile] = {}
    for read in _recent():
        before = files.get((read.layer, read.path), SlowFile(0.0, 0, read.path, read.layer))
        longest = max(before.seconds, read.seconds)
        files[read.layer, read.path] = before._replace(seconds=longest, waits=before.waits + 1)
    return nlargest(count, files.values())


def _recent() -> list[SlowRead]:
    now = time.monotonic()
    return [one for one in _slow if now - one.at <= _REMEMBERED_SECONDS]
