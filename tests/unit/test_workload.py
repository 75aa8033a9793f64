"""What a workload reads, as a record of it."""

import io
import json

from registry_storage.convert.workload import Access, Workload, merge_record, write_record


def line(path: str, offset: int, size: int, layer: int = 0) -> dict[str, object]:
    return {"path": path, "manifestDigest": "sha256:m", "layerIndex": layer, "offset": offset, "size": size}


def test_files_come_in_the_order_of_their_first_reading_with_their_parts_merged() -> None:
    lines = [line("a", 0, 10), line("b", 0, 4, 1), line("a", 10, 5), line("a", 100, 1), line("b", 0, 4, 1)]
    assert merge_record(lines, "sha256:source") == [
        Access("a", 0, "sha256:source", [(0, 15), (100, 1)], [0, 3]),
        Access("b", 1, "sha256:source", [(0, 4), (0, 4)], [1, 4]),
    ]


def test_the_same_path_in_two_layers_is_two_files() -> None:
    found = merge_record([line("a", 0, 1, 0), line("a", 0, 1, 1)], "sha256:m")
    assert [(access.path, access.layer_index) for access in found] == [("a", 0), ("a", 1)]


def test_a_record_has_a_json_line_for_each_file() -> None:
    file = io.StringIO()
    write_record([Access("a/b", 2, "sha256:m", [(0, 5)], [7]), Access("c", 0, "sha256:m")], file)
    assert [json.loads(text) for text in file.getvalue().splitlines()] == [
        {"path": "a/b", "manifestDigest": "sha256:m", "layerIndex": 2, "ranges": [[0, 5]], "turns": [7]},
        {"path": "c", "manifestDigest": "sha256:m", "layerIndex": 0},
    ]


def test_a_workload_becomes_options_of_podman() -> None:
    workload = Workload(
        entrypoint="/bin/sh", environment=("A=1",), user="1000", directory="/srv", network="host", terminal=True
    )
    assert workload.podman_options() == [
        "--network=host", "--env=A=1", "--entrypoint=/bin/sh", "--user=1000", "--workdir=/srv", "--tty",
    ]  # fmt: skip
