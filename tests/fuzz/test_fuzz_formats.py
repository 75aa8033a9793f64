"""A short run of the fuzz targets of the formats: their seeds, and the same with a few bytes bent."""

import random
from collections.abc import Callable
from types import ModuleType

import pytest

from tests.fuzz import fuzz_footer, fuzz_frames

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


@pytest.mark.parametrize("target", [fuzz_footer, fuzz_frames], ids=["footer", "frames"])
def test_bent_seeds_are_refused_or_read_right(target: ModuleType) -> None:
    rng = random.Random(11)
    seeds = target.seeds()
    for seed in seeds:
        target.one_input(seed)
    for _ in range(ROUNDS):
        target.one_input(bend(rng, rng.choice(seeds)))
