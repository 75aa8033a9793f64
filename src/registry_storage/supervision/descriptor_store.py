"""systemd's descriptor store: the mount outlives even the supervisor (sd_pid_notify_with_fds(3), FDSTORE=1).

What was agreed with the kernel stands in the descriptor's name. Without systemd nothing happens.
"""

import os
import re
import signal
import subprocess

from ..notify import notify
from ..store import kernel
from ..store.kernel import Handshake, Mounted

_FIRST = 3
"""SD_LISTEN_FDS_START."""
_DEVICE = re.compile(r"fuse-([0-9]{1,8})-([0-9]{1,4})-([0-9]{1,12})", re.ASCII)
_VERIFIED = "verified"
UNIT = "REGISTRY_STORAGE_UNIT"
"""In the environment: the name of the unit that we are, which says in this way that it keeps descriptors."""
_ANSWER_SECONDS = 5.0


def _name(mounted: Mounted) -> str:
    return f"fuse-{mounted.max_read}-{mounted.handshake.minor}-{mounted.handshake.flags}"


def keep(mounted: Mounted, verified: int) -> None:
    """Have systemd keep both descriptors while this service restarts; it drops the device by itself when it is dead."""
    notify(f"FDSTORE=1\nFDNAME={_name(mounted)}", [mounted.device])
    notify(f"FDSTORE=1\nFDNAME={_VERIFIED}\nFDPOLL=0", [verified])


def forget(mounted: Mounted) -> None:
    """The mount is gone: what systemd keeps is of no more use."""
    notify(f"FDSTOREREMOVE=1\nFDNAME={_name(mounted)}")
    notify(f"FDSTOREREMOVE=1\nFDNAME={_VERIFIED}")


def take_back() -> tuple[Mounted, int] | None:
    """What systemd kept of an earlier supervisor whose mount is still there: the mount and the verified bits."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return None
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    count = os.environ.pop("LISTEN_FDS", "0")
    mounted, verified = None, None
    for number, name in enumerate(names[: int(count) if count.isdigit() else 0], _FIRST):
        os.set_inheritable(number, False)
        found = _DEVICE.fullmatch(name)
        if found and kernel.is_alive(number):
            max_read, minor, flags = map(int, found.groups())
            mounted = Mounted(number, max_read, Handshake(minor, flags))
        elif name == _VERIFIED:
            verified = number
        else:
            os.close(number)
    return None if mounted is None or verified is None else (mounted, verified)


def survives_stop() -> bool:
    """Whether systemd stops us only to start us again, so that what it keeps finds a new owner."""
    unit = os.environ.get(UNIT, "")
    if not unit:
        return False
    command = ["systemctl", *([] if os.geteuid() == 0 else ["--user"]), "list-jobs", "--plain", "--no-legend"]
    # systemd's SIGTERM is for every process of the service, also for those that begin meanwhile.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    jobs = [line.split() for line in said.stdout.splitlines()]  # number, unit, kind, state
    return any(job[1:3] == [unit, "restart"] for job in jobs)
