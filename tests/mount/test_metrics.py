"""Metrics and traces of a running daemon agree with what the registry saw."""

import json
import os
import random
import re
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.fakes.images import File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon
from .test_supervision import another_worker, eventually, worker_of

DATA = bytes(range(256)) * 4000
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def values(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by name and labels, in the order of their names; the parser is strict."""
    families: Iterable[Metric] = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def range_bytes(header: str) -> int:
    first, _, last = header.removeprefix("bytes=").partition("-")
    return int(last) - int(first) + 1


def blob_size(registry: FakeRegistry, path: str) -> int:
    return next(len(data) for (_, digest), data in registry.blobs.items() if digest in path)


def scrape(port: int, path: str = "/metrics") -> tuple[str, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Accept": OPENMETRICS})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_the_numbers_are_those_of_the_registry(daemon: Daemon, registry: FakeRegistry) -> None:
    registry.redirect_blobs = True
    image = put_image(registry, [build_layer([File("file", DATA), File("other", DATA[::-1])])])
    registry.inject("status", path="/manifests/", status=503)
    port = free_port()
    daemon.start("--metrics", f"127.0.0.1:{port}")
    layer = daemon.layer(image) / "diff"
    assert (layer / "file").read_bytes() == DATA
    assert (layer / "other").read_bytes() == DATA[::-1]
    kind, text = scrape(port)
    assert kind.startswith("application/openmetrics-text")
    seen = values(text)
    for host, listener in ((registry.host, "registry"), (registry.storage_host, "storage")):
        requests = sum(
            value
            for (name, labels), value in seen.items()
            if name == "registry_storage_registry_requests_total" and labels[1] == host
        )
        assert requests == len(registry.requests(listener=listener))
    assert seen["registry_storage_registry_requests_total", ("503", registry.host)] == 1
    assert seen["registry_storage_retries_total", ("503", registry.host)] == 1
    assert sum(value for (name, _), value in seen.items() if name == "registry_storage_retries_total") == 1
    assert seen["registry_storage_network_bytes_total", (registry.storage_host,)] == sum(
        range_bytes(request.headers["range"]) if "range" in request.headers else blob_size(registry, request.path)
        for request in registry.requests(listener="storage")
    )
    assert seen["registry_storage_read_bytes_total", ()] >= 2 * len(DATA)
    assert seen["registry_storage_operation_seconds_count", ("missing_read",)] >= 1
    assert seen["registry_storage_lane_answered_total", ()] > 0
    assert seen["registry_storage_present_chunks", ()] == seen["registry_storage_chunks", ()] > 0
    assert seen["process_resident_memory_bytes", ()] > 1 << 20
    assert seen["registry_storage_refused_chunks_total", ()] == 0


@pytest.mark.parametrize(("fault", "path"), [("disconnect", "/manifests/"), ("reset", "/blobs/")])
def test_a_retry_is_counted_for_the_host_that_did_not_answer(
    daemon: Daemon, registry: FakeRegistry, fault: str, path: str
) -> None:
    image = put_image(registry, [build_layer([File("file", DATA)])])
    registry.inject(fault, path=path, at=10)
    port = free_port()
    daemon.start("--metrics", f"127.0.0.1:{port}")
    assert (daemon.layer(image) / "diff" / "file").read_bytes() == DATA
    seen = values(scrape(port)[1])
    retries = {labels: value for (name, labels), value in seen.items() if name == "registry_storage_retries_total"}
    assert retries == {("0", registry.host): 1}


def test_the_cache_and_what_it_lets_go_are_counted(daemon: Daemon, registry: FakeRegistry) -> None:
    budget = 4 << 20
    files = [File(f"file{number}", random.Random(number).randbytes(1 << 20)) for number in range(24)]
    image = put_image(registry, [build_layer(files)])
    port = free_port()
    daemon.start("--metrics", f"127.0.0.1:{port}", "--cache-size", str(budget))
    for file in files:
        (daemon.layer(image) / "diff" / file.name).read_bytes()

    def agree() -> bool:
        seen = values(scrape(port)[1])
        on_disk = sum(path.stat().st_blocks * 512 for path in daemon.root.glob("layers/*/content"))
        assert seen["registry_storage_cache_budget_bytes", ()] == budget
        return on_disk <= budget and seen["registry_storage_cache_bytes", ()] == on_disk

    eventually(agree)
    seen = values(scrape(port)[1])
    assert seen["registry_storage_evictions_total", ()] >= 2
    fetched = sum(value for (name, _), value in seen.items() if name == "registry_storage_network_bytes_total")
    evicted = seen["registry_storage_evicted_bytes_total", ()]
    assert fetched - budget - evicted < 1 << 20, "random bytes take as much on the disk as they took on the way"
    share = seen["registry_storage_present_chunks", ()] / seen["registry_storage_chunks", ()]
    assert 0 < share < 0.5


def test_a_new_worker_counts_anew_and_says_since_when(daemon: Daemon, registry: FakeRegistry) -> None:
    image = put_image(registry, [build_layer([File("file", DATA), File("other", DATA[::-1])])])
    port = free_port()
    daemon.start("--metrics", f"127.0.0.1:{port}")
    (daemon.layer(image) / "diff" / "file").read_bytes()
    before = values(scrape(port)[1])
    worker = worker_of(daemon)
    os.kill(worker, signal.SIGKILL)
    another_worker(daemon, worker)
    (daemon.layer(image) / "diff" / "other").read_bytes()
    after = values(scrape(port)[1])
    since = [key for key in after if key[0].endswith("_created")]
    names = {"registry_storage_read_bytes_created", "registry_storage_refused_chunks_created"}
    assert names <= {name for name, _ in since}
    assert min(after[key] for key in since) > max(before[key] for key in before if key[0].endswith("_created"))
    assert after["process_start_time_seconds", ()] > before["process_start_time_seconds", ()]
    assert len(DATA) <= after["registry_storage_read_bytes_total", ()] < 2 * len(DATA)


def test_the_dashboard_shows_what_there_is(daemon: Daemon) -> None:
    dashboard = json.loads((Path(__file__).parents[2] / "deploy/grafana/dashboard.json").read_text())
    port = free_port()
    daemon.start("--metrics", f"127.0.0.1:{port}")
    daemon.mountpoint.stat()
    text = scrape(port)[1]
    families: Iterable[Metric] = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    names = {family.name + end for family in families for end in ("", "_total", "_bucket", "_count", "_sum")}
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len(panels) >= 8
    for panel in panels:
        assert panel["description"]
        for target in panel["targets"]:
            used = re.findall(r"(?:registry_storage|process)_[a-z_]+", target["expr"])
            assert used
            assert set(used) <= names


def test_a_refused_chunk_is_counted(daemon: Daemon, registry: FakeRegistry) -> None:
    layer = build_layer([File("file", DATA)])
    image = put_image(registry, [layer])
    offset, size = layer.places["file"][0]
    registry.inject("flip", path="/blobs/", times=None, offsets=tuple(range(offset, offset + size)))
    port = free_port()
    daemon.start("--metrics", f"127.0.0.1:{port}")
    with pytest.raises(OSError, match="Input/output error"):
        (daemon.layer(image) / "diff" / "file").read_bytes()
    seen = values(scrape(port)[1])
    assert seen["registry_storage_refused_chunks_total", ()] >= 1
    assert seen["registry_storage_operation_errors_total", ("missing_read",)] >= 1


def test_a_socket_of_the_file_system_and_other_paths(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    daemon.start("--metrics", str(path))
    for target, wanted in (("/metrics", b"200"), ("/other", b"404")):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        assert answer.split()[1] == wanted
    daemon.stop()
    daemon.start("--metrics", str(path))


def test_an_address_that_is_taken_is_named(daemon: Daemon) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError, match=f"metrics: 127.0.0.1:{port}: Address already in use"):
            daemon.start("--metrics", f"127.0.0.1:{port}")


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """Takes OTLP over HTTP; the spans as they come."""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_cold_start_is_traced(
    daemon: Daemon, registry: FakeRegistry, collector: tuple[str, list[Any]]
) -> None:
    url, spans = collector
    image = put_image(registry, [build_layer([File("file", DATA)])])
    daemon.start("--traces", url)
    assert (daemon.layer(image) / "diff" / "file").read_bytes() == DATA
    assert daemon.stop() == 0
    by_id = {span.span_id: span for span in spans}
    by_name: dict[str, list[Any]] = {}
    for span in spans:
        by_name.setdefault(span.name, []).append(span)
    assert {"fuse lookup", "fetch manifest", "fetch TOC", "fuse read", "fetch range"} <= set(by_name)

    def above(span: Any) -> list[str]:
        names = []
        while span.parent_span_id:
            span = by_id[span.parent_span_id]
            names.append(span.name)
        return names

    assert above(by_name["fetch manifest"][0])[-1] == "fuse lookup"
    assert above(by_name["fetch TOC"][0])[-1].startswith("fuse ")
    assert above(by_name["fetch range"][0])[-1] == "fuse read"
    for span in spans:
        assert span.end_time_unix_nano >= span.start_time_unix_nano
