"""The core as the console sees it: what the System page says is what happened."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gateway.alarms.book import AlarmBook
from gateway.api import wire
from gateway.model.batch import Batch
from gateway.model.point import Point
from gateway.runtime.checking import load_site
from gateway.runtime.core import open_core
from gateway.runtime.plugins import load_plugins
from gateway.runtime.provider import ChangeWatch, CoreView
from gateway.testing.alarms import S, make_conditions, make_instance
from gateway.testing.servers import until

T = 1_700_000_000 * S

LOOKS = [  # (what is held, second of the look), and since which second, None for unknown
    ([("a", 0), ("a", 1), ("a", 2)], 0),
    ([("a", 0), ("b", 1), ("b", 2)], 1),
    ([("a", 0), ("b", 1), ("a", 2)], 2),
    ([("a", 0), ("a", 60), ("a", 61)], 0),
    ([("a", 0), ("b", 60), ("b", 61)], None),  # nobody looked when it changed
    ([("a", 60)], None),  # the first look long after the start
]


@pytest.mark.parametrize(("looks", "expected"), LOOKS)
def test_a_change_has_the_time_it_was_seen_or_none_when_nobody_looked(looks, expected):
    watch = ChangeWatch()
    for held, second in looks:
        since_ns = watch.since_ns("sink", held, T + second * S, born_ns=T)
    assert since_ns == (None if expected is None else T + expected * S)


SITE = """
packs = ["tailings"]

[site]
tenant = "t"
id = "s"
name = { zh = "示例企业", en = "Example enterprise" }
data_dir = "data"

[console]
enabled = false
"""


def batch_of(indices: list[int], values: list[float], time_ns: int) -> Batch:
    times = np.full(len(indices), time_ns, np.int64)
    return Batch(
        np.array(indices, np.int32),
        np.array(values, np.float64),
        np.zeros(len(indices), np.uint8),
        times,
        times,
    )


@pytest.mark.slow
async def test_the_road_adds_up_with_what_rules_calculated_and_the_judge_is_not_behind(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(SITE, encoding="utf-8")
    plugins = load_plugins()
    async with open_core(load_site(path, plugins), plugins) as core:
        view = CoreView(core)
        core.start()
        indices = await core.registry.for_adapter("dam").points(
            [
                Point("p.top", quantity="beach_top", unit="m", area="p"),
                Point("p.pool", quantity="pool_level", unit="m", area="p"),
            ]
        )
        for second in range(3):
            await core.intake.emit(batch_of(indices, [131.0, 129.5], core.started_ns + second))

        def is_done() -> bool:
            """What the rules calculated is durable too, and came back to the judge."""
            told = view.status()
            behind = {cursor.name: cursor.behind_records for cursor in told.spool.cursors}
            judged = told.road.judged == told.road.durable == 6 + told.road.derived
            return bool(told.road.derived) and judged and behind["judge"] == 0

        await until(is_done, timeout_s=60.0)
        told = view.status()
    assert (told.site_name, told.site_names["en"]) == ("示例企业", "Example enterprise")
    assert told.road.received == 6
    assert told.road.derived > 0
    assert told.road.durable == told.road.received + told.road.derived == told.spool.head_offset
    # Its checkpoint comes every few seconds: what is read and judged is not a backlog.
    assert {cursor.name: cursor.behind_records for cursor in told.spool.cursors}["judge"] == 0


def test_an_alarm_bears_the_name_of_its_instance_also_after_it_was_renamed():
    book = AlarmBook(1)
    for second, (level, name) in enumerate((("H", "甲烷"), ("HH", "3101工作面T1 甲烷"))):
        instances = [replace(make_instance(levels=("H", "HH")), display_name=name)]
        conditions = make_conditions((0, level, T + second * S, 1.2), instances=instances)
        (event,) = book.apply(conditions, instances, T + second * S)
        assert wire.event_row(event).display_name == name
        assert wire.alarm_row(event.alarm).display_name == name
