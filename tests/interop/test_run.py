"""Commands of every kind run from layers that were not downloaded, by each podman, from each tool's images."""

import json
import socket

import pytest

from lab import converters, processes
from tests.interop.stand import BOTH_COMPRESSIONS, Generation, Stand

FORMATS = pytest.mark.parametrize("image_format", converters.FORMATS)

LAZY_SHARE = 0.5
"""A pull and one command need less than this share of the image's bytes; really about a third."""

_NUMPY = "import json, numpy; print(json.dumps(numpy.linspace(0, 1, 5).tolist()))"

_COMPILE = """\
cd /tmp
cat > hello.c <<'END'
#include <math.h>
#include <stdio.h>
int main(void) { printf("%.3f\\n", sqrt(2.0)); return 0; }
END
gcc -O2 -o hello hello.c -lm
./hello
"""


def test_the_podmans_are_of_the_generations_they_are_called(stand: Stand, generation: Generation) -> None:
    assert stand.podman.version().startswith(generation.version)


@FORMATS
def test_python_with_numpy_runs(stand: Stand, image_format: str) -> None:
    image = converters.tag("python", image_format)
    stand.pull("python", image_format)
    assert json.loads(stand.podman.run_image(image, "python3", "-c", _NUMPY)) == [0, 0.25, 0.5, 0.75, 1]
    _came_lazily(stand, "python", image_format)
    stand.remove_everything()


@BOTH_COMPRESSIONS
def test_a_compiler_compiles_and_its_program_runs(stand: Stand, image_format: str) -> None:
    image = converters.tag("gcc", image_format)
    stand.pull("gcc", image_format)
    assert stand.podman.run_image(image, "sh", "-c", _COMPILE) == "1.414\n"
    _came_lazily(stand, "gcc", image_format)
    stand.remove_everything()


@FORMATS
def test_a_server_answers(stand: Stand, image_format: str) -> None:
    image = converters.tag("redis", image_format)
    stand.pull("redis", image_format)
    port = processes.free_port()
    server = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "")
    log = stand.podman.run("run", "-d", "--network=host", stand.podman.name(image), *server)
    container = log.stdout.strip()
    assert _ask_redis(stand, container, port, b"SET key value\r\nGET key\r\n") == b"+OK\r\n$5\r\nvalue\r\n"
    inside = stand.podman.run("exec", container, "redis-cli", "-p", str(port), "GET", "key")
    assert inside.stdout == "value\n"
    stand.podman.run("stop", "-t", "5", container)
    _came_lazily(stand, "redis", image_format)
    stand.remove_everything()


@BOTH_COMPRESSIONS
def test_a_second_pull_after_removal_is_as_lazy_as_the_first(stand: Stand, image_format: str) -> None:
    image = converters.tag("python", image_format)
    first = stand.pull("python", image_format)
    stand.podman.run_image(image, "python3", "-c", _NUMPY)
    stand.remove_everything()
    stand.crossed()
    assert len(stand.pull("python", image_format).lazy) == len(first.lazy)
    stand.podman.run_image(image, "python3", "-c", _NUMPY)
    if stand.generation.asks_for(image_format):
        # What was read before is still here; the manifest and some documents may be asked for again.
        assert stand.crossed().down_bytes < 2_000_000
    stand.remove_everything()


@FORMATS
def test_what_a_layer_removed_stays_removed(stand: Stand, image_format: str) -> None:
    image = converters.tag("odd", image_format)
    stand.pull("odd", image_format)
    script = "ls -A /etc/skel; ls /etc/issue /usr/bin/tac /usr/share/bug 2>&1 | sort; cat /odd/links/below/third"
    assert stand.podman.run_image(image, "sh", "-c", script).splitlines() == [
        "only-this",
        "ls: cannot access '/etc/issue': No such file or directory",
        "ls: cannot access '/usr/bin/tac': No such file or directory",
        "ls: cannot access '/usr/share/bug': No such file or directory",
        "linked three times",
    ]
    stand.remove_everything()


def _came_lazily(stand: Stand, name: str, image_format: str) -> None:
    """Far fewer bytes came over the link than the image has."""
    if stand.generation.asks_for(image_format):
        share = stand.crossed().down_bytes / stand.laboratory.image_bytes(converters.tag(name, image_format))
        assert share < LAZY_SHARE, f"{share:.0%} of the image came over the link"


def _ask_redis(stand: Stand, container: str, port: int, question: bytes) -> bytes:
    deadline_tries = 200
    for _ in range(deadline_tries):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=0.1) as connection:
                connection.settimeout(10)
                connection.sendall(question + b"QUIT\r\n")
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
                return answer.removesuffix(b"+OK\r\n")
        except ConnectionRefusedError:
            stand.podman.run("wait", "--condition=running", container)
    raise AssertionError(stand.podman.run("logs", container).stdout)
