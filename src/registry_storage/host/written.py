"""Files that we write for others, and know again: what somebody has changed since then is left alone."""

import enum
import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

_MARK = "# Written by registry-storagectl install, which may replace it while nothing below changes ({digest})."
_MARKED = re.compile(re.escape(_MARK).replace(r"\{digest\}", "([0-9a-f]{16})"))


class State(enum.Enum):
    """What is at a path."""

    ABSENT = "absent"
    OURS = "ours"
    """Written by us, and unchanged."""
    CHANGED = "changed"
    """Written by us, and changed by somebody."""
    FOREIGN = "foreign"


def marked(text: str) -> str:
    """`text` as it is written: with a first line that names its writer and digest."""
    return f"{_MARK.format(digest=_digest(text))}\n{text}"


def state_of(path: Path) -> State:
    """Raises OSError where that cannot be told."""
    try:
        text = path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return State.ABSENT
    first, _, rest = text.partition("\n")
    found = _MARKED.fullmatch(first)
    if found is None:
        return State.FOREIGN
    return State.OURS if found[1] == _digest(rest) else State.CHANGED


def write(path: Path, text: str) -> bool:
    """Make `path` hold the marked text, unless somebody else wrote it; whether anything changed.

    Raises FileExistsError for what is not ours, and OSError.
    """
    if state_of(path) not in (State.ABSENT, State.OURS):
        raise FileExistsError(17, "somebody else wrote or changed it", str(path))
    whole = marked(text)
    if path.exists() and path.read_text("utf-8") == whole:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(whole, "utf-8")
        new.chmod(0o644)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    return True


def remove(path: Path) -> State:
    """Remove it if it is ours; what it was. Directories above stay. Raises OSError."""
    state = state_of(path)
    if state is State.OURS:
        with suppress(FileNotFoundError):
            os.unlink(path)
    return state


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
