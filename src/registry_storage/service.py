"""What systemd wants of a service: signs of life, and settings read again (sd_notify(3), systemd.service(5))."""

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import fields

import trio

from . import logs
from .config import Settings
from .errors import ConfigError
from .notify import notify

_log = logging.getLogger(__name__)
_APPLIED = ("log_level", "log_format")
"""Settings that a running daemon can change."""


async def send_signs_of_life(environ: Mapping[str, str] | None = None) -> None:
    """As often as ``WatchdogSec=`` wants; they come from the event loop, so they end when it hangs."""
    environ = os.environ if environ is None else environ
    interval = environ.get("WATCHDOG_USEC", "")
    if not interval.isdigit() or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        notify("WATCHDOG=1")
        await trio.sleep(int(interval) / 1e6 / 3)


async def reload_on_hangup(
    settings: Settings,
    load: Callable[[], Settings],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """SIGHUP: what can change at once does; the rest is named. Files of podman's need no reload."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                new = await trio.to_thread.run_sync(load)
            except ConfigError as error:
                _log.error("the settings stay as they were: %s", error)
            else:
                logs.set_up(new.log_level, new.log_format)
                names = [one.name for one in fields(Settings) if one.name not in _APPLIED]
                later = [name for name in names if getattr(new, name) != getattr(settings, name)]
                _log.info("settings read again%s", f"; {', '.join(later)}: at the next start" if later else "")
            notify("READY=1")
