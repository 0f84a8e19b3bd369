"""The spool's limits, each with the answer to being reached."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpoolOptions:
    """Defaults fit an edge box: 10 000 samples/s fill a segment every three minutes.

    segment_rows_max, segment_bytes_max: the segment is sealed and a new one begun. The byte limit
        is also what one lost file can cost.
    commit_window_s: how long a group may gather before it is written; 0: as soon as the writer is
        free.
    pending_rows_max: rows accepted and not yet durable; beyond it `append` waits.
    bytes_max: on disk, without the bounded quarantine; beyond it `append` raises SpoolFull.
    disk_free_min_bytes: what must stay free on the file system, for the alarm journal above all;
        below it `append` raises SpoolFull.
    tail_rows_max: newest rows kept in memory; a consumer further behind reads the disk.
    retry_first_s, retry_max_s: after the disk failed, until it is tried again with a new file; the
        pause doubles from try to try. Appends are refused meanwhile, at once.
    """

    segment_rows_max: int = 2_000_000
    segment_bytes_max: int = 64 << 20
    commit_window_s: float = 0.0
    pending_rows_max: int = 200_000
    bytes_max: int = 8 << 30
    disk_free_min_bytes: int = 0
    tail_rows_max: int = 200_000
    retry_first_s: float = 0.5
    retry_max_s: float = 5.0

    def __post_init__(self) -> None:
        for name in ("segment_rows_max", "segment_bytes_max", "pending_rows_max", "tail_rows_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.commit_window_s < 0:
            raise ValueError("commit_window_s must not be negative")
        if self.bytes_max < 2 * self.segment_bytes_max:
            # a segment is deleted only when sealed: a budget of one could fill and never empty
            raise ValueError("bytes_max must be at least twice segment_bytes_max")
