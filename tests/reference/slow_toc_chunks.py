"""The chunks of a TOC by `json`, the slow and obvious way."""

import json
from typing import Any

from tests.fakes.layer_blobs import Chunk


def files_of_toc(toc: bytes, data_end: int) -> dict[str, tuple[dict[str, Any], list[Chunk]]]:
    """For each regular file its TOC entry and its chunks; `data_end`: where the last piece ends."""
    entries = json.loads(toc)["entries"]
    starts = sorted({entry["offset"] for entry in entries if entry.get("offset")} | {data_end})
    files: dict[str, tuple[dict[str, Any], list[Chunk]]] = {}
    number = 0
    for entry in entries:
        if entry["type"] == "reg":
            files[entry["name"]] = (entry, [])
        if entry["type"] not in ("reg", "chunk"):
            continue
        file, chunks = files[entry["name"]]
        if not file.get("size"):
            continue
        at = entry.get("chunkOffset", 0)
        size = entry.get("chunkSize", 0) or file["size"] - at
        digest = entry.get("chunkDigest") or file["digest"]
        offset = entry["offset"]
        end = next(start for start in starts if start > offset)
        hole = entry.get("chunkType") == "zeros"
        raw = bytes(32) if hole else bytes.fromhex(digest.removeprefix("sha256:"))
        blob_size = 0 if hole else end - offset
        chunks.append(Chunk(number, offset, blob_size, entry.get("innerOffset", 0), size, at, raw, hole))
        number += 1
    return files
