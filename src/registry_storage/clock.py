"""The time of day as it would be had nobody set the clock since this process began to serve: ages do not jump.

An age is the difference of two times; with the system's own clock it jumps when that is set, and then what a pull has
made a moment ago looks old, and is collected.
"""

import time


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


_booted = [time.time() - _since_boot()]
"""When, by the system's clock of the moment when that was looked at."""


def begin() -> None:
    """Go by the system's clock as it is now: this process may have been loaded long ago."""
    _booted[0] = time.time() - _since_boot()


def steady_time() -> float:
    """Seconds since 1970; never goes back, and counts while the machine sleeps."""
    return _booted[0] + _since_boot()


def earliest_time() -> float:
    """Seconds since 1970 by this clock or by the system's, whichever is less.

    To compare with the times of files, which the system's clock gave them before or after it was set: with this as
    now, a file may look younger than it is, never older.
    """
    return min(steady_time(), time.time())
