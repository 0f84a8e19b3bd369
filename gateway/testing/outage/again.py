"""The same rows judged once more as if there had been no outage: which alarms they raise.

The rows are those the database accepted, in order of receipt, a second at a time; rule set, points
and book are the site's own (gateway/runtime/rerun.py). What the gateway raised and these do not is
the outage's, or its backlog's, and nobody's plant.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gateway.model.alarm import Transition
from gateway.model.batch import Batch
from gateway.model.point import PointTable
from gateway.runtime.checking import load_site
from gateway.runtime.plugins import load_plugins
from gateway.runtime.rerun import Judging, derived_mask, open_points
from gateway.runtime.siterules import site_rules
from gateway.sinks.influxdb.lines import id_of
from gateway.testing.outage.recorder import Run

SECOND_NS = 1_000_000_000

Raised = tuple[str, int]
"""Alarm key and time."""


def raised_without_outage(site: Path, runs: Iterable[Run]) -> tuple[set[Raised], int]:
    """Every activation of judging the rows of `runs` with the rules of `site`; and up to when there
    are rows: what came in later the gateway had judged when it was stopped, and not stored yet."""
    plugins = load_plugins()
    config = load_site(site, plugins)
    rules = site_rules(config, plugins.rule_kinds).rules
    with open_points(config, rules) as points:
        judging = Judging(config, plugins, rules, points)
        rows = _rows(runs, points)
    rows = rows.take(~derived_mask(points, [judging])[rows.point_index])
    rows = rows.take(np.argsort(rows.received_time_ns, kind="stable"))
    judging.begin(int(rows.source_time_ns.min()))
    events = []
    second = rows.received_time_ns // SECOND_NS
    for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(second)) + 1):
        batch = rows.take(part)
        events += judging.judge(batch, int(batch.received_time_ns[-1]))
    raised = {
        (event.alarm.alarm_key, event.time_ns)
        for event in events
        if event.transition is Transition.ACTIVATED
    }
    return raised, int(rows.received_time_ns[-1])


def _rows(runs: Iterable[Run], points: PointTable) -> Batch:
    """Every line once, however often it was written."""
    lines = dict.fromkeys(line for run in runs for line in run.lines if line)
    columns: list[tuple[int, float, int, int, int]] = []
    for line in lines:
        head, fields, time = line.split(" ")
        tag = head.rpartition("point=")[2].partition(",site=")[0]
        found = dict(part.split("=") for part in fields.split(","))
        point = id_of(tag.replace("\\", ""))
        columns.append(
            (
                points.index(point),
                float(found.get("value", "nan")),
                int(found["quality"].rstrip("i")),
                int(time),
                int(found["received"].rstrip("i")),
            )
        )
    index, value, quality, source_ns, received_ns = zip(*columns, strict=True)
    return Batch.of(index, value, source_ns, received_time_ns=received_ns, quality=quality)
