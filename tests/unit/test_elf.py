"""Heads of programs: what the dynamic loader will read, and nothing that does not fit."""

import random
import subprocess
import sys
from pathlib import Path

from registry_storage.layer.elf import HEAD_BYTES, Dynamic, Program, Span
from tests.fakes.programs import CODE_BYTES, DATA_BYTES, TABLES_BYTES, program


def strings(data: bytes, found: Program, addresses: list[int]) -> list[bytes]:
    spans = [found.at_address(address, 255) for address in addresses]
    return [data[span.offset : span.offset + span.size].partition(b"\0")[0] for span in spans if span is not None]


def test_a_program_tells_its_tables_its_data_and_its_libraries() -> None:
    data = program(["liba.so.1", "libb.so"], runpath="$ORIGIN/../lib", interpreter="/lib64/ld.so")
    found = Program(data[:HEAD_BYTES], len(data))
    assert list(found.always_read()) == [Span(0, TABLES_BYTES), Span(TABLES_BYTES + CODE_BYTES, DATA_BYTES)]
    assert found.interpreter is not None
    assert found.dynamic is not None
    assert data[found.interpreter.offset :].startswith(b"/lib64/ld.so\0")
    dynamic = Dynamic(data[found.dynamic.offset : found.dynamic.offset + found.dynamic.size])
    assert strings(data, found, dynamic.needed) == [b"liba.so.1", b"libb.so"]
    assert strings(data, found, dynamic.paths) == [b"$ORIGIN/../lib"]


def test_this_interpreter_needs_what_the_loader_says() -> None:
    path = Path(sys.executable).resolve()
    data = path.read_bytes()
    found = Program(data[:HEAD_BYTES], len(data))
    assert found.dynamic is not None
    dynamic = Dynamic(data[found.dynamic.offset : found.dynamic.offset + found.dynamic.size])
    names = {name.decode() for name in strings(data, found, dynamic.needed)}
    said = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=True).stdout
    assert names <= {line.split()[0] for line in said.splitlines()}
    assert any(name.startswith("libc.so") for name in names)


def test_what_is_no_such_file_has_no_parts() -> None:
    data = program(["liba.so"])
    wide, odd = b"\x7fELF\x01" + data[5:], data[:54] + b"\x99" + data[55:]
    for other in (b"", b"#!/bin/sh\n", data[:63], data[:200], wide, odd):
        found = Program(other, len(other))
        assert list(found.always_read()) == []
        assert found.dynamic is None


def test_what_lies_outside_the_file_is_left_out() -> None:
    data = program(["liba.so"])
    found = Program(data[:HEAD_BYTES], len(data) - DATA_BYTES)
    assert list(found.always_read()) == [Span(0, TABLES_BYTES)]
    assert found.dynamic is None
    assert found.at_address(1 << 63, 10) is None


def test_no_bytes_whatever_make_it_fail() -> None:
    chance = random.Random(7)
    whole = program(["liba.so"], runpath="/x")
    for _ in range(3000):
        data = bytearray(whole[:HEAD_BYTES])
        for _ in range(chance.randrange(1, 12)):
            data[chance.randrange(64 if chance.random() < 0.5 else 400)] = chance.randrange(256)
        found = Program(bytes(data), len(whole))
        for span in [*found.always_read(), *filter(None, (found.interpreter, found.dynamic))]:
            assert 0 <= span.offset <= span.offset + span.size <= len(whole)
        dynamic = Dynamic(chance.randbytes(chance.randrange(200)))
        for address in [*dynamic.needed, *dynamic.paths]:
            place = found.at_address(address, 255)
            assert place is None or place.offset + place.size <= len(whole)
