"""The short form of `make storm`: real processes, a handful of sockets, no figures judged but those
that do not depend on the machine. (Slow sockets: tests/adapters/jt808/test_admission.py.)"""

from __future__ import annotations

import json

import pytest

from simulators.jt808 import storm

pytestmark = [pytest.mark.system, pytest.mark.slow]
FEW = ["--steady", "3", "--baseline", "5", "--json"]


def figures(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert storm.main([*arguments, *FEW]) in {0, 1}  # 1: this machine was slower than F16 asks
    return dict(json.loads(capsys.readouterr().out))


def test_all_come_back_and_nobody_who_was_there_is_cut_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = figures(capsys, "--devices", "25")
    assert (said["devices"], said["connected_lost"], said["complaints"]) == (25, 0, [])
    assert said["before"]["count"]
    assert said["rss_peak_mib"]
