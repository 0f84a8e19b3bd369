"""The vocabulary type: samples as five columns of equal length, frozen.

    point_index       int32    which point (PointTable)
    value             float64  in the point's unit; NaN where there is none
    quality           uint8    gateway.model.quality
    source_time_ns    int64    the device's own time, UTC; evidence, never corrected
    received_time_ns  int64    when the gateway read it, UTC

Rows of one point stand in the order they were received; nothing else is promised about order.
Arrays are made read-only so that one batch can be handed to many consumers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLUMNS: tuple[tuple[str, type[np.generic]], ...] = (
    ("point_index", np.int32),
    ("value", np.float64),
    ("quality", np.uint8),
    ("source_time_ns", np.int64),
    ("received_time_ns", np.int64),
)
ROW_BYTES = 4 + 8 + 1 + 8 + 8


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Samples as columns. Build with `Batch.of`, which casts, or from right-typed arrays."""

    point_index: NDArray[np.int32]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]
    source_time_ns: NDArray[np.int64]
    received_time_ns: NDArray[np.int64]

    def __post_init__(self) -> None:
        size = len(self.point_index)
        for name, dtype in COLUMNS:
            column = getattr(self, name)
            assert column.dtype == dtype, f"{name} is {column.dtype}, not {np.dtype(dtype)}"
            assert column.ndim == 1, f"{name} has {column.ndim} dimensions"
            assert len(column) == size, f"{name} has {len(column)} rows, not {size}"
            column.flags.writeable = False

    def __len__(self) -> int:
        return len(self.point_index)

    def __eq__(self, other: object) -> bool:
        """Equal bit for bit: NaN equals NaN here, as stored values must."""
        if not isinstance(other, Batch):
            return NotImplemented
        return all(
            getattr(self, name).tobytes() == getattr(other, name).tobytes() for name, _ in COLUMNS
        )

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def of(
        cls,
        point_index: Sequence[int] | NDArray[np.integer],
        value: Sequence[float] | NDArray[np.floating],
        source_time_ns: Sequence[int] | NDArray[np.integer] | int,
        *,
        received_time_ns: Sequence[int] | NDArray[np.integer] | int,
        quality: Sequence[int] | NDArray[np.integer] | int = 0,
    ) -> Batch:
        """Cast and broadcast: a single time or quality holds for every row."""
        size = len(point_index)

        def column(data: object, dtype: type[np.generic]) -> NDArray[np.generic]:
            if np.ndim(data) == 0:  # type: ignore[arg-type]
                return np.full(size, data, dtype=dtype)
            return np.array(data, dtype=dtype)

        return cls(
            point_index=column(point_index, np.int32),  # type: ignore[arg-type]
            value=column(value, np.float64),  # type: ignore[arg-type]
            quality=column(quality, np.uint8),  # type: ignore[arg-type]
            source_time_ns=column(source_time_ns, np.int64),  # type: ignore[arg-type]
            received_time_ns=column(received_time_ns, np.int64),  # type: ignore[arg-type]
        )

    @classmethod
    def empty(cls) -> Batch:
        return cls.of([], [], [], received_time_ns=[])

    @classmethod
    def concat(cls, batches: Iterable[Batch]) -> Batch:
        parts = list(batches)
        if not parts:
            return cls.empty()
        if len(parts) == 1:
            return parts[0]
        return cls(
            *(np.concatenate([getattr(part, name) for part in parts]) for name, _ in COLUMNS)
        )

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Batch:
        """The rows chosen by an index array, a mask or a slice."""
        return Batch(*(getattr(self, name)[rows] for name, _ in COLUMNS))
