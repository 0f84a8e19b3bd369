"""Quality codes sort into three grades; errors name the place and the expectation."""

from __future__ import annotations

import pytest

from gateway.model.errors import ConfigError, Fault, ProtocolError, RemoteProtocolError
from gateway.model.quality import Quality


@pytest.mark.parametrize("quality", list(Quality))
def test_every_quality_has_exactly_one_grade_and_fits_a_byte(quality: Quality) -> None:
    assert 0 <= quality <= 0xFF
    assert quality.grade == quality.name.partition("_")[0].lower()
    assert quality.is_good == (quality.grade == "good")
    assert quality.is_bad == (quality.grade == "bad")


@pytest.mark.parametrize(
    ("quality", "reason"),
    [
        (Quality.GOOD, ""),
        (Quality.BAD, ""),
        (Quality.BAD_SENSOR_FAULT, "sensor_fault"),
        (Quality.UNCERTAIN_CLOCK, "clock"),
    ],
)
def test_the_reason_is_a_short_word(quality: Quality, reason: str) -> None:
    assert quality.reason == reason


def test_a_configuration_error_prints_every_fault_on_a_line_of_its_own() -> None:
    faults = [Fault("site.toml", 3, "site.id", "a name"), Fault("points.csv", 0, "", "a file")]
    assert str(ConfigError(faults)).splitlines() == [
        "site.toml:3: site.id: a name",
        "points.csv: a file",
    ]


def test_the_base_protocol_error_refuses_to_be_raised() -> None:
    assert RemoteProtocolError("checksum", "1A, not 1B").code == "checksum"
    with pytest.raises(AssertionError):
        ProtocolError("checksum")
