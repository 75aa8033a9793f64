"""What the images of hellobench are for: a command, and how it says that it is ready."""

from collections.abc import Mapping
from dataclasses import dataclass

_COMPILE = r"""
printf '#include <stdio.h>\nint main(void) { puts("ready"); return 0; }\n' > /tmp/hello.c
gcc -O2 -o /tmp/hello /tmp/hello.c && exec /tmp/hello
"""

_DATABASE = """
export PATH="$(echo /usr/lib/postgresql/*/bin):$PATH" LC_ALL=C.UTF-8
mkdir -m 700 /tmp/data && chown postgres /tmp/data
as_postgres='setpriv --reuid=postgres --regid=postgres --clear-groups'
$as_postgres initdb --no-sync -D /tmp/data && exec $as_postgres postgres -D /tmp/data -k /tmp
"""


@dataclass(frozen=True, slots=True)
class Workload:
    """One image of the laboratory (`image`, a name in images.IMAGES), run until it is ready."""

    name: str
    image: str
    words: tuple[str, ...]
    ready: str
    """A line of its output that contains this says that it is ready."""


WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            "python3", "python", ("python3", "-c", "import numpy; print('ready:', numpy.arange(9.0).mean())"), "ready:"
        ),
        Workload("nodejs", "node", ("node", "-e", "console.log('ready:', process.versions.v8)"), "ready:"),
        Workload("gcc", "gcc", ("sh", "-c", _COMPILE), "ready"),
        Workload("postgres", "postgres", ("sh", "-c", _DATABASE), "ready to accept connections"),
        Workload("redis", "redis", ("redis-server", "--save", ""), "Ready to accept connections"),
        Workload(
            "nginx", "nginx", ("nginx", "-g", "daemon off; error_log /dev/stderr notice;"), "start worker process "
        ),
    )
}
