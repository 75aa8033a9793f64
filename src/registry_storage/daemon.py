"""The daemon's work: where everything is wired, and how it starts and ends."""

import errno
import logging
import math
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import trio
from prometheus_client import CollectorRegistry

from . import auth_helper, exposition, metrics, service
from .cache.budget import Budget
from .cache.eviction import Eviction
from .cache.ledger import Ledger
from .cache.root import Root
from .cache.shared_state import SharedState
from .config import STARTING_READ_AHEAD_KIB, Settings, images_path
from .control.address import Access, socket_path
from .control.routes import Handler, Json, Request, Routes
from .control.server import ControlServer
from .image_requests import ImageRequests
from .images.added import AddedImages
from .images.repair import open_store
from .layer.plain import remove_unfinished
from .layer.pool import Pool
from .layer.whole_blob import WholeBlobs
from .registry.surroundings import Surroundings
from .sight import Sight
from .status import Status
from .store import kernel
from .store.lane import Lane
from .store.operations import Operations
from .store.recorder import Recorder
from .store.session import Session
from .store.tree import Tree
from .supervision.handed import Handed
from .supervision.link import SupervisorLink
from .upkeep import Upkeep

_log = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Find out what is wrong with them while an earlier worker still serves. Raises ConfigError."""
    Access.of(settings)
    Budget.of(settings, settings.root)
    if settings.metrics:
        exposition.check(settings.metrics)


async def run(
    settings: Settings,
    mountpoint: Path,
    handed: Handed,
    channel: socket.socket,
    finish: Callable[[], None],
    end: Callable[[], NoReturn],
) -> NoReturn:
    """Serve the mount that was `handed` to us until the supervisor says so at `channel`, SIGTERM, or an unmount.

    Then `end` ends the process; `finish` is what takes time before that, called while requests are still answered.
    Raises CacheError, ConfigError, MountError.
    """
    with Root(settings.root, lock=handed.lock) as root:
        remove_unfinished(root.layers)
        ledger = Ledger(root.ledger, expected=root.is_in_use())
        try:
            around = Surroundings.of(settings)
            async with around.client() as registry, trio.open_nursery() as nursery:
                patience = math.inf if settings.wait_for_registry else settings.read_timeout_seconds
                eviction = Eviction(root.path, Budget.of(settings, root.path))
                lane = Lane(settings.root, patience, every_read=settings.record is not None)
                pool = Pool(
                    root,
                    ledger,
                    registry,
                    nursery,
                    platform=settings.platform,
                    prefetch=settings.prefetch,
                    background_fetch=settings.background_fetch,
                    lookup_timeout_seconds=settings.lookup_timeout_seconds,
                    shared_state=SharedState(handed.verified),
                    opened=lane.show,
                    eviction=eviction,
                )
                blobs = WholeBlobs(root, nursery)
                operations = Operations(Tree(pool, ledger, blobs), patience)
                recorder = Recorder(settings.record, pool, ledger) if settings.record else None
                supervisor = SupervisorLink(channel)
                routes = Routes()
                sight = Sight(lane, pool, eviction, registry)
                routes.add("GET", "/v1/activity", sight.answer)
                routes.add("POST", auth_helper.ROUTE, _taker(around))
                routes.add("GET", "/v1/status", Status(root, ledger, pool, mountpoint, images_path(settings)).answer)
                routes.add("GET", "/v1/upgrade", supervisor.state)
                routes.add("POST", "/v1/upgrade", supervisor.upgrade)
                upkeep = Upkeep(settings, root, ledger, pool, blobs, eviction)
                upkeep.add_routes(routes)
                store = await trio.to_thread.run_sync(open_store, images_path(settings), mountpoint)
                added = AddedImages(
                    store, pool, ledger,
                    graph_roots=upkeep.graph_roots, grace_seconds=settings.images_grace_seconds,
                )  # fmt: skip
                ImageRequests(added, nursery).register(routes)
                session = Session(mountpoint, handed.mounted, operations, lane)
                try:
                    with ControlServer(socket_path(settings), Access.of(settings), routes) as control:
                        nursery.start_soon(control.serve)
                        nursery.start_soon(service.send_signs_of_life)
                        _show(settings, sight, nursery)
                        nursery.start_soon(upkeep.run, control.check)
                        nursery.start_soon(added.run)
                        nursery.start_soon(pool.resume, added.completes)
                        if settings.background_fetch:
                            nursery.start_soon(added.run_completions)
                        await _serve(session, pool, recorder, supervisor, mountpoint, handed, settings, finish)
                finally:
                    session.close()
                    lane.close()
                    if recorder is not None:
                        recorder.close()
                finish()
                pool.hold()
                ledger.close()
                end()
        finally:
            ledger.close()


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
    session: Session,
    pool: Pool,
    recorder: Recorder | None,
    supervisor: SupervisorLink,
    mountpoint: Path,
    handed: Handed,
    settings: Settings,
    finish: Callable[[], None],
) -> None:
    async def leave() -> None:
        await trio.to_thread.run_sync(finish)
        session.leave()

    delivered = not handed.again or kernel.resend(handed.device)
    async with trio.open_nursery() as nursery:
        await nursery.start(_leave_on_signal, session)
        nursery.start_soon(supervisor.listen, leave)
        pool.background.starting = partial(_set_read_ahead, mountpoint, settings)
        nursery.start_soon(pool.background.run)
        nursery.start_soon(pool.spare.run)
        nursery.start_soon(_announce, supervisor, mountpoint, settings)
        if not delivered:
            nursery.start_soon(session.fail_taken)
        await session.serve(pool.layer_by_number, recorder)
        nursery.cancel_scope.cancel()


async def _announce(supervisor: SupervisorLink, mountpoint: Path, settings: Settings) -> None:
    if not await _set_read_ahead(mountpoint, settings, False):
        return
    _log.info("serving %s from %s", mountpoint, settings.root)
    supervisor.serving()


async def _set_read_ahead(mountpoint: Path, settings: Settings, starting: bool) -> bool:
    """The kernel's read-ahead, less while the container of an optimized image starts; False: it is unmounted."""
    kib = min(settings.read_ahead_kib, STARTING_READ_AHEAD_KIB) if starting else settings.read_ahead_kib
    try:
        await trio.to_thread.run_sync(kernel.set_read_ahead, mountpoint, kib)
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            return False
        raise
    return True


async def _leave_on_signal(
    session: Session, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            _log.info("%s: leaving", signal.Signals(number).name)
            session.leave()
            return
