"""The ledger: which layers are shown under which number, and how often each is in use.

All of it is in memory, and every change is appended to a journal. A change is not synced to the disk: only a power
cut can lose the last ones, and then the kernel has forgotten the numbers too, and counts are repaired from podman's
own records.
"""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..clock import steady_time
from ..digest import Digest
from ..errors import CacheError
from .journal import Journal, Record

_log = logging.getLogger(__name__)

UNSEEN = ""
"""In place of the graph root of those whose own could not be seen."""
_LAYOUT = 2
_COMPACT_BYTES = 1 << 20
_EPOCH = 1_767_225_600
"""The beginning of 2026: numbers by the clock count from here."""
_SECONDS_PER_NUMBER = 8
"""The 28 bits that node numbers have for them last for 68 years then."""


@dataclass(frozen=True, slots=True)
class Image:
    """A reference that was asked for."""

    number: int
    reference: str
    manifest_digest: Digest | None
    """The manifest it had when it was last resolved."""
    pinned: bool = False
    """Its contents stay, however full the cache is."""
    changed: float = 0.0
    """When it was last resolved, seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Link:
    """A layer as it is shown under one reference; its number never means anything else."""

    number: int
    """The layer number: the upper half of the node numbers of its tree."""
    reference: str
    name_digest: Digest
    """The digest in the path: the layer digest (podman ≤ 5.0) or the TOC digest (podman ≥ 5.1)."""
    manifest_digest: Digest
    layer_digest: Digest
    toc_digest: Digest
    uses: int
    changed: float = 0.0
    """When it was made or its uses changed, seconds since 1970."""


class Ledger:
    """Used by one thread. Raises CacheError when its file is another version's or cannot be read."""

    def __init__(self, path: Path, *, expected: bool = False) -> None:
        """`expected`: the root is in use, so there was one."""
        self.changed_ns = time.time_ns()
        """When images or links last changed, since 1970."""
        self._path = path
        self._images: dict[str, Image] = {}
        self._image_numbers: dict[int, Image] = {}
        self._links: dict[tuple[str, Digest], Link] = {}
        self._link_numbers: dict[int, Link] = {}
        self._graph_roots: set[str] = set()
        self._next = 1
        self._journal = Journal(path)
        try:
            loaded = self._journal.load()
        except OSError as error:
            raise CacheError(f"{path}: {error.strerror}") from None
        for record in loaded.records:
            self._apply(record)
        self._forget_future()
        if loaded.damaged:
            _log.warning("%s: %d damaged records are dropped; they are made again", path, loaded.damaged)
        elif expected and not loaded.records:
            _log.warning("%s is missing or empty: it is made again, from podman's graph roots too", path)
        self.was_damaged = bool(loaded.damaged) or not loaded.records
        """Something may be missing that podman's records still tell."""
        if self.was_damaged:  # among what is lost may be the highest number that a kernel knows
            self._next = max(self._next, int(time.time() - _EPOCH) // _SECONDS_PER_NUMBER, 1)
        self._rewrite()

    def close(self) -> None:
        """Nothing may be changed afterwards."""
        self._journal.close()

    def check(self) -> None:
        """Write the file anew when it is not as it was left."""
        if not self._journal.intact:
            if not self._journal.failing:
                _log.warning("%s is not as it was left: it is written anew", self._path)
            self._rewrite()

    def _forget_future(self) -> None:
        """What was changed while the clock was ahead was changed just now: else it would be young for too long."""
        now = steady_time()
        for image in self.images():
            if image.changed > now:
                self._take_image(replace(image, changed=now))
        for link in self.links():
            if link.changed > now:
                self._take_link(replace(link, changed=now))

    # Images

    def image(self, reference: str) -> Image | None:
        """What is known of `reference`."""
        return self._images.get(reference)

    def image_by_number(self, number: int) -> Image | None:
        """The same, by its number."""
        return self._image_numbers.get(number)

    def images(self) -> list[Image]:
        """All, oldest first."""
        return sorted(self._images.values(), key=lambda image: image.number)

    def put_image(self, reference: str, manifest_digest: Digest) -> Image:
        """Note the manifest that `reference` has now."""
        known, now = self._images.get(reference), steady_time()
        if known is None:
            image = Image(self._number(), reference, manifest_digest, changed=now)
        else:
            image = replace(known, manifest_digest=manifest_digest, changed=now)
        self.changed_ns = time.time_ns()
        return self._keep_image(image)

    def pin(self, reference: str, *, pinned: bool) -> bool:
        """Pin or unpin an image; False when it is not known."""
        known = self._images.get(reference)
        if known is not None and known.pinned != pinned:
            self._keep_image(replace(known, pinned=pinned))
        return known is not None

    def remove_image(self, reference: str) -> None:
        """Forget an image; its number is never used again."""
        image = self._images.pop(reference, None)
        if image is not None:
            del self._image_numbers[image.number]
            self.changed_ns = time.time_ns()
            self._write({"gone": image.number})

    # Links

    def link(self, reference: str, name_digest: Digest) -> Link | None:
        """The layer that is shown as `name_digest` under `reference`."""
        return self._links.get((reference, name_digest))

    def link_by_number(self, number: int) -> Link | None:
        """The same, by its layer number."""
        return self._link_numbers.get(number)

    def links(self, reference: str | None = None) -> list[Link]:
        """All of one reference, or all; oldest first."""
        found = (link for link in self._links.values() if reference in (None, link.reference))
        return sorted(found, key=lambda link: link.number)

    def put_link(
        self, reference: str, name_digest: Digest, manifest_digest: Digest, layer_digest: Digest, toc_digest: Digest
    ) -> Link:
        """The link for this layer, new or known.

        A name that now means another tree gets a new number, unless somebody still uses the old one:
        numbers never change their meaning, because the kernel caches by them.
        """
        known = self.link(reference, name_digest)
        if known is not None:
            if (known.layer_digest, known.toc_digest) == (layer_digest, toc_digest) or known.uses > 0:
                return known
            self.remove_link(known.number)
        number, now = self._number(), steady_time()
        self.changed_ns = time.time_ns()
        return self._keep_link(
            Link(number, reference, name_digest, manifest_digest, layer_digest, toc_digest, uses=0, changed=now)
        )

    def remove_link(self, number: int) -> None:
        """Forget a link; its number is never used again."""
        link = self._link_numbers.pop(number, None)
        if link is not None:
            del self._links[link.reference, link.name_digest]
            self.changed_ns = time.time_ns()
            self._write({"gone": number})

    def add_use(self, number: int) -> int:
        """One more use; returns how many there are now."""
        return self._change(number, +1)

    def drop_use(self, number: int) -> int:
        """One use less, never below none; returns how many there are now."""
        return self._change(number, -1)

    def set_uses(self, number: int, uses: int) -> None:
        """What podman's own records say."""
        link = self._link_numbers[number]
        self._keep_link(replace(link, uses=uses, changed=steady_time()))

    def _change(self, number: int, by: int) -> int:
        link = self._link_numbers.get(number)
        if link is None:
            return 0
        return self._keep_link(replace(link, uses=max(link.uses + by, 0), changed=steady_time())).uses

    # Graph roots

    @property
    def graph_roots(self) -> frozenset[str]:
        """Where those keep their layers who announced a use."""
        return frozenset(self._graph_roots)

    def add_graph_root(self, path: str) -> None:
        """Somebody with this graph root uses layers."""
        if path not in self._graph_roots:
            self._graph_roots.add(path)
            self._write({"graph_root": path})

    # How

    def _number(self) -> int:
        """The next number; images and links never share one."""
        number = self._next
        self._next += 1
        return number

    def _keep_image(self, image: Image) -> Image:
        self._take_image(image)
        self._write(_image_record(image))
        return image

    def _keep_link(self, link: Link) -> Link:
        self._take_link(link)
        self._write(_link_record(link))
        return link

    def _take_image(self, image: Image) -> None:
        before = self._images.get(image.reference, image)
        self._image_numbers.pop(before.number, None)
        self._images[image.reference] = self._image_numbers[image.number] = image

    def _take_link(self, link: Link) -> None:
        before = self._links.get((link.reference, link.name_digest), link)
        self._link_numbers.pop(before.number, None)
        self._links[link.reference, link.name_digest] = self._link_numbers[link.number] = link

    def _write(self, record: Record) -> None:
        if not self._journal.append(record):
            self.check()
        elif self._journal.size > self._largest:
            self._rewrite()

    def _rewrite(self) -> None:
        records: list[Record] = [{"layout": _LAYOUT}, {"next": self._next}]
        records += [{"graph_root": path} for path in sorted(self._graph_roots)]
        records += [_image_record(image) for image in self.images()]
        records += [_link_record(link) for link in self.links()]
        self._journal.rewrite(records)
        self._largest = 4 * self._journal.size + _COMPACT_BYTES

    def _apply(self, record: Record) -> None:
        """Take a record of the journal into memory."""
        if record.get("layout", _LAYOUT) != _LAYOUT:
            raise CacheError(f"{self._path}: wanted layout {_LAYOUT}, got {record['layout']}: of another version")
        if "image" in record:
            self._take_image(_image(record))
        elif "link" in record:
            self._take_link(_link(record))
        elif "graph_root" in record:
            self._graph_roots.add(record["graph_root"])
        elif "gone" in record:
            gone: Image | Link | None = self._image_numbers.pop(record["gone"], None)
            if gone is not None:
                del self._images[gone.reference]
            gone = self._link_numbers.pop(record["gone"], None)
            if gone is not None:
                del self._links[gone.reference, gone.name_digest]
        numbers = (record.get(key, 0) for key in ("image", "link", "gone"))
        self._next = max(self._next, record.get("next", 1), *(number + 1 for number in numbers))


def _image_record(image: Image) -> Record:
    manifest = str(image.manifest_digest) if image.manifest_digest else None
    return {
        "image": image.number, "reference": image.reference, "manifest": manifest,
        "pinned": image.pinned, "changed": image.changed,
    }  # fmt: skip


def _image(record: dict[str, Any]) -> Image:
    manifest = record["manifest"]
    digest = Digest.parse(manifest) if manifest else None
    return Image(record["image"], record["reference"], digest, record["pinned"], record["changed"])


def _link_record(link: Link) -> Record:
    return {
        "link": link.number, "reference": link.reference, "name": str(link.name_digest),
        "manifest": str(link.manifest_digest), "layer": str(link.layer_digest), "toc": str(link.toc_digest),
        "uses": link.uses, "changed": link.changed,
    }  # fmt: skip


def _link(record: dict[str, Any]) -> Link:
    name, manifest, layer, toc = (Digest.parse(record[key]) for key in ("name", "manifest", "layer", "toc"))
    return Link(record["link"], record["reference"], name, manifest, layer, toc, record["uses"], record["changed"])
