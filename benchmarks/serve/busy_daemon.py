"""The daemon with a Python thread in its process that never rests: `python -m benchmarks.serve.busy_daemon WORDS…`."""

import sys
import threading

from registry_storage import cli


def _never_rest() -> None:
    number = 0
    while True:
        number += 1


if __name__ == "__main__":
    threading.Thread(target=_never_rest, daemon=True).start()
    sys.exit(cli.main())
