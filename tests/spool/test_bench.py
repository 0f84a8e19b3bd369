"""The figures are those of a spool that works, and nothing is left behind."""

import pytest

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
