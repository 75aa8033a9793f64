"""What fuzzing found worth keeping: one input a line, in base64, one file a target in tests/fuzz/corpus/.

    python -m tests.fuzz.corpus unpack lane DIRECTORY      before fuzzing goes on
    python -m tests.fuzz.corpus pack lane DIRECTORY        afterwards; of all sizes
"""

import base64
import sys
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
MAX_INPUT = 1024
MAX_INPUTS = 250
"""Longer and more are left out: most of what they reach is reached without, and the repository stays small."""


def inputs(target: str) -> list[bytes]:
    """All that was kept for a target, smallest first."""
    return [base64.b64decode(line) for line in (CORPUS / f"{target}.txt").read_text("ascii").split()]


def main() -> int:
    """Do what the module says."""
    verb, target, directory = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if verb == "unpack":
        for number, one in enumerate(inputs(target)):
            (directory / f"kept{number:04d}").write_bytes(one)
        return 0
    found = {path.read_bytes() for path in directory.iterdir()}
    kept = sorted((one for one in found if len(one) <= MAX_INPUT), key=lambda one: (len(one), one))
    kept = kept[:: -(-len(kept) // MAX_INPUTS) or 1]
    (CORPUS / f"{target}.txt").write_text("".join(base64.b64encode(one).decode() + "\n" for one in kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
