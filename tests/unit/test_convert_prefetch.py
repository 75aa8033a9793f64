"""Lists and records of what comes first."""

import pytest

from registry_storage.convert.accesses import FileAccess, through_links
from registry_storage.convert.prefetch import Pattern, Wishes, parse_list, parse_records, topmost
from registry_storage.digest import Digest
from registry_storage.errors import InvalidInputError

IMAGE = Digest.of(b"image")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/usr/bin/*", "usr/bin/env", True),
        ("/usr/bin/*", "usr/bin/sub/env", False),
        ("usr/**", "usr/bin/sub/env", True),
        ("usr/**", "usr", False),
        ("**/*.py", "a/b/c.py", True),
        ("**/*.py", "c.py", True),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**/z", "ab/z", False),
        ("lib?.so", "libc.so", True),
        ("lib?.so", "lib/.so", False),
        ("[a-c]x", "bx", True),
        ("[!a-c]x", "bx", False),
        ("[!a-c]x", "dx", True),
        ("[!a-c]x", "/x", False),
        ("[]]x", "]x", True),
        (r"a\*b", "a*b", True),
        (r"a\*b", "axb", False),
        ("a.b*", "axb", False),
        ("*", "new\nline", True),
    ],
)
def test_patterns_match_as_in_a_shell(pattern: str, path: str, matches: bool) -> None:
    expression = Pattern.parse(pattern).expression
    assert expression is not None
    assert bool(expression.fullmatch(path)) is matches


def test_a_bracket_that_is_not_closed_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match=r"\[ without \]"):
        Pattern.parse("a[bc")


def test_comments_and_blank_lines_say_nothing() -> None:
    assert [pattern.text for pattern in parse_list("# one\n\n  /a/b \n#c\n./d\n")] == ["a/b", "d"]


def test_a_file_is_taken_from_the_topmost_layer_that_has_it() -> None:
    names = [["a", "b", "c/d", "e/f"], ["b", ".wh.a", "c/.wh..wh..opq", "c/x"]]
    assert topmost(names) == {"b": 1, "c/x": 1, "e/f": 0}
    wishes = Wishes(patterns=parse_list("b\na\n**/f\nc"))
    chosen, missing = wishes.assign(IMAGE, 2, names)
    assert chosen == [("e/f",), ("b", "c/x")]
    assert missing == ["a"]


def test_a_whiteout_hides_what_is_below_and_not_its_own_layer() -> None:
    assert topmost([["d/x"], [".wh.d", "d/y"]]) == {"d/y": 1}


def test_files_come_in_the_order_of_the_list_and_each_once() -> None:
    wishes = Wishes(patterns=parse_list("z\na\n*\n"))
    assert wishes.assign(IMAGE, 1, [["a", "m", "z"]])[0] == [("z", "a", "m")]


def test_records_go_to_the_layer_that_they_name() -> None:
    text = (
        f'{{"path": "b", "manifestDigest": "{IMAGE}", "layerIndex": 1}}\n'
        f'{{"path": "/a/", "manifestDigest": "{IMAGE}", "layerIndex": 0, "offset": 7}}\n'
        f'{{"path": "c", "manifestDigest": "{Digest.of(b"other")}", "layerIndex": 0}}\n'
    )
    wishes = Wishes(parse_records(text, "record"))
    assert not wishes.need_names(IMAGE)
    assert wishes.assign(IMAGE, 2, [[], []]) == ([("a",), ("b",)], [])


def test_a_record_without_a_layer_means_the_topmost() -> None:
    wishes = Wishes(parse_records('{"path": "a"}\n', "record"))
    assert wishes.need_names(IMAGE)
    assert wishes.assign(IMAGE, 2, [["a"], ["a"]]) == ([(), ("a",)], [])


def test_parts_of_files_come_in_the_order_of_reading() -> None:
    text = (
        '{"path": "a", "layerIndex": 0, "ranges": [[0, 10], [50, 5]], "turns": [1, 3]}\n'
        '{"path": "b", "layerIndex": 0, "ranges": [[7, 1]], "turns": [2]}\n'
        '{"path": "c", "layerIndex": 0}\n'
        '{"path": "d", "layerIndex": 1}\n'
    )
    wishes = Wishes(parse_records(text, "record"))
    chosen, _ = wishes.assign(IMAGE, 2, [[], []])
    assert wishes.accesses(IMAGE, chosen) == [(("a", 0, 10), ("b", 7, 1), ("a", 50, 5), ("c", 0, None)), ()]


@pytest.mark.parametrize(
    "fields",
    ['"ranges": 1', '"ranges": [[1]]', '"ranges": [[1, -1]]', '"ranges": [[0, true]]', '"ranges": [], "turns": 1'],
)
def test_broken_ranges_are_an_error(fields: str) -> None:
    with pytest.raises(InvalidInputError, match="record, line 1"):
        parse_records(f'{{"path": "a", {fields}}}', "record")


@pytest.mark.parametrize("line", ["[]", "{}", "x", '{"path": 1}', '{"path": "a", "layerIndex": -1}', '{"path"'])
def test_a_broken_record_is_an_error_with_its_line(line: str) -> None:
    with pytest.raises(InvalidInputError, match="record, line 2"):
        parse_records('{"path": "ok"}\n' + line, "record")


def test_hard_links_in_circles_end() -> None:
    links = {"a": "b", "b": "a", "c": "d", "d": "file"} | {f"n{n}": f"n{n + 1}" for n in range(3000)}
    accesses = [FileAccess(path, 0, 1) for path in ("a", "c", "d", "file", "n0")]
    paths = [access.path for access in through_links(accesses, links)]
    assert paths[1:4] == ["file", "file", "file"]
