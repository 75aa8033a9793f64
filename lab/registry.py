"""A real registry (distribution's `docker-registry`) on a free loopback port, with storage of its own."""

import contextlib
import hashlib
import json
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab import processes

_CONFIG = """\
version: 0.1
log:
  level: warn
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {storage}
  delete:
    enabled: true
  maintenance:
    uploadpurging:
      enabled: false
    readonly:
      enabled: {readonly}
http:
  addr: {address}:{port}
"""
_PROXY = """\
proxy:
  remoteurl: http://{upstream}
"""

_MANIFESTS = ", ".join(
    [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)


class Registry:
    """Runs between `with` and its end. `storage` survives it; `scratch` holds config and log."""

    def __init__(
        self,
        storage: Path,
        scratch: Path,
        *,
        readonly: bool = False,
        port: int | None = None,
        address: str = "127.0.0.1",
        upstream: str = "",
        prefix: Sequence[str] = (),
    ) -> None:
        """`upstream`: what it is a pull-through cache of. `prefix`: words that enter a namespace."""
        self.storage = storage
        self.scratch = scratch
        self.readonly = readonly
        self.port = port or processes.free_port()
        self.address = address
        self.upstream = upstream
        self.prefix = tuple(prefix)
        self.host = f"{address}:{self.port}"
        self._process: processes.Background | None = None

    def start(self) -> None:
        """Starts it at its port; returns when it accepts connections."""
        self.storage.mkdir(parents=True, exist_ok=True)
        self.scratch.mkdir(parents=True, exist_ok=True)
        config = self.scratch / "registry.yml"
        config.write_text(
            _CONFIG.format(
                storage=self.storage, address=self.address, port=self.port, readonly=str(self.readonly).lower()
            )
            + (_PROXY.format(upstream=self.upstream) if self.upstream else "")
        )
        self._process = processes.Background(
            [*self.prefix, "docker-registry", "serve", config],
            log=self.scratch / "registry.log",
            environment={"OTEL_TRACES_EXPORTER": "none"},
        )
        self._process.wait_until(lambda: self._answers(), what="accepting connections")

    def _answers(self) -> bool:
        if not self.prefix:
            return processes.answers(self.port)
        script = f"import socket; socket.create_connection(('{self.address}', {self.port}), 1)"
        return processes.run([*self.prefix, sys.executable, "-c", script], allow_failure=True).returncode == 0

    def stop(self) -> None:
        """Ends it; connections are refused from then on."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def manifest(self, name: str) -> dict[str, Any]:
        """The manifest of `repository:tag`."""
        return manifest_at(self.host, name)


def manifest_at(host: str, name: str) -> dict[str, Any]:
    """The manifest of `repository:tag` in the plain-HTTP registry at `host`; an index is not followed."""
    repository, _, tag = name.rpartition(":")
    request = urllib.request.Request(
        f"http://{host}/v2/{repository}/manifests/{tag}", headers={"Accept": _MANIFESTS}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        document: dict[str, Any] = json.load(response)
    return document


def fetch_blob(host: str, repository: str, digest: str) -> bytes:
    """A blob of the registry at `host`."""
    with urllib.request.urlopen(f"http://{host}/v2/{repository}/blobs/{digest}", timeout=60) as response:
        data: bytes = response.read()
    return data


def push_document(host: str, repository: str, data: bytes, media_type: str) -> dict[str, Any]:
    """Push a config; returns its descriptor."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    push_blob(host, repository, digest, data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def push_blob(host: str, repository: str, digest: str, data: bytes) -> None:
    """Push one whole blob."""
    start = urllib.request.Request(f"http://{host}/v2/{repository}/blobs/uploads/", data=b"", method="POST")
    with urllib.request.urlopen(start, timeout=60) as response:
        place = response.headers["Location"]
    url = f"{place}{'&' if '?' in place else '?'}digest={digest}"
    request = urllib.request.Request(
        url if url.startswith("http") else f"http://{host}{url}",
        data=data,
        headers={"Content-Type": "application/octet-stream"},
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=60):
        pass


def push_manifest(host: str, name: str, manifest: dict[str, Any]) -> None:
    """Push the manifest of `repository:tag`."""
    repository, _, tag = name.rpartition(":")
    request = urllib.request.Request(
        f"http://{host}/v2/{repository}/manifests/{tag}",
        data=json.dumps(manifest).encode(),
        headers={"Content-Type": manifest["mediaType"]},
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=60):
        pass


def compressed_size(manifest: dict[str, Any]) -> int:
    """Bytes of all layers as they are in the registry."""
    return sum(layer["size"] for layer in manifest["layers"])


@contextlib.contextmanager
def registry_of(storage: Path, scratch: Path, *, readonly: bool = False) -> Iterator[Registry]:
    """A registry over existing storage."""
    with Registry(storage, scratch, readonly=readonly) as registry:
        yield registry
