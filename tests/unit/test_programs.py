"""A program that is begun brings its libraries along, from whichever layer of the image has them."""

import json
import os
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from registry_storage.cache.root import LayerKey
from registry_storage.digest import Digest
from registry_storage.errors import UnavailableError
from registry_storage.formats.detect import detect
from registry_storage.formats.prefetch_ranges import PREFETCH_ANNOTATION
from registry_storage.layer import programs
from registry_storage.layer.activity import Activity
from registry_storage.layer.layer import Layer
from registry_storage.layer.loose import LooseChunks
from registry_storage.layer.programs import END_BYTES, Programs
from registry_storage.layer.source import BlobSource
from registry_storage.layer.spare import SpareTime
from registry_storage.layer.start import Start
from registry_storage.layer.union import Place, find
from registry_storage.registry.hosts import LinkEstimate
from tests.fakes.images import BuiltLayer, File, build_layer, directory
from tests.fakes.programs import CODE_BYTES, DATA_BYTES, TABLES_BYTES, program
from tests.unit.test_chunk_fetcher import ScriptedSource, make_fetcher, until

CHUNK = 1000
IMAGE = Digest("1" * 64)
WHOLE = TABLES_BYTES + CODE_BYTES + DATA_BYTES
LOADED = {n for n in range(0, WHOLE, CHUNK) if n < END_BYTES or n + DATA_BYTES >= WHOLE}
"""Where the chunks of a program begin that the loader reads, or that come along at its ends."""
LIB = "usr/lib/x86_64-linux-gnu"


class Source(ScriptedSource):
    """Everything comes at once, unless it is `broken`."""

    link = LinkEstimate(round_trip_seconds=0.001, bytes_per_second=1e6)
    broken = False

    async def stream(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        self.asked.append((offset, offset + size))
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise UnavailableError("nothing comes")
        yield self._blob[offset : offset + size]


@dataclass(frozen=True, slots=True)
class Shown:
    layer: Layer
    source: Source

    def inode(self, path: str) -> int:
        inode: int | None = 0
        for name in path.encode().split(b"/"):
            assert inode is not None
            inode = self.layer.index.lookup(inode, name)
        assert inode is not None
        return inode

    def here(self, path: str) -> set[int]:
        """Where the chunks of the file begin that are ready."""
        inode = self.inode(path)
        first, end = self.layer.index.chunk_range(inode, 0, WHOLE)
        return {(n - first) * CHUNK for n in range(first, end) if self.layer.content.is_ready(n)}


class Stand:
    """Programs of images that are told of layers as the pool does."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.spare = SpareTime(Activity(), lambda: True)
        self.programs = Programs(nursery, self.spare)

    def know(self, *layers: Shown) -> None:
        for position, shown in enumerate(layers):
            self.programs.know(shown.layer, IMAGE, position)


def show(files: Sequence[File], home: Path, nursery: trio.Nursery) -> Shown:
    built: BuiltLayer = build_layer(files)
    home.mkdir()
    source = Source(built.blob)
    chunks = make_fetcher(built, home, nursery, source)
    key = LayerKey(built.descriptor.digest, built.toc_digest)
    layer = Layer(
        key, built.descriptor, detect(built.descriptor).format, chunks._index, chunks._content,
        cast("BlobSource", source), chunks, LooseChunks(lambda size: False),
    )  # fmt: skip
    return Shown(layer, source)


def binary(path: str, *needed: str, runpath: str = "", interpreter: str = "", mode: int = 0o644) -> File:
    data = program(needed, runpath=runpath, interpreter=interpreter, fill=path.encode())
    return File(path, data, chunk_size=CHUNK, mode=mode)


def link(path: str, target: str) -> File:
    return File(path, type="symlink", link=target)


def tree(*files: File) -> list[File]:
    """With the directories."""
    names = {file.name.rpartition("/")[0] for file in files}
    parents = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 2)}
    return [*(directory(name) for name in sorted(parents)), *files]


async def test_the_libraries_of_a_program_come_from_all_layers_and_nothing_but_what_the_loader_reads(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "WHOLE_REACHES", 0)
    base = show(
        tree(
            binary(f"{LIB}/libc.so.6"),
            binary("opt/libz.so.1.2.13", "libc.so.6"),
            link(f"{LIB}/libz.so.1", "../../../etc/alternatives/libz"),
            link("etc/alternatives/libz", "/opt/libz.so.1.2.13"),
            binary("usr/lib/ld.so"),
            link("lib64", "usr/lib"),
            binary(f"{LIB}/libother.so"),
        ),
        tmp_path / "base",
        nursery,
    )
    app = show(
        tree(
            binary("app/bin/tool", "libz.so.1", "libapp.so", runpath="$ORIGIN/../lib", interpreter="/lib64/ld.so"),
            binary("app/lib/libapp.so", "libc.so.6"),
        ),
        tmp_path / "app",
        nursery,
    )
    Stand(nursery).know(base, app)
    await app.layer.read(app.inode("app/bin/tool"), 0, 100)
    wanted = [
        (app, "app/lib/libapp.so"), (base, f"{LIB}/libc.so.6"), (base, "opt/libz.so.1.2.13"), (base, "usr/lib/ld.so")
    ]  # fmt: skip
    for shown, path in wanted:
        await until(lambda shown=shown, path=path: shown.here(path) >= LOADED)  # type: ignore[misc]
    assert all(base.here(path) == LOADED for shown, path in wanted if shown is base)
    assert base.here(f"{LIB}/libother.so") == set()


async def test_a_library_that_costs_little_comes_whole_with_one_request(tmp_path: Path, nursery: trio.Nursery) -> None:
    base = show(tree(binary(f"{LIB}/libc.so.6")), tmp_path / "base", nursery)
    app = show(tree(binary("tool", "libc.so.6")), tmp_path / "app", nursery)
    Stand(nursery).know(base, app)
    await app.layer.read(app.inode("tool"), 0, 100)
    await until(lambda: base.here(f"{LIB}/libc.so.6") == set(range(0, WHOLE, CHUNK)))
    assert len(base.source.asked) == 1


async def test_a_program_is_looked_at_once(tmp_path: Path, nursery: trio.Nursery) -> None:
    one = show(tree(binary("a", "libb.so"), binary("usr/lib/libb.so")), tmp_path / "one", nursery)
    told: list[int] = []
    Stand(nursery).know(one)
    look = one.layer.chunks.begun

    def note(inode: int) -> None:
        told.append(inode)
        look(inode)

    one.layer.chunks.begun = note
    for _ in range(3):
        await one.layer.read(one.inode("a"), 0, WHOLE)
        one.layer.evict(range(one.layer.index.chunk_count))
    assert told == [one.inode("a")]


async def test_what_is_not_there_or_cannot_be_had_is_left_to_the_reader(tmp_path: Path, nursery: trio.Nursery) -> None:
    base = show(tree(binary(f"{LIB}/libc.so.6")), tmp_path / "base", nursery)
    app = show(tree(binary("tool", "libnone.so", "../x.so", "libc.so.6")), tmp_path / "app", nursery)
    Stand(nursery).know(base, app)
    base.source.broken = True
    await app.layer.read(app.inode("tool"), 0, 100)
    await until(lambda: bool(base.source.asked))
    base.source.broken = False
    assert await base.layer.read(base.inode(f"{LIB}/libc.so.6"), 0, 4) == b"\x7fELF"


async def test_libraries_that_need_each_other_and_ever_more_of_them_end(tmp_path: Path, nursery: trio.Nursery) -> None:
    names = [f"lib{number}.so" for number in range(100)]
    files = [binary(f"usr/lib/{name}", names[(n + 1) % 100], name) for n, name in enumerate(names)]
    one = show(tree(binary("tool", names[0]), *files), tmp_path / "one", nursery)
    Stand(nursery).know(one)
    await one.layer.read(one.inode("tool"), 0, 100)
    await until(lambda: bool(one.here("usr/lib/lib60.so")))
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert not one.here("usr/lib/lib70.so")


async def test_the_programs_that_an_image_names_are_brought_whole_before_anybody_reads_them(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    script = File("usr/local/bin/entry.sh", b"#!/bin/sh -e\nexec \"$@\"\n", mode=0o755)
    sh = binary("usr/bin/dash", "libc.so.6", mode=0o755)
    links = link("usr/bin/sh", "dash"), link("bin", "usr/bin")
    base = show(tree(binary(f"{LIB}/libc.so.6"), sh, *links), tmp_path / "1", nursery)
    app = show(
        tree(script, binary("usr/sbin/server", mode=0o755), binary("usr/bin/other", mode=0o755), binary("etc/conf")),
        tmp_path / "2",
        nursery,
    )
    stand = Stand(nursery)
    stand.know(base, app)
    nursery.start_soon(stand.spare.run)
    config = b'{"config": {"Entrypoint": ["entry.sh"], "Cmd": ["server", "-c", "/etc/conf"], "Env": [7, "A=b"]}}'
    stand.programs.start(IMAGE, Start.of(config, "config"))
    whole = set(range(0, WHOLE, CHUNK))
    for shown, path in [(app, "usr/sbin/server"), (base, "usr/bin/dash"), (base, f"{LIB}/libc.so.6")]:
        await until(lambda shown=shown, path=path: shown.here(path) == whole)  # type: ignore[misc]
    assert app.here("usr/bin/other") == app.here("etc/conf") == set()


async def test_images_that_say_what_is_needed_are_left_alone(tmp_path: Path, nursery: trio.Nursery) -> None:
    between = File("usr/bin/x", os.urandom(1 << 20))
    files = [binary("usr/bin/tool", "libc.so.6", mode=0o755), between, binary("usr/lib/libc.so.6")]
    one = show(tree(*files), tmp_path / "one", nursery)
    one.layer.descriptor.annotations[PREFETCH_ANNOTATION] = "0+1"  # type: ignore[index]
    stand = Stand(nursery)
    stand.know(one)
    stand.programs.start(IMAGE, Start.of(b'{"config": {"Cmd": ["tool"]}}', "config"))
    await one.layer.read(one.inode("usr/bin/tool"), 0, 100)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert one.here("usr/lib/libc.so.6") == set()


@pytest.mark.parametrize(
    "config",
    [
        "{}", '{"config": 7}', '{"config": {"Cmd": "x"}}', '{"config": {"Cmd": [[]], "Env": {}, "WorkingDir": 1}}',
        '{"config": {"Cmd": ["", "-", "--x"], "Env": ["PATH"]}}',
    ],
)  # fmt: skip
def test_a_config_that_names_no_program_names_none(config: str) -> None:
    assert list(Start.of(config.encode(), "config").candidates()) == []


def test_words_of_a_config_become_paths() -> None:
    config = json.dumps({
        "config": {
            "Entrypoint": ["/bin/sh", "-c", "exec ./run --fast"], "Cmd": ["a"], "WorkingDir": "/app",
            "Env": ["PATH=/x:relative:/y"],
        }
    })  # fmt: skip
    found = [path.decode() for path in Start.of(config.encode(), "config").candidates()]
    assert found == ["/bin/sh", "/x/exec", "/y/exec", "/app/./run", "/x/a", "/y/a"]
    many = json.dumps({"config": {"Cmd": ["a" * 5000] * 10_000, "Env": ["PATH=" + "/p:" * 10_000]}})
    assert len(list(Start.of(many.encode(), "config").candidates())) < 1000


async def test_links_in_circles_and_out_of_the_root_lead_nowhere(tmp_path: Path, nursery: trio.Nursery) -> None:
    one = show(
        tree(
            link("a", "b"), link("b", "a"), link("up", "../../../file"), File("file", b"x"), link("d/e", "/d/../up"),
            link("none", "/nowhere"),
        ),
        tmp_path / "one",
        nursery,
    )  # fmt: skip
    layers = [one.layer]
    assert find(layers, b"/a") is None
    assert find(layers, b"/none") is None
    assert find(layers, b"/d") is None
    assert find(layers, b"/") is None
    assert find(layers, b"/file/below") is None
    assert find(layers, b"/d/e") == find(layers, b"/up") == Place(one.layer, one.inode("file"))
