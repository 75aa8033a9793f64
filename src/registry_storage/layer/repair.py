"""Makes the ledger agree with podman's own records, after a crash of either."""

import logging
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from ..cache.documents import Documents
from ..cache.ledger import UNSEEN, Ledger
from ..descriptor import Manifest
from ..errors import FormatError, InvalidInputError
from ..podman.graph_roots import UsedLayer, configured_graph_roots, used_layers
from ..reference import Reference
from .image import ResolvedImage

_log = logging.getLogger(__name__)

UNDER_WAY_SECONDS = 600.0
"""For so long after the last change a count is not lowered: a pull announces its uses before it records them."""


@dataclass(slots=True)
class Report:
    """What was found, and what was done."""

    graph_roots: list[str]
    used_layers: int = 0
    """Different layers of ours in all graph roots."""
    raised: int = 0
    lowered: int = 0
    restored: int = 0
    """Layers that the ledger did not know any more."""
    unknown: int = 0
    """Layers that no manifest on disk names: they come back when the registry is asked for them."""
    deferred: int = 0
    """Counts that are too high, but perhaps of a pull that is under way, or of a graph root that cannot be seen."""

    @property
    def changed(self) -> bool:
        """Whether anything was wrong."""
        return bool(self.raised or self.lowered or self.restored)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


class Repair:
    """Used by the event loop's thread; `now` yields seconds since 1970."""

    def __init__(
        self, ledger: Ledger, documents: Documents, own_roots: Collection[Path], now: Callable[[], float]
    ) -> None:
        """`own_roots`: graph roots that are known from settings."""
        self._ledger = ledger
        self._documents = documents
        self._own_roots = own_roots
        self._now = now

    async def used(self) -> tuple[list[Path], Counter[UsedLayer]]:
        """The graph roots that are there, and how often each layer of ours is used in them."""
        known = {Path(path) for path in self._ledger.graph_roots if path != UNSEEN}

        def look() -> tuple[list[Path], Counter[UsedLayer]]:
            roots = sorted(path for path in known | configured_graph_roots() | {*self._own_roots} if path.is_dir())
            return roots, used_layers(roots)

        return await trio.to_thread.run_sync(look)

    async def run(self, *, nobody_pulls: bool = False) -> Report:
        """Repair everything. `nobody_pulls`: somebody vouches that no pull is under way anywhere."""
        before = {link.number: link.uses for link in self._ledger.links()}
        roots, used = await self.used()
        report = Report([str(root) for root in roots], used_layers=len(used))
        await self._restore([layer for layer in used if self._ledger.link(*layer) is None], report)
        all_seen = UNSEEN not in self._ledger.graph_roots
        for link in self._ledger.links():
            count = used[UsedLayer(link.reference, link.name_digest)]
            if link.uses != before.get(link.number, link.uses):
                report.deferred += link.uses > count
            elif count > link.uses:
                self._ledger.set_uses(link.number, count)
                report.raised += 1
            elif count < link.uses:
                if nobody_pulls or (all_seen and self._now() - link.changed >= UNDER_WAY_SECONDS):
                    self._ledger.set_uses(link.number, count)
                    report.lowered += 1
                else:
                    report.deferred += 1
        if report.changed:
            _log.info("references repaired from podman's graph roots", extra=report.as_json())
        return report

    async def _restore(self, missing: list[UsedLayer], report: Report) -> None:
        """Link layers again that podman has and the ledger has lost, by the manifests on disk."""
        if not missing:
            return
        manifests = await trio.to_thread.run_sync(self._manifests)
        for layer in missing:
            for image in manifests:
                try:
                    found = image.find(layer.name_digest)
                except FormatError:
                    continue
                if found is not None:
                    _, descriptor, lazy = found
                    if self._ledger.image(layer.reference) is None:
                        self._ledger.put_image(layer.reference, image.manifest_digest)
                    self._ledger.put_link(*layer, image.manifest_digest, descriptor.digest, lazy.toc_digest)
                    report.restored += 1
                    break
            else:
                report.unknown += 1

    def _manifests(self) -> list[ResolvedImage]:
        """All on disk, newest first; the reference is not theirs."""
        found = []
        for digest in self._documents.digests():
            data = self._documents.load(digest)
            try:
                manifest = Manifest.parse(data or b"", f"document {digest}")
            except InvalidInputError:  # a config
                continue
            found.append(ResolvedImage(_NOBODY, digest, manifest))
        return found


_NOBODY = Reference.parse("localhost/unknown:unknown")
