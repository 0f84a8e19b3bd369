from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.batch import Batch
from gateway.model.point import ID_PATTERN, Point, PointTable
from gateway.sinks.influxdb.lines import LineWriter, id_of, tag_of
from gateway.sinks.repeats import Sifted

NAN = float("nan")


def write(point_id="ch4", *, value=1.5, quality=0, rank=0, site="mine-1", received=True, **options):
    points = PointTable()
    points.put(Point(point_id))
    writer = LineWriter(
        measurement=options.get("measurement", "sample"),
        site=site,
        points=points,
        with_received=received,
    )
    batch = Batch.of([0], [value], [17], received_time_ns=18, quality=quality)
    return writer.lines(batch, Sifted(np.array([0]), np.array([rank])))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "sample,point=ch4,site=mine-1 value=1.5,quality=0i,received=18i 17"),
        ({"received": False}, "sample,point=ch4,site=mine-1 value=1.5,quality=0i 17"),
        ({"site": ""}, "sample,point=ch4 value=1.5,quality=0i,received=18i 17"),
        ({"rank": 2}, "sample,dup=2,point=ch4,site=mine-1 value=1.5,quality=0i,received=18i 17"),
        (
            {"value": NAN, "quality": 129},
            "sample,point=ch4,site=mine-1 quality=129i,received=18i 17",
        ),
        ({"value": 1e300}, "sample,point=ch4,site=mine-1 value=1e+300,quality=0i,received=18i 17"),
        (
            {"measurement": "gas, raw", "rank": 1, "received": False},
            r"gas\,\ raw,dup=1,point=ch4,site=mine-1 value=1.5,quality=0i 17",
        ),
        (
            {"point_id": "T1,a=b", "received": False},
            r"sample,point=T1\,a\=b,site=mine-1 value=1.5,quality=0i 17",
        ),
        (
            {"point_id": "瓦斯", "site": "三号 矿", "received": False},
            r"sample,point=瓦斯,site=三号\ 矿 value=1.5,quality=0i 17",
        ),
    ],
)
def test_a_sample_is_one_line(options, line) -> None:
    assert write(**options) == ([line], [])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"value": float("inf")}, "infinite"),
        ({"value": float("-inf")}, "infinite"),
        ({"point_id": "a\ud800"}, "not_utf8"),
    ],
)
def test_what_the_protocol_cannot_say_is_refused_with_its_row(options, word) -> None:
    lines, refused = write(**options)
    assert lines == [""]
    ((row, reason),) = refused
    assert row == 0
    assert reason.startswith(word + ": ")


IDS = st.text(st.sampled_from("\\%25C,=a瓦"), min_size=1, max_size=8)


@given(IDS | st.from_regex(ID_PATTERN, fullmatch=True))
def test_every_id_comes_back_from_its_tag_and_no_tag_holds_a_backslash(point_id) -> None:
    assert id_of(tag_of(point_id)) == point_id
    assert "\\" not in tag_of(point_id)


@given(IDS, IDS)
def test_two_ids_never_share_a_tag(one, other) -> None:
    assert (tag_of(one) == tag_of(other)) == (one == other)


def test_points_declared_later_are_learnt() -> None:
    points = PointTable()
    writer = LineWriter(measurement="s", site="", points=points, with_received=False)
    for index, name in enumerate(("a", "b")):
        points.put(Point(name))
        batch = Batch.of([index], [1.0], [1], received_time_ns=1)
        lines, _ = writer.lines(batch, Sifted(np.array([0]), np.array([0])))
        assert lines == [f"s,point={name} value=1.0,quality=0i 1"]
