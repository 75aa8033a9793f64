"""What the running daemon lets people see besides its status: gauges for metrics, and ``GET /v1/activity``."""

from typing import Any

from prometheus_client import CollectorRegistry

from . import metrics
from .cache.eviction import Eviction
from .control.routes import Json, Request
from .layer.pool import Pool
from .registry.client import RegistryClient
from .registry.hosts import LinkEstimate
from .store.lane import Lane

_SLOWEST = 20


class Sight:
    """Asks those who know; used from the event loop."""

    def __init__(self, lane: Lane, pool: Pool, eviction: Eviction, registry: RegistryClient) -> None:
        self._lane = lane
        self._pool = pool
        self._registry = registry
        self._eviction = eviction

    def gauges(self) -> dict[str, tuple[str, float]]:
        """For `exposition.Gauges`: name to (help, value)."""
        lane, memory, eviction = self._lane.counts(), self._pool.memory, self._eviction
        open_layers = self._pool.open_layers()
        return {
            "registry_storage_lane_answered_total": ("FUSE requests answered without Python.", lane["answered"]),
            "registry_storage_lane_forwarded_total": ("FUSE requests of the store's own tree.", lane["forwarded"]),
            "registry_storage_lane_parked_total": ("FUSE requests that had to wait for something.", lane["parked"]),
            "registry_storage_lane_blocked_total": ("Reads that had to wait for the disk.", lane["blocked"]),
            "registry_storage_read_bytes_total": ("Bytes of files given to readers.", lane["read_bytes"]),
            "registry_storage_cache_bytes": ("On disk: contents of layers, and blobs.", eviction.used_bytes),
            "registry_storage_cache_budget_bytes": ("What that may grow to.", eviction.budget.size),
            "registry_storage_evictions_total": (
                "What the cache let go, one by one: up to eight chunks, a layer's content, a blob.",
                eviction.evictions,
            ),
            "registry_storage_evicted_bytes_total": ("Bytes on disk that were freed so.", eviction.evicted_bytes),
            "registry_storage_fetch_memory_bytes": ("Held by what is being fetched and decoded.", memory.in_use),
            "registry_storage_fetches_waiting": ("Fetches that wait for memory.", memory.waiting),
            "registry_storage_open_layers": ("Layers that can be read now.", len(open_layers)),
            "registry_storage_present_chunks": (
                "Chunks of open layers that are on disk.",
                sum(layer.content.present_count() for layer in open_layers),
            ),
            "registry_storage_chunks": (
                "Chunks of open layers.",
                sum(layer.content.chunk_count for layer in open_layers),
            ),
        }

    async def answer(self, request: Request) -> Json:
        """One document, whose counts are since the daemon's start.

            lane               answered, forwarded, parked, blocked, read_bytes
            memory             in_use_bytes, waiting
            resident_bytes
            hosts              name: requests {status: count}, retries {status: count}, bytes, link
              link             round_trip_seconds, and bytes_per_second of one connection; null before it was measured
            refused_chunks, damaged_chunks
            slowest_files[]    seconds (the longest wait), waits, path, layer; of the last ten minutes
        """
        return {
            "lane": self._lane.counts(),
            "memory": {"in_use_bytes": self._pool.memory.in_use, "waiting": self._pool.memory.waiting},
            "resident_bytes": _value(metrics.REGISTRY, "process_resident_memory_bytes"),
            "hosts": self._hosts(),
            "refused_chunks": _value(metrics.REGISTRY, "registry_storage_refused_chunks_total"),
            "damaged_chunks": _value(metrics.REGISTRY, "registry_storage_damaged_chunks_total"),
            "slowest_files": [one._asdict() for one in metrics.slowest_files(_SLOWEST)],
        }

    def _hosts(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        families = (
            (metrics.REGISTRY_REQUESTS, "requests"), (metrics.RETRIES, "retries"), (metrics.NETWORK_BYTES, "bytes")
        )  # fmt: skip
        links = self._registry.links()
        for family, key in families:
            for metric in family.collect():
                for sample in metric.samples:
                    if not sample.name.endswith("_total"):
                        continue
                    name = sample.labels["host"]
                    host = found.get(name)
                    if host is None:
                        host = found[name] = {"requests": {}, "retries": {}, "bytes": 0, "link": _link(links.get(name))}
                    if key == "bytes":
                        host["bytes"] = int(sample.value)
                    else:
                        host[key][sample.labels["code"]] = int(sample.value)
        return found


def _link(link: LinkEstimate | None) -> dict[str, float | None] | None:
    if link is None:
        return None
    speed = link.bytes_per_second if link.bodies_measured else None
    return {"round_trip_seconds": link.round_trip_seconds, "bytes_per_second": speed}


def _value(registry: CollectorRegistry, name: str) -> int:
    return int(registry.get_sample_value(name) or 0)
