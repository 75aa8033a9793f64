"""A newcomer's way: README.md and docs/start.md, literally, in a clean Debian that has booted.

Then every command of the other pages, and every end of a service.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import converters, images, places, processes, systemd
from lab.registry import Registry
from lab.shown import Typist, commands, expect

WHOLE_PAGES = ("configuration", "converting", "operating", "troubleshooting")
"""Of docs/: all their commands are typed."""
TYPED = ("README.md", "docs/start.md", *(f"docs/{name}.md" for name in WHOLE_PAGES))
LEFT_OUT = ("docs/crio.md", "docs/distribution.md")
"""CRI-O is in no Debian; the other one says how this is started, and what docs/start.md begins with."""
TEST = Path("/opt/wheel-test")
"""In the system: the published source, and wheels of what its test needs."""
USER = "newcomer"
_IMAGES = {
    "team/app:1": converters.tag("redis", "gzip"),
    "team/app:zstd-chunked": converters.tag("redis", "zstd-old"),
    "team/redis:esgz": converters.tag("redis", "estargz"),
}
"""What the documentation's registry holds."""
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
_NOTHING_OF_OURS = (
    "rm -rf opt/registry-storage var/lib/registry-storage var/lib/containers etc/containers/storage.conf "
    "etc/registry-storage etc/systemd/system/registry-storage.service "
    "etc/systemd/system/multi-user.target.wants/registry-storage.service"
)
"""In the system's /."""
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


def walk_through(root: Path, wheels: Path, scratch: Path, wheel_test: str) -> None:
    """In the tree at `root`, with the wheels in `wheels`. `wheel_test`: cibuildwheel's test-command.

    Raises ProgramError where a command does not do what it says.
    """
    of_earlier_walks = f"{_NOTHING_OF_OURS} var/log/journal home/{USER} var/lib/systemd/linger"
    processes.run(["sh", "-c", of_earlier_walks], directory=root)
    with _filled_registry(scratch) as registry, systemd.booted(root, wheels) as system:
        names = {
            "WHEELHOUSE": "/wheels --no-index",
            "app --version": "redis-server --version",
            "python3 -c 'import numpy'": "redis-server --version",
            "registry.example.org": registry.host,
        }
        typist = Typist(system, names)
        containers = root / "etc/containers"
        (containers / "containers.conf").write_text(_CONTAINERS_CONF)
        (containers / "registries.conf.d/lab.conf").write_text(
            f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
        )
        _test_the_wheel(system, wheel_test)
        print("-- README.md", flush=True)
        _type_all(typist, commands("README.md", "## Use it", "## Settings"))
        typist.types("podman rmi registry.example.org/team/app:zstd-chunked")
        typist.types("registry-storagectl uninstall")
        expect(system.run(f"cd / && {_NOTHING_OF_OURS}").returncode == 0, "starting afresh", "")
        print("-- docs/start.md", flush=True)
        _type_all(typist, commands("docs/start.md", "# Podman in five minutes", "## Without root"))
        for name in WHOLE_PAGES:
            print(f"-- docs/{name}.md", flush=True)
            _type_all(typist, commands(f"docs/{name}.md"))
        done = system.run(_LIFE, environment={"IMAGE": f"{registry.host}/team/app:zstd-chunked"})
        print(done.stdout, flush=True)
        expect(done.returncode == 0, "every end of a service", system.run("journalctl -u registry-storage").stdout)
        typist.types("registry-storagectl add registry.example.org/team/app:1")  # docs/images.md has removed it
        print("-- docs/start.md, back again", flush=True)
        _type_all(typist, commands("docs/start.md", "## Back again"))
        for left in ("etc/systemd/system/registry-storage.service", "etc/containers/storage.conf"):
            expect(not (root / left).exists(), "uninstall", f"{left} is still there")
        print("-- docs/start.md, without root", flush=True)
        _walk_without_root(system, names)


def _walk_without_root(system: systemd.Booted, names: dict[str, str]) -> None:
    """As a user whose manager runs, as after a log-in."""
    home = f"/home/{USER}"
    done = system.run(f"""
set -e
id {USER} 2> /dev/null || useradd {USER}
install -d -o {USER} -g {USER} {home}
loginctl enable-linger {USER}
for _ in $(seq 300); do [ -S /run/user/$(id -u {USER})/bus ] && break; sleep 0.1; done
echo "user $(id -u {USER})"
""")
    expect(done.returncode == 0, "the user's manager", done.stdout)
    runtime = f"/run/user/{done.stdout.split()[-1]}"
    environment = {
        "HOME": home,
        "XDG_RUNTIME_DIR": runtime,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
        "PATH": f"{home}/.local/registry-storage/bin:/usr/local/bin:/usr/bin:/bin",
    }
    typist = Typist(system, names, user=USER, environment=environment)
    _type_all(typist, commands("docs/start.md", "## Without root", "## Back again"))
    typist.types("registry-storagectl status")
    typist.types("podman rmi registry.example.org/team/app:zstd-chunked")
    typist.types("registry-storagectl uninstall --user")


def _test_the_wheel(system: systemd.Booted, command: str) -> None:
    """As the workflow does where it was built, with nothing to compile with."""
    print("-- the wheel's own test", flush=True)
    done = system.run(f"""
set -e
cd {TEST}
python3 -m venv venv
venv/bin/pip install -q --no-index --find-links /wheels --find-links wheels registry-storage wheels/*.whl
PATH={TEST}/venv/bin:$PATH
{command.replace("{project}", f"{TEST}/source")}
""")
    print(done.stdout, flush=True)
    expect(done.returncode == 0, "the wheel's own test", done.stdout)


def _type_all(typist: Typist, lines: list[str]) -> None:
    started, ran = time.monotonic(), False
    for number, command in enumerate(lines, 1):
        said = typist.types(command)
        if command.startswith("podman run"):
            expect("Redis server v=" in said, command, said)
            if not ran and "pip install" in " ".join(lines):
                print(f"-- {number} commands, {time.monotonic() - started:.1f} s, without a network", flush=True)
            ran = True
        elif command.startswith("registry-storagectl ls"):
            expect("team/app:zstd-chunked" in said, command, said)


@contextmanager
def _filled_registry(scratch: Path) -> Iterator[Registry]:
    """The documentation's registry, which takes pushes."""
    places.remove_tree(scratch)
    with Registry(scratch / "storage", scratch / "own") as registry:
        with Registry(images.registry_storage(), scratch / "lab", readonly=True) as laboratory:
            for name, ours in _IMAGES.items():
                words = ["skopeo", "copy", "-q", "--preserve-digests", "--src-tls-verify=false"]
                words += ["--dest-tls-verify=false", f"docker://{laboratory.host}/{ours}"]
                processes.run([*words, f"docker://{registry.host}/{name}"])
        yield registry
