"""What a worker's process runs first: it loads the worker without what takes time for nothing.

After a crash nobody serves until everything is loaded.
"""

import gc
import sys


def main() -> int:
    """See worker.main."""
    gc.disable()  # nothing of what is loaded is garbage
    sys.modules["httpx._main"] = None  # type: ignore[assignment]  # a command line, wherever rich and click are there
    from . import worker

    gc.freeze()
    gc.enable()
    return worker.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
