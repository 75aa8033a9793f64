"""A worker gives up what it does not need: whoever takes it over through what it parses gets less than the host.

The supervisor, which reads nothing from outside, keeps what mounting needs (capabilities(7), prctl(2)).
"""

import ctypes
import os
import resource

_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_VERSION = 0x20080522
_LARGEST = 63

KEPT = {
    "CAP_CHOWN": 0,  # the control socket's group
    "CAP_DAC_OVERRIDE": 1,  # a root directory or an image store that is not root's own
    "CAP_DAC_READ_SEARCH": 2,  # graph roots and credentials of users
    "CAP_FOWNER": 3,  # modes of files in such directories
    "CAP_NET_ADMIN": 12,  # replies of 1 MiB over a socket pair (SO_SNDBUFFORCE)
    "CAP_SYS_PTRACE": 19,  # which graph root a podman that announces a use has locked: /proc/PID/fd
}
"""Of what root can do, by number."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Set(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


_Sets = _Set * 2


def give_up() -> None:
    """For this process and those that it starts, for good: call it before there are threads. Raises OSError.

    All capabilities but KEPT; the way to more (set-user-ID programs); core dumps and being traced by other processes
    of the same user, because credentials are in memory.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    header, sets = _Header(_VERSION, 0), _Sets()
    _check(_libc.capget(ctypes.byref(header), sets))
    mask = sum(1 << number for number in KEPT.values())
    for number in range(_LARGEST + 1):
        # Without CAP_SETPCAP it cannot be done; no_new_privs makes sure then that a program gets no more than we have.
        if not mask >> number & 1 and _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for part, one in enumerate(sets):
        kept = one.permitted & (mask >> 32 * part) & 0xFFFFFFFF
        one.effective = one.permitted = kept
        one.inheritable = 0
    _check(_libc.capset(ctypes.byref(header), sets))


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
