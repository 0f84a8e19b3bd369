"""Configuration of one watched folder of mine files. Sizes, times and choices; no I/O.

Every option carries its unit in its name. The three side folders (`quarantine_folder`,
`archive_folder`, `unhandled_folder`) default to folders in the adapter's own state directory.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from adapters.mine_files.mapping import LocationClass, Options

MEGABYTE = 1_000_000


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LocationClassConfig(_Frozen):
    """A pattern found in a location's text, and the class of place it stands for."""

    pattern: str
    location_class: str = Field(description=r"may use \1 for what the pattern's group caught")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, text: str) -> str:
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return text


DEFAULT_LOCATION_CLASSES = (
    # `3101工作面T1`: the class of AQ 1029 is written in the location; T10 or AT1 is something else.
    LocationClassConfig(pattern=r"(?<![A-Za-z])(T[0-9])(?![0-9A-Za-z])", location_class=r"\1"),
)


class MineFilesConfig(_Frozen):
    """One folder into which a mine's systems put their files, with its sub-folders."""

    folder: Path
    mine_code: str = Field(
        default="", pattern=r"^[0-9A-Z]{0,22}$", description="refuse files of any other mine"
    )
    point_prefix: str = Field(default="", pattern=r"^[^\s/+#]{0,32}$")
    poll_interval_s: float = Field(default=2.0, gt=0)  # a live receiver polls every 5 s
    settle: Literal["end_mark", "end_mark_and_unchanged"] = "end_mark"
    incomplete_timeout_s: float = Field(default=600.0, gt=0)

    encodings: tuple[Literal["utf-8", "gb18030"], ...] = Field(default=("utf-8",), min_length=1)
    file_size_max_bytes: int = Field(default=20 * MEGABYTE, gt=0)  # a real RYXX: 120 kB
    future_tolerance_s: float = Field(default=300.0, ge=0)
    bad_record_share_max: float = Field(default=0.20, ge=0, le=1)
    batch_rows_max: int = Field(default=10_000, gt=0)

    sensor_interval_s: float = Field(default=20.0, gt=0)  # CDSS
    snapshot_interval_s: float = Field(default=30.0, gt=0)  # RYSS; some vendors: 300
    state_interval_s: float = Field(default=60.0, gt=0)  # FZSS, JZSS
    location_classes: tuple[LocationClassConfig, ...] = DEFAULT_LOCATION_CLASSES
    points_max: int = Field(default=100_000, gt=0, description="points and devices together")

    done: Literal["delete", "archive"] = "delete"
    archive_folder: str = ""
    archive_files_max: int = Field(default=10_000, gt=0)
    archive_bytes_max: int = Field(default=1000 * MEGABYTE, gt=0)
    quarantine_folder: str = ""
    quarantine_files_max: int = Field(default=1_000, gt=0)
    quarantine_bytes_max: int = Field(default=200 * MEGABYTE, gt=0)
    unhandled_folder: str = ""
    unhandled_bytes_max: int = Field(default=1000 * MEGABYTE, gt=0)
    unhandled_files_max: int = Field(default=100_000, gt=0)
    taken_history_count: int = Field(default=1_000, gt=0)

    def options(self, adapter: str) -> Options:
        """The part that mapping needs."""
        return Options(
            adapter=adapter,
            prefix=self.point_prefix,
            sensor_interval_s=self.sensor_interval_s,
            snapshot_interval_s=self.snapshot_interval_s,
            state_interval_s=self.state_interval_s,
            points_max=self.points_max,
            location_classes=tuple(
                LocationClass(re.compile(rule.pattern), rule.location_class)
                for rule in self.location_classes
            ),
        )
