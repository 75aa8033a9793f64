"""The systemd units of the daemon (systemd.service(5)), for root and for a user."""

import shlex
from collections.abc import Sequence

from ..names import DAEMON

SERVICE = f"{DAEMON}.service"

_UNIT = """\
[Unit]
Description=Layers of container images, fetched when they are read
Documentation=man:{daemon}(1)
{order}StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=all
ExecStart={command}
ExecReload={reload}
Restart=always
RestartSec=1
TimeoutStopSec=30
WatchdogSec=60
LimitNOFILE=65536
LimitCORE=0
UMask=0077
{confined}
[Install]
WantedBy={target}
"""

_SYSTEM_ORDER = """\
# Podman refuses every command while the directory is missing or its mount is dead: be there before it.
Before=podman.service podman-restart.service crio.service kubelet.service
After=local-fs.target network.target
RequiresMountsFor={root}
"""
_SYSTEM_CONFINED = """\
# A restart keeps the mount: its descriptor waits here for the next daemon, and containers go on.
FileDescriptorStoreMax=16
Environment=REGISTRY_STORAGE_UNIT=%n
OOMScoreAdjust=-500

# No option here may give the service a mount namespace of its own (ProtectSystem=, PrivateTmp=, ProtectKernelTunables=
# and so on): podman would not see what it mounts.
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_NET_ADMIN CAP_KILL
# To see in /proc which graph root a podman has locked: without it a pull that broke off is never tidied up.
CapabilityBoundingSet=CAP_SYS_PTRACE
DevicePolicy=closed
DeviceAllow=/dev/fuse rw
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
ProtectHostname=yes
ProtectClock=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service @mount
SystemCallErrorNumber=EPERM
"""

_USER_ORDER = "Before=podman.service podman-restart.service\n"
_USER_CONFINED = """\
# In podman's own user and mount namespace, which podman makes with newuidmap: that is setuid, so NoNewPrivileges= must
# stay off, and with it whatever implies it. A mount that a killed daemon leaves there would keep podman from starting.
ExecStopPost=-/bin/sh -c '{clean}' {mountpoint}
# Where its user does not own all of the service's cgroups, as beside those of version 1, podman would move to a scope
# of its own, and systemd would wait in vain for a daemon in the service: without a bus podman stays.
Environment=DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null
"""
_CLEAN = 'exec nsenter --preserve-credentials -U -m -t "$$(cat %t/libpod/tmp/pause.pid)" umount -l "$$0"'


def unit(command: Sequence[str], reload: Sequence[str], *, root: str, user: bool, mountpoint: str = "") -> str:
    """The text of the unit that runs `command`, with its state in `root`; `reload` lets a new worker take over.

    `mountpoint`: of a user's daemon.
    """
    order = _USER_ORDER if user else _SYSTEM_ORDER.format(root=root)
    confined, target = _SYSTEM_CONFINED, "multi-user.target"
    if user:
        confined, target = _USER_CONFINED.format(clean=_CLEAN, mountpoint=_words([mountpoint])), "default.target"
    return _UNIT.format(
        daemon=DAEMON, command=_words(command), reload=_words(reload), order=order, confined=confined, target=target
    )


def _words(command: Sequence[str]) -> str:
    return shlex.join(command).replace("%", "%%")
