"""The mapping language: what is a path, what it finds, and that nothing makes it raise."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.mqtt_json.paths import MISSING, Each, Path, Source, Template, TopicFilter

BODY = {"a": {"b": [10, {"c": "x"}]}, "a.b": 7, "t": None}

FOUND = [
    ("$", BODY),
    ("$.a.b[0]", 10),
    ("a.b[1].c", "x"),
    ("$.a.b[-1].c", "x"),
    ('$["a.b"]', 7),
    ('@["a"]["b"][0]', 10),
    ("$.t", None),
    ("$.a.b[2]", MISSING),
    ("$.a.b[-3]", MISSING),
    ("$.a[0]", MISSING),  # an object has no positions
    ("$.a.b.c", MISSING),  # an array has no keys
    ("$.nothing", MISSING),
    ("$.t.deeper", MISSING),
]

NOT_PATHS = [
    "",
    "$a",
    "$.",
    "$..a",
    "a b",
    "a[",
    "a[x]",
    "a]",
    '$["a',
    "$.a.",
    "a[0]b",
    "$.{x}",
    "$.*",
    "a[*]",
]


@pytest.mark.parametrize(("text", "expected"), FOUND)
def test_a_path_finds_the_value_or_says_missing(text, expected):
    found = Path.parse(text).find(BODY, BODY)
    assert found is expected or found == expected
    assert (found is MISSING) == (expected is MISSING)


@pytest.mark.parametrize("text", NOT_PATHS)
def test_what_is_not_a_fixed_path_is_refused_when_it_is_loaded(text):
    with pytest.raises(ValueError):
        Path.parse(text)


def test_a_path_with_an_at_sign_starts_at_the_element_and_one_with_a_dollar_at_the_message():
    assert Path.parse("@.v").find({"v": 1}, {"v": 2}) == 2
    assert Path.parse("v").find({"v": 1}, {"v": 2}) == 2
    assert Path.parse("$.v").find({"v": 1}, {"v": 2}) == 1


ELEMENTS = [
    ("@", {"a": 1}, [({}, {"a": 1})]),
    ("$.v.{f}", {"v": {"x": 1, "y": None}}, [({"f": "x"}, 1), ({"f": "y"}, None)]),
    ("$.v[*]", {"v": [5, 6]}, [({}, 5), ({}, 6)]),
    ("$.v.*", {"v": {"x": 5}}, [({}, 5)]),
    ("$.v.{i}", {"v": [5]}, [({"i": "0"}, 5)]),
    ("$.{d}.{c}_{n}", {"q": {"L1_GP_1": 3, "odd": 4}}, [({"d": "q", "c": "L1_GP", "n": "1"}, 3)]),
    ("$.v.ch{n}", {"v": {"ch1": 1, "x1": 2}}, [({"n": "1"}, 1)]),
    ("$.v.{f}", {"v": 3}, []),
    ("$.v.{f}.w", {"v": {"x": {"w": 1}, "y": {}}}, [({"f": "x"}, 1)]),
    ("$.v.{f}", {"v": {"k" * 300: 1}}, []),  # a key beyond the limit fits no pattern
]


@pytest.mark.parametrize(("text", "body", "expected"), ELEMENTS)
def test_each_opens_the_elements_with_what_was_captured(text, body, expected):
    assert list(Each.parse(text).elements(body)) == expected


@pytest.mark.parametrize(
    "text", ["$.{a}.{a}", "$.{a}_{a}", "$.{a}{b}", "$.{1}", "$.{a}_{b}_{c}_{d}"]
)
def test_a_capture_that_could_mean_two_things_is_refused(text):
    with pytest.raises(ValueError):
        Each.parse(text)


def test_a_path_longer_than_the_limit_is_refused():
    Path.parse("$" + ".a" * 16)
    with pytest.raises(ValueError, match="more than 16"):
        Path.parse("$" + ".a" * 17)


TOPICS = [
    ("tailings/{dam}/telemetry", "tailings/+/telemetry", "tailings/d1/telemetry", {"dam": "d1"}),
    ("tailings/{dam}/telemetry", "tailings/+/telemetry", "tailings/d1/x/telemetry", None),
    ("tailings/{dam}/telemetry", "tailings/+/telemetry", "tailings//telemetry", None),
    ("$dp", "$dp", "$dp", {}),
    ("a/+/b", "a/+/b", "a/x/b", {}),
    ("a/#", "a/#", "a/x/y", {}),
    ("a/#", "a/#", "a", {}),
    ("#", "#", "$SYS/load", None),  # MQTT 4.7.2
    ("{x}/y", "+/y", "$q/y", None),
    ("a.c/x", "a.c/x", "abc/x", None),  # a dot is a dot
]


@pytest.mark.parametrize(("text", "subscription", "topic", "captures"), TOPICS)
def test_a_topic_filter_subscribes_and_captures_by_the_same_rule(
    text, subscription, topic, captures
):
    parsed = TopicFilter.parse(text)
    assert parsed.subscription == subscription
    assert parsed.match(topic) == captures


@pytest.mark.parametrize("text", ["", "a/#/b", "a+/b", "{a}/{a}", "x{a}/b", "a\x00"])
def test_what_is_not_a_topic_filter_is_refused(text):
    with pytest.raises(ValueError):
        TopicFilter.parse(text)


TEMPLATES = [
    ("{dam}.{$.device}", {"dam": "d"}, {"device": "s1"}, "d.s1"),
    ("{$.n}", {}, {"n": 12}, "12"),
    ("{$.n}", {}, {"n": 1.5}, None),  # a float names nothing: 1.50 and 1.5 would be two points
    ("{$.n}", {}, {"n": True}, None),
    ("{$.n}", {}, {}, None),
    ("{$.n}", {}, {"n": "x" * 257}, None),
    ("{$.n}", {}, {"n": "\ud800"}, None),
    ("{dam}", {"dam": "d" * 256}, {}, "d" * 256),
    ("{dam}", {"dam": "d" * 257}, {}, None),  # a topic's level may have 65,535 bytes
    ("plain", {}, {}, "plain"),
    ("", {}, {}, ""),
]


@pytest.mark.parametrize(("text", "captures", "body", "expected"), TEMPLATES)
def test_a_template_is_filled_or_is_missing_a_part(text, captures, body, expected):
    assert Template.parse(text).fill(captures, body, body) == expected


@pytest.mark.parametrize("text", ["{", "}", "{a", "a}", "{a b}", "{}", "{$.}", "{a}{"])
def test_a_template_with_stray_braces_is_refused(text):
    with pytest.raises(ValueError):
        Template.parse(text)


def test_a_source_is_a_path_a_capture_or_the_time_of_receipt():
    assert Source.parse("received").is_received
    assert Source.parse("{t}").find({"t": "now"}, {}, {}) == "now"
    assert Source.parse("$.t").find({}, {"t": 3}, {}) == 3


@given(st.text(max_size=40))
def test_any_text_is_a_path_or_a_value_error(text):
    for parse in (Path.parse, Each.parse, Template.parse, Source.parse, TopicFilter.parse):
        try:
            parse(text)
        except ValueError:
            continue


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from("abct"), children, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_walking_any_value_gives_elements_that_a_fixed_path_finds_again(body):
    for captures, element in Each.parse("$.{x}.{y}").elements(body):
        keys = [captures["x"], captures["y"]]
        path = "$"
        node = body
        for key in keys:
            path += f"[{key}]" if isinstance(node, list) else f'["{key}"]'
            node = node[int(key)] if isinstance(node, list) else node[key]
        assert Path.parse(path).find(body, None) is element


@given(
    st.lists(st.sampled_from(["", "_", "__", "-", "a", "_a"]), min_size=2, max_size=4),
    st.text("_-a1", max_size=14),
)
def test_a_key_is_split_as_a_greedy_expression_splits_it(texts: list[str], key: str) -> None:
    between = [text or "_" for text in texts[1:-1]]
    texts = [texts[0], *between, texts[-1]]
    names = ["x", "y", "z"][: len(texts) - 1]
    written = "".join(f"{text}{{{name}}}" for text, name in zip(texts, names, strict=False))
    each = Each.parse("@." + written + texts[-1])
    pattern = "".join(
        f"{re.escape(text)}(?P<{name}>.+)" for text, name in zip(texts, names, strict=False)
    )
    wanted = re.fullmatch(pattern + re.escape(texts[-1]), key, re.DOTALL)
    found = [captures for captures, _ in each.elements({key: 1})]
    assert found == ([wanted.groupdict()] if wanted else [])


def test_a_hostile_key_is_told_in_as_many_searches_as_it_has_captures() -> None:
    class Counted(str):
        __slots__ = ()
        searches = 0

        def rfind(self, *arguments: Any) -> int:
            Counted.searches += 1
            return super().rfind(*arguments)

    each = Each.parse("@.{a}_{b}_{c}!")
    assert list(each.elements({Counted("_" * 250 + "!"): 1}))
    assert list(each.elements({Counted("x" * 250 + "!"): 1})) == []
    assert Counted.searches <= 2 * 2
