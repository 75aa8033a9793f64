"""What systemd wants of a service that hangs: signs of life (sd_notify(3), systemd.service(5))."""

import os
from collections.abc import Mapping

import trio

from .notify import notify


async def send_signs_of_life(environ: Mapping[str, str] | None = None) -> None:
    """As often as ``WatchdogSec=`` wants; they come from the worker's event loop, so they end when it hangs.

    systemd asks the supervisor for them, and takes them from any process of the service (``NotifyAccess=all``).
    """
    environ = os.environ if environ is None else environ
    interval = environ.get("WATCHDOG_USEC", "")
    if not interval.isdigit() or environ.get("WATCHDOG_PID") not in (None, str(os.getpid()), str(os.getppid())):
        return
    while True:
        notify("WATCHDOG=1")
        await trio.sleep(int(interval) / 1e6 / 3)
