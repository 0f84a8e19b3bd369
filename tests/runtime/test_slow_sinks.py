"""A sick sink costs no alarm. How long alarms take beside it is a command's figure, no assertion:
`python -m gateway.testing.slow_sinks`."""

from __future__ import annotations

import pytest

from gateway.testing.slow_sinks import MODES, measure


@pytest.mark.slow
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "none"])
async def test_alarms_are_raised_and_cleared_beside_a_sick_sink_with_a_backlog(
    tmp_path, monkeypatch, mode
) -> None:
    monkeypatch.setattr("gateway.runtime.deliver._CLOSE_TIMEOUT_S", 0.1)
    figures = await measure(mode, tmp_path, rows=20_000, seconds=0.5)
    assert figures.alarms > 2
    if mode != "duckdb":
        assert figures.drained_rows == 0, "nothing is done with that nobody stored"
