"""Holds the mount, and sees to it that one worker serves it.

A worker that dies is followed by the next one at once; the kernel then delivers again what the dead one had taken, so
that its readers notice a pause. An upgrade starts the next one beside the old one, which leaves when the new one is
loaded. Everything here is one thread and one `select`; nothing of the daemon's work is loaded.
"""

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..cache.root import Root
from ..cache.shared_state import create_shared_state
from ..notify import notify
from ..store import kernel
from . import descriptor_store
from .handed import GO, LEAVE, PREPARED, REFUSED, SERVING, SPARE, UPGRADE, Handed
from .process import WorkerProcess

_log = logging.getLogger(__name__)

PREPARE_SECONDS = 30.0
"""A worker that is not loaded by then is given up."""
LOOK_SECONDS = 1.0
"""How often it is looked whether a worker that was killed does not end; twice in a row, and the next one serves."""
LEAVE_SECONDS = 10.0
"""A worker that does not end by then is killed; its requests are delivered again."""
CALM_SECONDS = 1.0
"""A worker that served for so long did not die for the reason that its predecessor died for: no delay."""
MAX_DELAY_SECONDS = 5.0


class Supervisor:
    """One mount. Raises CacheError and MountError."""

    def __init__(self, root: Path, mountpoint: Path, arguments: Sequence[str]) -> None:
        """`arguments`: the command line, which each worker reads anew."""
        self._mountpoint = mountpoint
        self._arguments = tuple(arguments)
        self._root = Root(root)
        kept = descriptor_store.take_back()
        if kept is None:
            mounted, verified = kernel.mount_and_greet(mountpoint), create_shared_state()
            descriptor_store.keep(mounted, verified)
        else:
            mounted, verified = kept
            _log.info("%s: the mount of an earlier daemon goes on", mountpoint)
        self._inherited = kept is not None
        self._handed = Handed(
            mounted.device, self._root.lock, verified, -1, mounted.max_read,
            mounted.handshake.minor, mounted.handshake.flags, again=self._inherited,
        )  # fmt: skip
        self._worker: WorkerProcess | None = None
        self._successor: WorkerProcess | None = None
        self._spare: WorkerProcess | None = None
        """A copy that the worker left of itself before it began: it serves when the worker dies."""
        self._dismissed: list[WorkerProcess] = []
        """Spares that nobody needs; they end at once."""
        self._stuck: list[WorkerProcess] = []
        """Given up; they end some day."""
        self._look_at = 0.0
        self._suspects: set[WorkerProcess] = set()
        self._served = False
        self._ending = False
        self._keeps_mount = False
        """It is for the next supervisor."""
        self._status = 0
        self._deaths = 0
        self._start_at = 0.0
        self._leave_by = float("inf")
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Until SIGTERM, SIGINT, or the mount is gone; the exit status."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        kernel.adopt_orphans()  # spares, when their worker ends
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._selector.register(ours, selectors.EVENT_READ, self._take_signals)
        try:
            while not (self._ending and self._worker is None and self._successor is None and not self._dismissed):
                self._keep_serving()
                for key, _ in self._selector.select(self._until()):
                    key.data(key.fileobj)
                self._keep_time()
        finally:
            if not self._keeps_mount:
                if kernel.is_alive(self._handed.device):
                    kernel.unmount(self._mountpoint)
                descriptor_store.forget(self._handed.mounted)
            os.close(self._handed.device)
            self._root.close()
        _log.info("stopped")
        return self._status

    # Workers

    def _keep_serving(self) -> None:
        if self._worker is None and self._successor is None and not self._ending:
            now = time.monotonic()
            if now >= self._start_at:
                self._worker, self._spare = self._spare or self._start(), None
                if self._worker.prepared:
                    self._worker.started = now
                    self._worker.say(GO)

    def _start(self) -> WorkerProcess:
        return self._listen_to(WorkerProcess.start(self._handed, self._arguments))

    def _listen_to(self, worker: WorkerProcess) -> WorkerProcess:
        self._selector.register(worker.channel, selectors.EVENT_READ, lambda _: self._hear(worker))
        self._selector.register(worker.descriptor, selectors.EVENT_READ, lambda _: self._bury(worker))
        return worker

    def _hear(self, worker: WorkerProcess) -> None:
        word, descriptors = worker.hear()
        if word == SPARE and len(descriptors) == 2:
            spare = self._listen_to(WorkerProcess.spare(*descriptors))
            self._dismiss()
            self._spare = spare
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if word == PREPARED:
            worker.prepared = True
            if worker is self._worker:
                worker.say(GO)
            elif self._worker is not None:  # the successor is loaded: the old one may go
                self._worker.say(LEAVE)
                self._leave_by = time.monotonic() + LEAVE_SECONDS
        elif word == SERVING:
            worker.serving = self._served = True
            worker.started = time.monotonic()
            self._handed = replace(self._handed, again=True)
            notify(f"READY=1\nSTATUS=serving {self._mountpoint}, worker {worker.pid}")
        elif word == UPGRADE:
            self._upgrade()
        elif not word:
            self._hear_no_more(worker)

    def _hear_no_more(self, worker: WorkerProcess) -> None:
        """Its channel is at its end, or of no interest; it may have been before, and be closed."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(worker.channel)

    def _bury(self, worker: WorkerProcess) -> None:
        self._selector.unregister(worker.descriptor)
        self._hear_no_more(worker)
        status = worker.reap()
        self._reap_others()
        if worker is self._spare:
            self._spare = None
            return
        for forgotten in (self._stuck, self._dismissed):
            if worker in forgotten:
                forgotten.remove(worker)
                return
        how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self._lose(worker, how, refused=status > 0)

    def _lose(self, worker: WorkerProcess, how: str, *, refused: bool = False) -> None:
        """It serves no more. `refused`: it said that it cannot."""
        if worker is self._successor:
            self._successor = None
            self._refuse(how)
            return
        self._worker, self._leave_by = None, float("inf")
        if self._ending:
            return
        if not kernel.is_alive(self._handed.device):
            _log.info("%s: unmounted", self._mountpoint)
            self._end()
        elif self._successor is not None:
            self._dismiss()  # it is of the old version
            self._worker, self._successor = self._successor, None
            if self._worker.prepared:
                self._worker.say(GO)
        elif refused and not self._served:
            self._status = 1  # it told why
            self._end()
        else:
            calm = worker.serving and time.monotonic() - worker.started >= CALM_SECONDS
            self._deaths = 0 if calm else self._deaths + 1
            delay = 0.0 if self._deaths <= 1 else min(MAX_DELAY_SECONDS, 0.1 * 2.0**self._deaths)
            self._start_at = time.monotonic() + delay
            _log.error("worker %d %s; the next one starts in %g s", worker.pid, how, delay)

    def _dismiss(self) -> None:
        """The spare is not needed: it ends when it hears nothing more."""
        spare, self._spare = self._spare, None
        if spare is not None:
            self._hear_no_more(spare)
            spare.channel.close()
            self._dismissed.append(spare)

    def _reap_others(self) -> None:
        """What a worker that ended had started, helpers for credentials, is ours now."""
        ours = {worker.pid for worker in (self._worker, self._successor, self._spare) if worker is not None}
        ours |= {worker.pid for worker in (*self._stuck, *self._dismissed)}
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid in ours:  # whose descriptor tells, too
                    return
                os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)

    def _upgrade(self) -> None:
        if self._successor is None and self._worker is not None and not self._ending:
            _log.info("a new worker takes over")
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            self._successor = self._start()

    def _refuse(self, how: str) -> None:
        if self._ending:
            return
        _log.error("the new worker %s before it was ready: the old one goes on", how)
        notify("READY=1")
        if self._worker is not None:
            self._worker.say(REFUSED)

    # Time and signals

    def _until(self) -> float | None:
        """Seconds until something is to be done, if nothing happens."""
        deadlines = [self._leave_by]
        if self._worker is None and self._successor is None and not self._ending:
            deadlines.append(self._start_at)
        deadlines += [
            worker.started + PREPARE_SECONDS
            for worker in (self._worker, self._successor)
            if worker is not None and not worker.prepared
        ]
        if self._worker is not None:
            deadlines.append(self._look_at)
        nearest = min(deadlines)
        return None if nearest == float("inf") else max(0.0, nearest - time.monotonic())

    def _keep_time(self) -> None:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._look_for_stuck()
        for worker in (self._worker, self._successor):
            if worker is not None and not worker.prepared and now >= worker.started + PREPARE_SECONDS:
                _log.error("worker %d was not ready after %g s", worker.pid, PREPARE_SECONDS)
                worker.prepared = True  # said once
                worker.kill()
        if now >= self._leave_by:
            self._leave_by = float("inf")
            for worker in (self._worker, self._successor, *self._dismissed) if self._ending else (self._worker,):
                if worker is not None:
                    _log.error("worker %d does not end: killed", worker.pid)
                    worker.kill()

    def _look_for_stuck(self) -> None:
        """One that waits in the kernel for an answer of ours can only end when somebody serves again."""
        stuck = {worker for worker in (self._worker, self._successor) if worker is not None and worker.is_stuck()}
        for worker in stuck & self._suspects:
            self._hear_no_more(worker)
            self._stuck.append(worker)
            self._dismiss()  # it would die with its parent, whenever that is
            self._lose(worker, "was killed and does not end")
        self._suspects = stuck

    def _take_signals(self, wakeup: socket.socket) -> None:
        for number in wakeup.recv(64):
            if number == signal.SIGHUP:
                self._upgrade()
            elif number == signal.SIGCHLD:
                self._reap_others()
            elif number in (signal.SIGTERM, signal.SIGINT):
                _log.info("%s: stopping", signal.Signals(number).name)
                self._end()

    def _end(self) -> None:
        if self._ending:
            return
        self._ending = True
        notify("STOPPING=1")
        if kernel.is_alive(self._handed.device):
            # A daemon that cannot start is started again by whoever keeps the mount, until the mistake is mended.
            self._keeps_mount = self._inherited if self._status else descriptor_store.survives_stop()
            if self._keeps_mount:
                _log.info("%s: the mount stays for the next daemon", self._mountpoint)
            else:
                kernel.unmount(self._mountpoint)
        self._leave_by = time.monotonic() + LEAVE_SECONDS
        self._dismiss()
        for worker in (self._worker, self._successor):
            if worker is not None:
                worker.say(LEAVE)
