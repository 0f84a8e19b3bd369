"""The sample configuration, the plugin's shape, and offline decoding."""

from __future__ import annotations

import contextlib
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import adapters.mine_files as plugin
from adapters.mine_files import KIND
from adapters.mine_files.config import MineFilesConfig
from gateway.model.errors import RemoteProtocolError

HERE = Path(plugin.__file__).parent
GOLDEN = Path(__file__).parent / "golden"


def test_the_sample_shows_every_option_with_its_default() -> None:
    sample = tomllib.loads((HERE / "sample.toml").read_text(encoding="utf-8"))
    assert set(sample) == set(MineFilesConfig.model_fields)
    assert MineFilesConfig(**sample) == MineFilesConfig(folder=sample["folder"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"unknown": 1},
        {"poll_interval_s": 0},
        {"encodings": ["latin-1"]},
        {"encodings": []},
        {"done": "move"},
        {"bad_record_share_max": 1.5},
        {"point_prefix": "a b"},
        {"point_prefix": "a/b"},
        {"mine_code": "99-01"},
        {"location_classes": [{"pattern": "(", "location_class": "T1"}]},
    ],
)
def test_a_wrong_option_is_refused_before_the_start(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        MineFilesConfig(**({"folder": "in"} | wrong))


def test_the_plugin_decodes_text_and_names_its_configuration() -> None:
    assert (KIND.name, KIND.decodes, KIND.config) == ("mine_files", "text", MineFilesConfig)


# ---------------------------------------------------------------------------------------- decode


def decode(text: str):
    return KIND.decoder().feed(text)


@pytest.mark.parametrize("path", sorted(GOLDEN.iterdir()), ids=lambda path: path.name)
def test_a_golden_file_decodes_to_one_message_a_record_or_says_why_not(path: Path) -> None:
    text = f"{path.name}\n{path.read_text(encoding='utf-8')}"
    if "B001" in path.name:
        with pytest.raises(RemoteProtocolError):
            decode(text)
        return
    first, *records = decode(text)
    assert first.message["records"] == len(records) > 0
    assert first.message["time"] == "2026-01-15T08:00:00+08:00"
    json.dumps([[one.message, list(one.samples)] for one in (first, *records)], allow_nan=False)


def test_values_come_with_time_and_quality_in_words() -> None:
    name = "999901000123_CDSS_20260115080000.txt"
    decoded = decode(f"{name}\n{(GOLDEN / name).read_text(encoding='utf-8')}")
    assert decoded[1].samples[0] == {
        "point": "99990100012301MN0001001A01",
        "value": 0.32,
        "time": "2026-01-15T07:59:50+08:00",
        "quality": "good",
    }
    assert [sample["value"] for one in decoded for sample in one.samples] == [0.32, 0, 36, 1, 1, 0]


def test_the_area_of_a_person_is_named_because_its_index_exists_only_in_a_house() -> None:
    name = "999901000123_RYSS_20260115080000.txt"
    decoded = decode(f"{name}\n{(GOLDEN / name).read_text(encoding='utf-8')}")
    where = decoded[1].samples[0]
    assert (where["value"], where["area"]) == (None, "9999010001230007")
    assert decoded[2].samples[0]["value"] == -1.0
    assert decoded[0].samples[0] | {"time": ""} == {
        "point": "999901000123.underground",
        "value": 1.0,
        "time": "",
        "quality": "good",
    }


def test_a_bare_kind_in_the_first_line_is_enough_and_neither_is_refused() -> None:
    body = (GOLDEN / "999901000123_FZSS_20260115080000.txt").read_text(encoding="utf-8")
    assert decode(f"FZSS\n{body}")[0].message["kind"] == "FZSS"
    for text in (body, f"NEVER\n{body}", "", "\n"):
        with pytest.raises(RemoteProtocolError) as caught:
            decode(text)
        assert caught.value.code == "name"


def test_faults_are_listed_and_bad_values_are_null() -> None:
    body = "999901000123;x;2026-01-15 08:00:00~x~99990100012301MN0001A;t;l;-9999;;0;2026-01-15 08:00:00~||"
    first, record = decode(f"CDSS\n{body}")
    assert len(first.message["faults"]) == 1
    assert "record 1" in first.message["faults"][0]
    assert (record.samples[0]["value"], record.samples[0]["quality"]) == (None, "bad_no_value")


def test_a_file_in_another_encoding_is_refused_and_not_read_as_other_words() -> None:
    path = GOLDEN / "999901000123_CDSS_20260115080000.txt"
    foreign = path.read_text(encoding="utf-8").encode("gb18030")
    text = f"{path.name}\n{foreign.decode('utf-8', 'surrogateescape')}"  # as the command line does
    for damaged, code in (
        (text, "encoding"),
        (text[:-3], "incomplete"),
        ("CDSS\n\ud800", "encoding"),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            decode(damaged)
        assert caught.value.code == code


@given(
    st.sampled_from(["CDSS\n", "RYSS\n", "999901000123_CDDY_20260115080000.txt\n", ""]),
    st.text(),
    st.booleans(),
)
def test_no_text_raises_anything_but_a_protocol_error(first: str, text: str, ends: bool) -> None:
    head = "999901000123;x;2026-01-15 08:00:00~"
    with contextlib.suppress(RemoteProtocolError):
        decode(first + (f"{head}{text}||" if ends else text))
