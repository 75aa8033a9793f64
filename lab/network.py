"""Hosts with networks of their own: network namespaces, joined by a bridge that only they see."""

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab import processes

_NETWORK = "10.77.0"
_HOLD = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"]


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace."""

    address: str
    holder: int
    """The process that keeps it."""

    @property
    def prefix(self) -> list[str]:
        """The words before a command that runs there."""
        return ["nsenter", "--target", str(self.holder), "--net", "--"]

    def sent_bytes(self) -> int:
        """What has left it so far, as its interface counts."""
        words = [*self.prefix, "cat", "/proc/net/dev"]
        (line,) = [line for line in processes.run(words).stdout.splitlines() if line.strip().startswith("eth0:")]
        return int(line.split(":")[1].split()[8])


@contextlib.contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many of them. They end with the `with`, and with this process in any case."""
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(_namespace())
        _ip(hub, "link add br0 type bridge", "link set br0 up")
        found = []
        for number in range(1, count + 1):
            host = Host(f"{_NETWORK}.{number}", stack.enter_context(_namespace()))
            _ip(hub, f"link add to{number} type veth peer name eth0 netns {host.holder}")
            _ip(hub, f"link set to{number} master br0 up")
            _ip(host.holder, "link set lo up", f"addr add {host.address}/24 dev eth0", "link set eth0 up")
            found.append(host)
        yield found


@contextlib.contextmanager
def _namespace() -> Iterator[int]:
    holder = subprocess.Popen(_HOLD, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != "ready\n":
            raise processes.ProgramError("a network namespace cannot be made")
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def _ip(namespace: int, *commands: str) -> None:
    for command in commands:
        words: Sequence[str] = ["nsenter", "--target", str(namespace), "--net", "--", "ip", *command.split()]
        processes.run(words)
