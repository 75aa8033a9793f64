"""Contents of plain layers while they are written: part of the cache before any list of it names them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ..cache.eviction import Eviction, Victim
from ..errors import CacheError


class Arriving:
    """A Source of the eviction that gives nothing up. Used by the event loop."""

    def __init__(self, eviction: Eviction) -> None:
        self._eviction = eviction
        self._sizes: dict[str, int] = {}
        eviction.add(self)

    def used_bytes(self) -> int:
        """See Source."""
        return sum(self._sizes.values())

    kept_bytes = used_bytes

    def collect_uses(self, now: float) -> None:
        """Nobody can use them yet."""

    def victims(self) -> Iterable[Victim]:
        """See Source."""
        return ()

    @contextmanager
    def layer(self, name: str) -> Iterator[Callable[[int], None]]:
        """As long as it is written; the function is told how many bytes more were written.

        It raises CacheError when the layer does not fit, although everything went that can.
        """
        self._sizes[name] = 0

        def grew(by: int) -> None:
            self._sizes[name] += by
            if not self._eviction.admit(by):
                budget, kept = self._eviction.budget, self._eviction.kept_bytes()
                raise CacheError(
                    f"layer {name}: no room: wanted at most {budget.size} bytes (cache_size) that must stay, "
                    f"got {kept} so far; and {budget.keep_free} bytes (keep_free) left on the disk"
                )

        try:
            yield grew
        finally:
            del self._sizes[name]
