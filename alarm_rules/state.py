"""The rule core's state as arrays, by stable names: alarm keys and point ids, never row numbers.

    version  known_to_ns
    points/{id, heard_ns, usable_ns, behind_ns, gap_begin_ns, gap_end_ns, late_…}
    held/{id, value, quality, source_time_ns, received_time_ns}      rows of the reorder buffer
    afresh/key       instances that began afresh, and who listens to them was not told yet
    <n>:<kind>/instance/{key, levels, live, …}   …/own/{…}   …/slot/{key, live, …}   one row each
              /late-instance/{…}   …/late-own/{…}   …/late-slot/{…}      the same rows

Loading matches by name: what is gone is dropped, what is new starts fresh, an instance whose levels
have other names starts fresh too (its bits would mean something else).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.contract.rule_kind import Columns
from gateway.model.batch import Batch
from gateway.model.point import PointTable

STATE_VERSION = 2
NAME_COLUMNS = ("instance/key", "instance/levels", "slot/key")
HELD_COLUMNS = ("value", "quality", "source_time_ns", "received_time_ns")

Arrays = dict[str, NDArray[Any]]


def as_names(names: Iterable[str]) -> NDArray[np.bytes_]:
    """Text as one array of UTF-8 bytes."""
    encoded = [name.encode() for name in names]
    return np.array(encoded, dtype=np.bytes_) if encoded else np.empty(0, dtype="S1")


class Names:
    """Arrays of names, made once; names that were added since are added. Not to be written into."""

    def __init__(self) -> None:
        self._made: dict[str, NDArray[np.bytes_]] = {}

    def of(self, what: str, names: Sequence[str]) -> NDArray[np.bytes_]:
        """`names` only grew since they were last asked for, or were forgotten."""
        made = self._made.get(what)
        if made is None:
            made = self._made[what] = as_names(names)
        elif len(made) < len(names):
            made = self._made[what] = np.concatenate([made, as_names(names[len(made) :])])
        return made

    def forget(self, what: str) -> None:
        self._made.pop(what, None)


def save_columns(into: Arrays, prefix: str, columns: Columns) -> None:
    for name in columns.saved:
        into[f"{prefix}/{name}"] = columns[name].copy()


def load_columns(
    arrays: Mapping[str, NDArray[Any]],
    prefix: str,
    columns: Columns,
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    """Take the saved rows `pairs[0]` into the rows `pairs[1]`."""
    saved, rows = pairs
    for name in columns.saved:
        source = arrays.get(f"{prefix}/{name}")
        if source is None:
            continue
        if name in columns.rings and source.shape[1] > columns[name].shape[1]:
            columns.widen(name, source.shape[1])
        target = columns[name]
        if target.ndim == 2:
            width = min(target.shape[1], source.shape[1])
            target[rows, :width] = source[saved, :width]
        else:
            target[rows] = source[saved]


def matched(
    saved: Sequence[NDArray[Any]], current: Sequence[NDArray[np.bytes_]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(saved row, current row) for every name that stands in both; a name may have several columns.
    Mostly nothing has changed: then nothing is looked up."""
    if all(np.array_equal(old, new) for old, new in zip(saved, current, strict=True)):
        every = np.arange(len(current[0]))
        return every, every
    where = {name: row for row, name in enumerate(zip(*(c.tolist() for c in saved), strict=True))}
    names = zip(*(column.tolist() for column in current), strict=True)
    pairs = [(where[name], row) for row, name in enumerate(names) if name in where]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def that_are(
    live: NDArray[np.bool_], pairs: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of the pairs those whose current row is judged: what is not has no memory."""
    if live.all():
        return pairs
    saved, rows = pairs
    mine = live[rows]
    return saved[mine], rows[mine]


def that_lived(
    arrays: Mapping[str, NDArray[Any]], prefix: str, pairs: tuple[NDArray[np.int64], ...]
) -> NDArray[np.int64]:
    """Of the rows `pairs[1]`, those judged, or listened to, when `pairs[0]` were saved."""
    live = arrays.get(f"{prefix}/live")  # None: saved before this was
    saved, rows = pairs
    return rows if live is None else rows[live[saved]]


def prefixes(arrays: Mapping[str, NDArray[Any]], kind: str) -> list[str]:
    """The saved programs of a kind: a rule may have moved to another layer since."""
    tail = f":{kind}/instance/key"
    return [name.removesuffix("/instance/key") for name in arrays if name.endswith(tail)]


def load_held(arrays: Mapping[str, NDArray[Any]], points: PointTable) -> Batch:
    """The reorder buffer, by point id; rows of points that are gone are dropped."""
    ids = [name.decode() for name in arrays["held/id"].tolist()]
    rows = np.array([row for row, name in enumerate(ids) if name in points], dtype=np.int64)
    return Batch(
        np.array([points.index(ids[row]) for row in rows], dtype=np.int32),
        *(arrays[f"held/{name}"][rows] for name in HELD_COLUMNS),
    )
