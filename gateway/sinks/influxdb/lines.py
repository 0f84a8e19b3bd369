"""Samples as InfluxDB line protocol. Pure.

    sample,dup=1,point=mine-1.T1.ch4,site=mine-1 value=0.42,quality=0i,received=17…i 17…
      |      |       `-- tags, by name           |     |          |                   `-- source ns
      |      `-- only for the second, third … sample of one point and one time
      `-- measurement                            `-- absent where there is no value

Point and time name a row in InfluxDB: writing it again changes nothing, and a second value at the
same time needs the `dup` tag to stand beside the first (repeats.py gives the rank). A value is
written with the shortest digits that read back to the same bits.

A backslash cannot be written safely into a tag: before a comma or at the end it would escape what
follows, and it has no escape of its own (tried with 1.6.7). Ids that hold one travel with `%5C` for
it and `%25` for `%`; so do ids that already look like that, which keeps the way back unambiguous.

Not here: sending (server.py), what is new (gateway/sinks/repeats.py).
"""

from __future__ import annotations

from gateway.model.batch import Batch
from gateway.model.point import PointTable
from gateway.sinks.repeats import Sifted

_INFINITE = "infinite: the line protocol has no infinity"
_NOT_UTF8 = "not_utf8: the point's id cannot be written as UTF-8"
_TAG = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_MEASUREMENT = str.maketrans({",": r"\,", " ": r"\ "})


def tag_of(point_id: str) -> str:
    """The id as it stands in the store."""
    if "\\" in point_id or "%5C" in point_id or "%25" in point_id:
        return point_id.replace("%", "%25").replace("\\", "%5C")
    return point_id


def id_of(tag: str) -> str:
    """The id a stored tag stands for."""
    return tag.replace("%5C", "\\").replace("%25", "%")


class LineWriter:
    """Writes batches of one site; remembers the beginning of each point's line."""

    def __init__(
        self, *, measurement: str, site: str, points: PointTable, with_received: bool
    ) -> None:
        self._points = points
        self._with_received = with_received
        self._measurement = measurement.translate(_MEASUREMENT)
        self._tail = f",site={tag_of(site).translate(_TAG)}" if site else ""
        self._heads: list[str | None] = []

    def lines(self, batch: Batch, sifted: Sifted) -> tuple[list[str], list[tuple[int, str]]]:
        """One line for each row in `sifted.rows`, in order, "" for those that cannot be written;
        and these again as (row of the batch, reason)."""
        self._learn_points()
        chosen = batch if len(sifted.rows) == len(batch) else batch.take(sifted.rows)
        lines, refused = [], []
        heads, with_received = self._heads, self._with_received
        columns = (
            chosen.point_index.tolist(),
            chosen.value.tolist(),
            chosen.quality.tolist(),
            chosen.source_time_ns.tolist(),
            chosen.received_time_ns.tolist(),
            sifted.rank.tolist(),
        )
        for row, (point, value, quality, time_ns, received_ns, rank) in enumerate(
            zip(*columns, strict=True)
        ):
            head = heads[point]
            if head is None or value in _INFINITIES:
                refused.append((int(sifted.rows[row]), _INFINITE if head else _NOT_UTF8))
                lines.append("")
                continue
            if rank:
                head = self._with_dup(head, rank)
            number = f"value={value!r}," if value == value else ""  # noqa: PLR0124 - NaN
            received = f",received={received_ns}i" if with_received else ""
            lines.append(f"{head} {number}quality={quality}i{received} {time_ns}")
        return lines, refused

    def _learn_points(self) -> None:
        for index in range(len(self._heads), len(self._points)):
            point_id = self._points[index].id
            tag = tag_of(point_id).translate(_TAG)
            head = f"{self._measurement},point={tag}{self._tail}"
            self._heads.append(head if _is_utf8(point_id) else None)

    def _with_dup(self, head: str, rank: int) -> str:
        return f"{self._measurement},dup={rank}{head[len(self._measurement) :]}"


_INFINITIES = frozenset((float("inf"), float("-inf")))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
