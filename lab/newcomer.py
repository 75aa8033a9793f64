"""A newcomer's way: docs/start.md, literally, in a clean Debian that has booted; then every end of a service."""

import re
import time
from pathlib import Path

from lab import converters, images, processes, systemd
from lab.registry import Registry

PROJECT = Path(__file__).parent.parent
IMAGE = converters.tag("redis", "zstd-old")
PLAIN_IMAGE = converters.tag("redis", "gzip")
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
netns = "none"
pids_limit = 0
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
"""What this kind of machine needs, see lab/podman.py; its cgroups of version 2 count no processes."""
_FENCE = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FIRST, _BACK = "# Podman in five minutes", "## Back again"
_LIFE = """\
set -u
container=$(podman run -d --network=none "$IMAGE" sh -c '
    rounds=0
    while cat /usr/bin/redis-server > /dev/null && ls -R /usr/share > /dev/null; do
        rounds=$((rounds + 1)); echo $rounds > /tmp/new; mv /tmp/new /tmp/rounds
    done')
process=$(podman inspect -f '{{.State.Pid}}' "$container")
rounds() { cat "/proc/$process/root/tmp/rounds" 2> /dev/null || echo 0; }
goes_on() {
    before=$(rounds)
    for _ in $(seq 300); do
        [ "$(rounds)" -gt "$((before + 2))" ] && echo "$1: the container reads on" && return
        sleep 0.1
    done
    echo "$1: the container does not read on"
    exit 1
}
serving() {
    for _ in $(seq 300); do systemctl is-active -q registry-storage && return; sleep 0.1; done
    echo "the service does not come back"
    exit 1
}
watch_closely() {
    mkdir -p /run/systemd/system/registry-storage.service.d
    printf '[Service]\\nWatchdogSec=3\\n' > /run/systemd/system/registry-storage.service.d/watchdog.conf
    systemctl daemon-reload && systemctl restart registry-storage
}
worker() { systemctl show -p StatusText --value registry-storage | sed 's/.*worker //'; }
goes_on "start"
systemctl reload registry-storage || exit 1
goes_on "reload"
mkdir -p /etc/registry-storage
echo 'colour = 1' > /etc/registry-storage/config.toml
systemctl reload registry-storage && exit 1
goes_on "reload with a mistake in the configuration"
rm /etc/registry-storage/config.toml
for _ in 1 2 3 4 5; do systemctl restart registry-storage || exit 1; done
goes_on "five restarts"
systemctl kill -s KILL --kill-whom=main registry-storage
sleep 1.5; serving; goes_on "supervisor killed"
systemctl kill -s KILL registry-storage
sleep 1.5; serving; goes_on "everything killed"
watch_closely
stopped=$(worker)
kill -STOP "$stopped"
for _ in $(seq 300); do [ "$(worker)" != "$stopped" ] && break; sleep 0.1; done
serving; goes_on "worker stopped, watchdog"
rm -r /run/systemd/system/registry-storage.service.d
systemctl daemon-reload
podman rm -f -t 0 "$container" > /dev/null
systemctl stop registry-storage
mountpoint -q /var/lib/registry-storage/store && echo "stop leaves the mount" && exit 1
systemctl start registry-storage
registry-storagectl doctor | grep -v '^ok' && exit 1
echo "all is well"
"""


def commands(section: str) -> list[str]:
    """Those of docs/start.md below this heading."""
    text = (PROJECT / "docs/start.md").read_text()
    part = text[text.index(section) :]
    part = part.split("\n## ", 1)[0]
    return [line for block in _FENCE.findall(part) for line in block.splitlines()]


def walk_through(root: Path, wheels: Path, scratch: Path) -> None:
    """In the tree at `root`, with the wheels in `wheels`.

    Raises ProgramError where a command does not do what it says.
    """
    _undo_earlier_walks(root)
    with (
        Registry(images.registry_storage(), scratch, readonly=True) as registry,
        systemd.booted(root, wheels) as system,
    ):
        names = {
            "WHEELHOUSE": "/wheels --no-index",
            "app --version": "redis-server --version",
            "registry.example.org/team/app:zstd-chunked": f"{registry.host}/{IMAGE}",
            "registry.example.org/team/app:1": f"{registry.host}/{PLAIN_IMAGE}",
        }
        containers = root / "etc/containers"
        (containers / "containers.conf").write_text(_CONTAINERS_CONF)
        (containers / "registries.conf.d/lab.conf").write_text(
            f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
        )
        started, ran = time.monotonic(), False
        for number, command in enumerate(commands(_FIRST), 1):
            said = _do(system, command, names)
            if "podman run" in command:
                _expect("Redis server v=" in said, command, said)
                if not ran:
                    seconds, ran = time.monotonic() - started, True
                    print(f"-- {number} commands, {seconds:.1f} s, without a network", flush=True)
            elif "registry-storagectl ls" in command:
                _expect(f"{registry.host}/{IMAGE}" in said, command, said)
        done = system.run(_LIFE, environment={"IMAGE": f"{registry.host}/{IMAGE}"})
        print(done.stdout, flush=True)
        _expect(done.returncode == 0, "every end of a service", system.run("journalctl -u registry-storage").stdout)
        for command in commands(_BACK):
            _do(system, command, names)
        for left in ("etc/systemd/system/registry-storage.service", "etc/containers/storage.conf"):
            _expect(not (root / left).exists(), "uninstall", f"{left} is still there")


def _do(system: systemd.Booted, command: str, names: dict[str, str]) -> str:
    """Run it with the laboratory's `names` in place of the manual's; what it said."""
    for name, ours in names.items():
        command = command.replace(name, ours)
    print(f"$ {command}", flush=True)
    done = system.run(command)
    print(done.stdout, end="", flush=True)
    wanted = 1 if "explain" in command else 0  # it is asked about an image that is not lazy
    _expect(done.returncode == wanted, command, f"status {done.returncode}\n{done.stdout}")
    _expect(not re.search(r"^(WARNING|FAILURE) ", done.stdout, re.MULTILINE), command, done.stdout)
    return done.stdout


def _expect(right: bool, what: str, said: str) -> None:
    if not right:
        raise processes.ProgramError(f"{what}: {said}")


def _undo_earlier_walks(root: Path) -> None:
    script = (
        "rm -rf opt/registry-storage var/lib/registry-storage var/lib/containers etc/containers/storage.conf "
        "etc/registry-storage etc/systemd/system/registry-storage.service var/log/journal "
        "etc/systemd/system/multi-user.target.wants/registry-storage.service"
    )
    processes.run(["sh", "-c", script], directory=root)
