"""The floors of the house: imports go down or stay in the same room, and each library has its place."""

import ast
import itertools
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "registry_storage"

FLOORS = {
    "errors": 0, "names": 0, "digest": 0, "descriptor": 0, "reference": 0, "config": 0, "logs": 0, "toc": 0, "_ext": 0,
    "__init__": 0, "user": 0, "notify": 0, "metrics": 0, "traces": 0, "clock": 0,
    "formats": 1,
    "registry": 2, "cache": 2, "control": 2, "podman": 2,
    "layer": 3, "host": 3,
    "store": 4, "convert": 4, "images": 4,
    "daemon": 5, "supervision": 5, "status": 5, "upkeep": 5, "cache_routes": 5, "flags": 5, "service": 5, "sight": 5,
    "image_requests": 5, "exposition": 5, "manual": 5, "auth_helper": 5, "cli": 5, "ctl": 5, "commands": 5,
    "__main__": 5, "testing": 5,
}  # fmt: skip

NEIGHBOURS_APART = [
    *itertools.combinations(("cache", "registry", "control", "podman"), 2),
    *itertools.combinations(("store", "convert", "images"), 2),
]
ONLY_IN = {
    "h11": {"control/messages.py", "control/server.py", "registry/wire.py", "exposition.py"},
    "prometheus_client": {"metrics.py", "exposition.py", "sight.py", "daemon.py"},
    "opentelemetry": {"traces.py"},
    "httpx": {"registry"},
    "pyfuse3": {"store/operations.py", "store/session.py"},
    "rich": {"commands/bars.py", "commands/status.py", "commands/top.py", "commands/top_view.py"},
}
KERNEL_OWNERS = {
    "chunk_digest": {"formats/verified.py"},
    "frames": {"formats/verified.py", "formats/pieces.py", "formats/frames.py"},
    "fuse_lane": {"store/lane.py"},
    "splitter": {"formats/chunker.py"},
    "toc_builder": {"toc/index.py"},
    "toc_index": {"toc/index.py"},
    "unpack": {"formats/unpacking.py"},
    "writer": {"formats/pack.py"},
}
MODULES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    """The top-level name a module belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Absolute names of imported modules (ours without the package's name, with a leading dot)."""
    package = path.relative_to(SOURCE).parent.parts
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            base = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = "." + ".".join([*above, base]).strip(".")
            found.append((base, names))
    return found


def targets(name: str, names: tuple[str, ...]) -> list[str]:
    """The rooms that an import of ours reaches."""
    if not name.startswith((".", "registry_storage")):
        return []
    inside = name.removeprefix("registry_storage").removeprefix(".")
    return [inside.split(".")[0]] if inside else [n if n in FLOORS else "__init__" for n in names]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_to_a_lower_floor_or_the_same_room(path: Path) -> None:
    here = room(path)
    assert here in FLOORS, f"{here} has no floor yet"
    for name, names in imports(path):
        for there in targets(name, names):
            lower = FLOORS[there] < FLOORS[here]
            one_room = there == here or FLOORS[there] == FLOORS[here] in (0, 5)
            assert lower or one_room, f"{here} imports {there}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_neighbours_do_not_know_each_other(path: Path) -> None:
    reached = {there for name, names in imports(path) for there in targets(name, names)}
    for one, other in NEIGHBOURS_APART:
        assert not (room(path) == one and other in reached)
        assert not (room(path) == other and one in reached)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_libraries_and_kernels_stay_in_their_place(path: Path) -> None:
    file = str(path.relative_to(SOURCE))
    for name, names in imports(path):
        library = name.split(".")[0]
        if library in ONLY_IN:
            assert {file, room(path)} & ONLY_IN[library], f"{file} imports {library}"
        if "_ext" in name.split(".") or name in ("._ext", "registry_storage._ext"):
            for kernel in {name.rsplit(".", 1)[-1], *names} & set(KERNEL_OWNERS):
                assert file in KERNEL_OWNERS[kernel], f"{file} uses the kernel {kernel}"


@pytest.mark.parametrize("path", [p for p in MODULES if room(p) in ("toc", "formats")], ids=lambda p: p.name)
def test_pure_rooms_do_no_input_or_output(path: Path) -> None:
    for name, _ in imports(path):
        assert name.split(".")[0] not in {"socket", "pathlib", "time", "logging", "trio", "tempfile", "subprocess"}
