"""What a worker can do with what it has, and nobody with its memory."""

import os
import re
from pathlib import Path

import pytest

from registry_storage.supervision.privileges import KEPT
from tests.fakes.images import File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

MOUNTING = 1 << 21
"""CAP_SYS_ADMIN."""


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lose")
def test_a_worker_keeps_few_capabilities_gets_no_more_and_leaves_no_core(
    daemon: Daemon, registry: FakeRegistry
) -> None:
    data = os.urandom(1 << 20)
    image = put_image(registry, [build_layer([File("file", data)])])
    daemon.start()
    assert daemon.process is not None
    supervisor = daemon.process.pid
    (worker,) = map(int, Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split())
    assert int(status(supervisor)["CapEff"], 16) & MOUNTING
    allowed = sum(1 << number for number in KEPT.values())
    for task in Path(f"/proc/{worker}/task").iterdir():
        found = status(int(task.name))
        for name in ("CapEff", "CapPrm", "CapBnd"):
            assert int(found[name], 16) & ~allowed == 0, (task, name)
        assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
        assert found["NoNewPrivs"] == "1"
    limits = Path(f"/proc/{worker}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    assert (daemon.layer(image) / "diff/file").read_bytes() == data
    assert daemon.stop() == 0
