"""A short run of the fuzz targets: their seeds and what fuzzing kept, and the same with a few bytes bent."""

import random
from collections.abc import Callable

import pytest

from tests.fuzz import corpus, fuzz_documents, fuzz_footer, fuzz_frames, fuzz_lane, fuzz_tar, fuzz_toc

TARGETS = {
    "documents": fuzz_documents, "footer": fuzz_footer, "frames": fuzz_frames, "lane": fuzz_lane, "tar": fuzz_tar,
    "toc": fuzz_toc,
}  # fmt: skip

ROUNDS = 1500


def bend(rng: random.Random, data: bytes) -> bytes:
    bent = bytearray(data)
    actions: list[Callable[[int], object]] = [
        lambda at: bent.__setitem__(at, rng.randrange(256)),
        lambda at: bent.__setitem__(at, bent[at] ^ 1 << rng.randrange(8)),
        lambda at: bent.__delitem__(slice(at, at + rng.randrange(8))),
        lambda at: bent.insert(at, rng.randrange(256)),
        lambda at: bent.__setitem__(slice(at, at), bent[at : at + 20]),
    ]
    for _ in range(rng.randint(1, 4)):
        if bent:
            rng.choice(actions)(rng.randrange(len(bent)))
    return bytes(bent)


@pytest.mark.parametrize("name", TARGETS)
def test_bent_inputs_are_refused_or_read_right(name: str) -> None:
    target, rng = TARGETS[name], random.Random(11)
    inputs = [*target.seeds(), *corpus.inputs(name)]
    for one in inputs:
        target.one_input(one)
    for _ in range(ROUNDS):
        target.one_input(bend(rng, rng.choice(inputs)))
