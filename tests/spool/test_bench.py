"""The figures are those of a spool that works, and nothing is left behind."""

import pytest

from gateway.spool import bench_start
from gateway.spool.bench import measure


@pytest.mark.slow
def test_measure_gives_every_figure_for_every_size_and_cleans_up(tmp_path):
    figures = measure(tmp_path, seconds=0.03, batch_sizes=(1, 500))
    assert [each["batch_rows"] for each in figures["sizes"]] == [1, 500]
    for each in figures["sizes"]:
        assert all(value > 0 for value in each.values()), each
        assert each["ack_p50_ms"] <= each["ack_p99_ms"]
    assert figures["best_samples_per_s"] == figures["sizes"][1]["grouped_samples_per_s"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.system
def test_a_start_is_measured_in_a_process_of_its_own_and_leaves_nothing_behind(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(bench_start, "SMALL_GB", 0.001)
    figures = bench_start.measure(tmp_path, gb=0.04)
    small, large = figures["0.001_gb"], figures["0.04_gb"]
    assert large["rows"] > small["rows"] > 0
    assert large["lost_rows"] == 0
    assert large["first_rows_read"] == 20_000
    assert large["peak_rss_mb"] > 10
    assert list(tmp_path.iterdir()) == []


def test_a_backlog_that_would_not_fit_is_refused_before_a_byte_is_written(tmp_path):
    with pytest.raises(OSError, match="GB free"):
        bench_start.measure(tmp_path, gb=1e9)
    assert list(tmp_path.iterdir()) == []
