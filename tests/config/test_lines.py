"""The locator agrees with tomllib about what is there, and with a person about where."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model.lines import Lines

TEXT = '''\
# a comment [not.a.table]
packs = ["a",
  "b", # c ] "
  "c"]
title = """
[fake]
x = 1 \\""" """

[site]
id = "x"
"quoted.key" = 1
'single' . dotted."third" = { a = 1, "b c" = [ { d = 2 }, {d = 3} ] }

[[adapter]]
name = 'one # not a comment'

  [adapter.tls]
  file = \'\'\'
x = 2\'\'\'

[[adapter]]
name = "two"
[[adapter.map]]
k = 1979-05-27 07:32:00Z
[[adapter.map]]
k = -inf
[adapter.map.deep]
z = true
'''

PLACES = [
    (("packs",), 2),
    (("packs", 0), 2),
    (("packs", 1), 3),
    (("packs", 2), 4),
    (("title",), 5),
    (("site",), 9),
    (("site", "id"), 10),
    (("site", "quoted.key"), 11),
    (("site", "single", "dotted", "third"), 12),
    (("site", "single", "dotted", "third", "b c", 1, "d"), 12),
    (("adapter", 0), 14),
    (("adapter", 0, "name"), 15),
    (("adapter", 0, "tls", "file"), 18),
    (("adapter", 1), 21),
    (("adapter", 1, "name"), 22),
    (("adapter", 1, "map", 0, "k"), 24),
    (("adapter", 1, "map", 1, "k"), 26),
    (("adapter", 1, "map", 1, "deep", "z"), 28),
    (("adapter", 1, "missing"), 21),
    (("nothing",), 0),
]


@pytest.mark.parametrize(("path", "line"), PLACES, ids=str)
def test_a_key_stands_on_its_line(path, line):
    assert Lines(TEXT).of(path) == line


def paths_of(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from paths_of(each, (*path, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from paths_of(each, (*path, number))


def test_every_key_tomllib_finds_has_a_line_of_its_own():
    lines = Lines(TEXT)
    for path in paths_of(tomllib.loads(TEXT)):
        assert path in lines._lines, path


keys = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,4}", fullmatch=True),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=4),
)
scalars = st.one_of(
    st.integers(-(2**60), 2**60),
    st.booleans(),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def written(value, spread):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        gap = "\n  # ] , }\n" if spread else " "
        return "[" + gap + ("," + gap).join(written(v, spread) for v in value) + "]"
    return "{" + ", ".join(f"{quoted(k)} = {written(v, False)}" for k, v in value.items()) + "}"


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.dictionaries(keys, values, max_size=4),
    st.dictionaries(keys, values, max_size=3),
    st.booleans(),
)
def test_whatever_is_written_every_key_of_it_is_found_in_the_right_order(root, table, spread):
    text = "".join(f"{quoted(k)} = {written(v, spread)}\n" for k, v in root.items())
    if "t" not in root:
        for _ in range(2):
            text += "[[t]]\n" + "".join(
                f"{quoted(k)} = {written(v, spread)} # x\n" for k, v in table.items()
            )
    data = tomllib.loads(text)
    lines = Lines(text)
    at = 0
    for path in paths_of(data):
        assert path in lines._lines, (text, path)
        assert lines.of(path) >= at or path == ()
        at = lines.of(path)
    for key in root:
        assert text.split("\n")[lines.of((key,)) - 1].startswith(quoted(key))


@pytest.mark.slow
@given(st.text(alphabet="[]{}\"'=.,#\n \\ab1", max_size=60))
def test_a_text_that_is_no_toml_never_raises(text):
    Lines(text).of(("a", 0, "b"))
