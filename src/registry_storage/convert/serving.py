"""A registry on loopback for one image in an OCI image layout, to be read only, for as long as a workload runs."""

import re
import shutil
import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from ..digest import Digest
from .layout import Layout

REPOSITORY = "workload"
_PATH = re.compile(rf"/v2/{REPOSITORY}/(manifests|blobs)/sha256:([0-9a-f]{{64}})", re.ASCII)
_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{1,18})", re.ASCII)


class LayoutRegistry:
    """Serves between `with` and its end; what a blob's name does not lead to is not served."""

    def __init__(self, layout: Path, manifest_digest: Digest, media_type: str) -> None:
        handler = partial(_Handler, Layout(layout), media_type)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.image = f"127.0.0.1:{self._server.server_port}/{REPOSITORY}@{manifest_digest}"
        """The name by which it can be pulled."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, layout: Layout, media_type: str, *arguments: object) -> None:
        self._layout = layout
        self._media_type = media_type
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        """See `do_GET`."""
        self.do_GET()

    def do_GET(self) -> None:
        """The API's root, manifests and blobs by digest (distribution specification, "Pull")."""
        if self.path == "/v2/":
            self._answer(HTTPStatus.OK, 2, "application/json", {})
            self.wfile.write(b"{}" if self.command == "GET" else b"")
            return
        match = _PATH.fullmatch(self.path)
        try:
            file = self._layout.blob_path(Digest(match[2])).open("rb") if match else None
        except OSError:
            file = None
        if match is None or file is None:
            self._answer(HTTPStatus.NOT_FOUND, 0, "application/json", {})
            return
        with file:
            kind = self._media_type if match[1] == "manifests" else "application/octet-stream"
            self._send(file, kind, {"Docker-Content-Digest": f"sha256:{match[2]}"})

    def _send(self, file: BinaryIO, kind: str, headers: dict[str, str]) -> None:
        size = file.seek(0, 2)
        wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
        first, end, status = 0, size, HTTPStatus.OK
        if wanted:
            first, end, status = int(wanted[1]), min(int(wanted[2]) + 1, size), HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
            if first >= end:
                self._answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, kind, {})
                return
        self._answer(status, end - first, kind, headers)
        if self.command == "GET":
            file.seek(first)
            shutil.copyfileobj(_Part(file, end - first), self.wfile, 1 << 20)

    def _answer(self, status: HTTPStatus, size: int, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the base class calls it so)
        """Nobody reads it."""


class _Part:
    """The next bytes of a file, and no more."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data
