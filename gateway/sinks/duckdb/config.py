"""Options of the embedded history store."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class DuckdbConfig(BaseModel):
    """Defaults suit an edge box with 1 GB of memory and a few thousand points."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path | None = Field(
        default=None, description="the file; by default history.duckdb in the sink's own directory"
    )
    memory_limit_mb: int = Field(default=256, ge=64, description="what the engine may hold")
    threads: int = Field(default=1, ge=1, le=64, description="engine threads besides the callers'")
    keep_days: float | None = Field(
        default=None, gt=0, description="samples received longer ago are deleted; absent: kept"
    )
    settle_rows: int = Field(
        default=500_000,
        ge=1_000,
        description="so many rows in order of arrival, then they are sorted by point and time",
    )
    wal_limit_mb: int = Field(
        default=16, ge=1, description="log written before the engine folds it into the file"
    )
