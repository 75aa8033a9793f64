"""Keeps the root directory right and small: repair at start, a guard all the time, collection every hour."""

import logging
from collections.abc import Callable
from pathlib import Path

import trio

from .cache.documents import Documents
from .cache.eviction import Eviction
from .cache.ledger import UNSEEN, Ledger
from .cache.root import Root
from .cache_routes import CacheRoutes
from .clock import earliest_time, steady_time
from .config import Settings
from .control.routes import Json, Request, Routes
from .errors import InvalidInputError, RegistryStorageError
from .layer.collection import Collection
from .layer.guard import Guard
from .layer.pool import Pool
from .layer.repair import Repair
from .layer.shelves import Blobs, ClosedLayers, OpenLayers, Ranks
from .layer.whole_blob import WholeBlobs
from .podman.graph_roots import configured_graph_roots

_log = logging.getLogger(__name__)

COLLECT_SECONDS = 3600.0


class Upkeep:
    """Wires what looks after the files."""

    def __init__(
        self, settings: Settings, root: Root, ledger: Ledger, pool: Pool, blobs: WholeBlobs, eviction: Eviction
    ) -> None:
        documents = Documents(root.documents)
        self._own_roots = [Path(path) for path in settings.graph_roots.split(":") if path]
        self._root = root
        self._ledger = ledger
        self._pool = pool
        self._blobs = blobs
        self._unused_seconds = settings.keep_unused_hours * 3600
        self._eviction = eviction
        ranks = Ranks(ledger)
        self._closed = ClosedLayers(root, pool.open_layers, ranks)
        for source in (Blobs(root, blobs), self._closed, OpenLayers(pool.open_layers, ranks)):
            eviction.add(source)
        self._repair = Repair(ledger, documents, self._own_roots, steady_time)
        self._collection = Collection(root, ledger, documents, pool, blobs, self._repair, steady_time, earliest_time)

    def graph_roots(self) -> set[Path]:
        """Where podmans of this host keep their images, as far as is known; from any thread."""
        known = {Path(path) for path in self._ledger.graph_roots if path != UNSEEN}
        return known | configured_graph_roots() | {*self._own_roots}

    def add_routes(self, routes: Routes) -> None:
        """What can be asked for."""
        routes.add("POST", "/v1/repair", self._answer_repair)
        routes.add("POST", "/v1/collect", self._answer_collect)
        CacheRoutes(self._ledger, self._pool, self._eviction, self._collection).add_routes(routes)

    async def run(self, *checks: Callable[[], None]) -> None:
        """Until cancelled; `checks` belong to each of the guard's rounds."""
        await trio.to_thread.run_sync(self._closed.measure)
        guarded = [self._blobs.check, self._pool.loose.expire, *checks]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Guard(self._root, self._ledger, self._pool, guarded).run)
            nursery.start_soon(self._eviction.run)
            nursery.start_soon(self._collect_regularly)

    async def _collect_regularly(self) -> None:
        await self._in_peace(self._repair.run)
        while True:
            await trio.sleep(COLLECT_SECONDS)
            await self._in_peace(lambda: self._collection.run(self._unused_seconds))

    @staticmethod
    async def _in_peace(work: Callable[[], object]) -> None:
        try:
            await work()  # type: ignore[misc]  # whatever it returns
        except (RegistryStorageError, OSError) as error:
            _log.warning("upkeep: %s", error)

    async def _answer_repair(self, request: Request) -> Json:
        """``{"nobody_pulls": true}``: lower also what a pull may have announced a moment ago."""
        report = await self._repair.run(nobody_pulls=_flag(request.body, "nobody_pulls"))
        return report.as_json()

    async def _answer_collect(self, request: Request) -> Json:
        """``{"unused_seconds": n}``: drop what nobody has used for so long; the setting when left out."""
        seconds = (request.body or {}).get("unused_seconds", self._unused_seconds)
        if not isinstance(seconds, int | float) or seconds < 0:
            raise InvalidInputError(f"unused_seconds: wanted a number from 0, got {seconds!r}")
        return (await self._collection.run(seconds)).as_json()


def _flag(body: Json, name: str) -> bool:
    value = (body or {}).get(name, False)
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name}: wanted true or false, got {value!r}")
    return value
