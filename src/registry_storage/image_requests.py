"""The additional image store over the control socket: ``/v1/images``."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import trio

from .control.routes import Json, Request, Routes
from .descriptor import Platform
from .errors import InvalidDocumentError, InvalidInputError, RegistryStorageError
from .images.added import AddedImages
from .images.progress import Progress

NEWS_SECONDS = 0.1


class ImageRequests:
    """What is asked is cancelled when its client leaves, and leaves no trace then but what is in the cache."""

    def __init__(self, added: AddedImages, nursery: trio.Nursery) -> None:
        self._added = added
        self._nursery = nursery

    def register(self, routes: Routes) -> None:
        """Four routes; ``POST`` bodies are ``{"name": …}``, adding takes a ``platform`` too.

        Adding and refreshing answer lines: ``{"layer", "stage", "done", "total"}`` as it goes, then the image.
        """
        routes.add("GET", "/v1/images", self._list)
        routes.add("POST", "/v1/images/add", self._add)
        routes.add("POST", "/v1/images/refresh", self._refresh)
        routes.add("POST", "/v1/images/remove", self._remove)

    async def _list(self, request: Request) -> Json:
        return self._added.list()

    async def _remove(self, request: Request) -> Json:
        return await self._added.remove(_name(request))

    async def _add(self, request: Request) -> AsyncGenerator[Json, None]:
        name, platform = _name(request), _platform(request)
        return self._lines(lambda progress: self._added.add(name, platform, progress))

    async def _refresh(self, request: Request) -> AsyncGenerator[Json, None]:
        name = _name(request)
        return self._lines(lambda progress: self._added.refresh(name, progress))

    async def _lines(
        self, work: Callable[[Progress], Awaitable[dict[str, Any]]]
    ) -> AsyncGenerator[Json, None]:
        progress, done, scope = Progress(), trio.Event(), trio.CancelScope()
        result: dict[str, Any] = {}
        failure: Exception | None = RegistryStorageError("the daemon is stopping")

        async def run() -> None:
            nonlocal result, failure
            try:
                with scope:
                    result = await work(progress)
                    failure = None
            except (RegistryStorageError, OSError) as error:
                failure = error
            finally:
                done.set()

        self._nursery.start_soon(run)
        try:
            while not done.is_set():
                with trio.move_on_after(NEWS_SECONDS):
                    await done.wait()
                for line in progress.news():
                    yield line
            if failure is not None:
                raise failure
            yield result
        finally:
            scope.cancel()


def _name(request: Request) -> str:
    name = request.body.get("name") if isinstance(request.body, dict) else None
    if not isinstance(name, str):
        raise InvalidInputError('wanted {"name": an image reference}')
    return name


def _platform(request: Request) -> Platform | None:
    text = request.body.get("platform")
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidInputError(f"platform: wanted a string, got {type(text).__name__}")
    try:
        return Platform.parse(text)
    except InvalidDocumentError as error:
        raise InvalidInputError(str(error)) from None
