"""The daemon: where everything is wired, and how it starts and ends."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry

from . import auth_helper, exposition, metrics, service
from .cache.ledger import Ledger
from .cache.root import Root
from .config import Settings
from .control.address import Access, socket_path
from .control.routes import Handler, Json, Request, Routes
from .control.server import ControlServer
from .layer.pool import Pool
from .layer.whole_blob import WholeBlobs
from .notify import notify
from .registry.surroundings import Surroundings
from .sight import Sight
from .status import Status
from .store import kernel
from .store.lane import Lane
from .store.operations import Operations
from .store.recorder import Recorder
from .store.session import Session
from .store.tree import Tree

_log = logging.getLogger(__name__)


async def run(settings: Settings, mountpoint: Path, load: Callable[[], Settings] | None = None) -> None:
    """Serve at `mountpoint` until SIGTERM, SIGINT or an unmount. Raises CacheError, ConfigError, MountError.

    `load` gives the settings anew, after SIGHUP.
    """
    with Root(settings.root) as root:
        ledger = Ledger(root.state_file)
        try:
            around = Surroundings.of(settings)
            async with around.client() as registry, trio.open_nursery() as nursery:
                lane = Lane(settings.root, settings.read_timeout_seconds, every_read=settings.record is not None)
                pool = Pool(
                    root,
                    ledger,
                    registry,
                    nursery,
                    platform=settings.platform,
                    prefetch=settings.prefetch,
                    background_fetch=settings.background_fetch,
                    lookup_timeout_seconds=settings.lookup_timeout_seconds,
                    opened=lane.show,
                )
                blobs = WholeBlobs(root, nursery)
                operations = Operations(Tree(pool, ledger, blobs), settings.read_timeout_seconds)
                recorder = Recorder(settings.record, pool, ledger) if settings.record else None
                routes = Routes()
                sight = Sight(lane, pool)
                routes.add("GET", "/v1/activity", sight.answer)
                routes.add("POST", auth_helper.ROUTE, _taker(around))
                routes.add("GET", "/v1/status", Status(root, ledger, pool, mountpoint).answer)
                with ControlServer(socket_path(settings), Access.of(settings), routes) as control:
                    session = Session(mountpoint, operations, lane)
                    try:
                        nursery.start_soon(control.serve)
                        nursery.start_soon(service.send_signs_of_life)
                        _show(settings, sight, nursery)
                        await nursery.start(service.reload_on_hangup, settings, load or (lambda: settings))
                        await _serve(session, pool, recorder, mountpoint, settings)
                    finally:
                        session.close()
                        lane.close()
                        if recorder is not None:
                            recorder.close()
                nursery.cancel_scope.cancel()
            blobs.close()
            pool.close()
        finally:
            ledger.close()
    _log.info("stopped")


def _taker(around: Surroundings) -> Handler:
    async def take(request: Request) -> Json:
        return {"taken": around.credentials.handed.take(request.body)}

    return take


def _show(settings: Settings, sight: Sight, nursery: trio.Nursery) -> None:
    """Serve the metrics, where somebody wants them."""
    if not settings.metrics:
        return
    listener = exposition.listen(settings.metrics)
    seen = CollectorRegistry(auto_describe=False)
    seen.register(metrics.REGISTRY)
    seen.register(exposition.Gauges(sight.gauges))
    nursery.start_soon(exposition.serve, listener, seen)


async def _serve(
    session: Session, pool: Pool, recorder: Recorder | None, mountpoint: Path, settings: Settings
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(_end_on_signal, session)
        nursery.start_soon(pool.background.run)
        nursery.start_soon(_announce, mountpoint, settings)
        nursery.start_soon(pool.resume)
        await session.serve(pool.layer_by_number, recorder)
        nursery.cancel_scope.cancel()
    notify("STOPPING=1")


async def _announce(mountpoint: Path, settings: Settings) -> None:
    await trio.to_thread.run_sync(kernel.set_read_ahead, mountpoint, settings.read_ahead_kib)
    _log.info("serving %s from %s", mountpoint, settings.root)
    notify("READY=1")


async def _end_on_signal(
    session: Session, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            _log.info("%s: stopping", signal.Signals(number).name)
            notify("STOPPING=1")
            session.stop()
            return
