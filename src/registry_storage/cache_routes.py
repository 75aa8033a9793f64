"""What ``registry-storagectl cache`` asks for."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from .cache.eviction import REFERENCED, UNREFERENCED, Eviction
from .cache.ledger import Ledger
from .control.routes import Json, Request, Routes
from .errors import InvalidInputError, NotFoundError, RegistryStorageError
from .layer.collection import Collection
from .layer.pool import Pool
from .layer.verifying import verify


class CacheRoutes:
    """The handlers."""

    def __init__(self, ledger: Ledger, pool: Pool, eviction: Eviction, collection: Collection) -> None:
        self._ledger = ledger
        self._pool = pool
        self._eviction = eviction
        self._collection = collection

    def add_routes(self, routes: Routes) -> None:
        """Register them."""
        routes.add("GET", "/v1/cache", self.show)
        routes.add("POST", "/v1/cache/prune", self.prune)
        routes.add("POST", "/v1/cache/pin", self.pin)
        routes.add("POST", "/v1/cache/unpin", self.unpin)
        routes.add("POST", "/v1/cache/verify", self.verify)

    async def show(self, request: Request) -> Json:
        """Limits and use in bytes; which images are pinned."""
        return {
            "size_bytes": self._eviction.budget.size,
            "keep_free_bytes": self._eviction.budget.keep_free,
            "used_bytes": self._eviction.used_bytes,
            "evicted_bytes": self._eviction.evicted_bytes,
            "pinned": [image.reference for image in self._ledger.images() if image.pinned],
        }

    async def prune(self, request: Request) -> Json:
        """Drop what no image uses; with ``{"all": true}`` also the contents of what is used and not pinned."""
        everything = (request.body or {}).get("all", False)
        if not isinstance(everything, bool):
            raise InvalidInputError(f"all: wanted true or false, got {everything!r}")
        collected = await self._collection.run(0.0)
        freed = await self._eviction.prune(REFERENCED if everything else UNREFERENCED)
        return {"freed_bytes": collected.freed_bytes + freed}

    async def pin(self, request: Request) -> Json:
        """``{"reference": …}``: its contents stay, however full the cache is."""
        return self._pin(request.body, pinned=True)

    async def unpin(self, request: Request) -> Json:
        """The opposite."""
        return self._pin(request.body, pinned=False)

    async def verify(self, request: Request) -> AsyncGenerator[Json, None]:
        """Hash everything on disk again; a line for each step: layer, chunks, bytes, damaged; ``done`` in the last."""
        return self._verify()

    def _pin(self, body: Json, *, pinned: bool) -> Json:
        reference = (body or {}).get("reference")
        if not isinstance(reference, str):
            raise InvalidInputError(f"reference: wanted a string, got {reference!r}")
        if not self._ledger.pin(reference, pinned=pinned):
            raise NotFoundError(f"{reference}: no such image here")
        return {"reference": reference, "pinned": pinned}

    async def _verify(self) -> AsyncGenerator[Json, None]:
        done = set()
        for link in self._ledger.links():
            try:
                layer = await self._pool.layer(link)
            except (RegistryStorageError, OSError) as error:
                yield {"layer": str(link.layer_digest), "problem": str(error)}
                continue
            if layer.key in done:
                continue
            done.add(layer.key)
            line: dict[str, Json] = {}
            async with aclosing(verify(layer)) as steps:
                async for step in steps:
                    line = {"layer": str(link.layer_digest), "chunks": step.chunks, "bytes": step.size,
                            "damaged": step.damaged}  # fmt: skip
                    yield line
            yield {**line, "done": True}
