"""First on the path of the daemon's processes: gives the one that serves the mount a Python thread that never rests."""

import sys
import threading


def _never_rest() -> None:
    number = 0
    while True:
        number += 1


if "registry_storage.supervision.worker" in " ".join(sys.orig_argv):
    threading.Thread(target=_never_rest, daemon=True).start()
