"""The pushing half of the fake registry (OCI distribution specification, "Push")."""

import re
from urllib.parse import parse_qs, urlsplit

from registry_storage.digest import Digest

from .answers import Answer, LoggedRequest, refusal


class Uploads:
    """Uploads that have begun; what is complete goes into the registry's dictionaries."""

    def __init__(
        self, blobs: dict[tuple[str, str], bytes], manifests: dict[tuple[str, str], tuple[str, bytes]]
    ) -> None:
        self._blobs = blobs
        self._manifests = manifests
        self._number = 0
        self.open: dict[str, bytearray] = {}
        """By the last part of their path."""
        self.status_served = True
        """Whether a GET of an upload is answered."""

    def answer(self, request: LoggedRequest) -> Answer | None:
        """None: not a request of this half."""
        if request.listener != "registry":
            return None
        parts = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if match := re.fullmatch(r"/v2/(.+)/blobs/uploads/([^/]*)", parts.path):
            return self._upload(request, match[1], match[2], query)
        match = re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", parts.path)
        if match and request.method == "PUT":
            return self._manifest(request, match[1], match[2])
        return None

    def _upload(self, request: LoggedRequest, repository: str, name: str, query: dict[str, str]) -> Answer:
        if request.method == "POST" and not name:
            data = self._blobs.get((query.get("from", ""), query.get("mount", "")))
            if data is not None:
                self._blobs[repository, query["mount"]] = data
                return Answer(201, {"location": f"/v2/{repository}/blobs/{query['mount']}"})
            self._number += 1
            name = f"upload-{self._number}"
            self.open[name] = bytearray()
            return self._accepted(repository, name, 202)
        received = self.open.get(name)
        if received is None:
            return refusal(404, "BLOB_UPLOAD_UNKNOWN")
        match request.method:
            case "PATCH":
                start = re.match(r"([0-9]+)-", request.headers.get("content-range", "0-"))
                if start is None or int(start[1]) != len(received):
                    return Answer(416, {})
                received += request.body
                return self._accepted(repository, name, 202)
            case "GET":
                return self._accepted(repository, name, 204) if self.status_served else refusal(405, "UNSUPPORTED")
            case "DELETE":
                del self.open[name]
                return Answer(204, {})
            case "PUT" if "digest" in query:
                received += request.body
                if int(request.headers["content-length"]) != len(request.body):
                    return refusal(400, "SIZE_INVALID")  # cut off
                if str(Digest.of(received)) != query["digest"]:
                    return refusal(400, "DIGEST_INVALID")
                self._blobs[repository, query["digest"]] = bytes(received)
                del self.open[name]
                return Answer(201, {"location": f"/v2/{repository}/blobs/{query['digest']}"})
        return refusal(405, "UNSUPPORTED")

    def _accepted(self, repository: str, name: str, status: int) -> Answer:
        size = len(self.open[name])
        headers = {"location": f"/v2/{repository}/blobs/uploads/{name}?_state=a%3Db", "range": f"0-{max(0, size - 1)}"}
        return Answer(status, headers)

    def _manifest(self, request: LoggedRequest, repository: str, version: str) -> Answer:
        digest = Digest.of(request.body)
        if version.startswith("sha256:") and version != str(digest):
            return refusal(400, "DIGEST_INVALID")
        kept = request.headers["content-type"], request.body
        self._manifests[repository, version] = self._manifests[repository, str(digest)] = kept
        return Answer(201, {"location": f"/v2/{repository}/manifests/{digest}", "docker-content-digest": str(digest)})
