"""The outage proof in its short form; `make outage` for the long one, which judges times as well."""

from __future__ import annotations

import pytest

from gateway.testing.outage.run import Plan, prove

# How fast and how large depends on the machine, and is judged by the command.
MACHINE = {"drained at 10 times real time", "memory growth under 50 MB"}


@pytest.mark.system
@pytest.mark.slow
async def test_an_outage_of_broker_and_database_costs_no_row_no_order_and_no_alarm(
    tmp_path,
) -> None:
    plan = Plan(outage_s=6, calm_s=3, after_s=1, dams=12, vehicles=3, live_first_after_rows=300)
    report = await prove(plan, tmp_path, print)
    print(report.as_json())
    assert report.acknowledged > 1_000
    assert report.writes.backlog_rows > 300, "there was an outage to get over"
    assert report.standing == 6, "five that stand, and the probe's"
    failed = [name for name, ok in report.passes().items() if not ok and name not in MACHINE]
    assert not failed, (report.store.examples, report.writes.examples, report.alarms_unexpected)
