"""Two processes on one spool: whoever was overtaken acknowledges nothing more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from gateway.model.errors import StorageFault
from gateway.spool.spool import Spool, SpoolOptions
from gateway.testing.spool import drain, numbered

STALE = """
import sys
from pathlib import Path
from gateway.spool.spool import Spool, SpoolOptions
from gateway.testing.spool import numbered
from gateway.model.errors import StorageFault

spool = Spool.open(Path(sys.argv[1]), SpoolOptions(segment_rows_max=200))
cursor = spool.cursor("stale")
try:
    while True:
        end = spool.append_now([numbered(spool.head, 3)])
        print("acked", end, flush=True)
        if sys.argv[2] == "commits":
            cursor.read(3)
            cursor.commit_now(cursor.position)
            print("committed", cursor.position, flush=True)
except StorageFault as fault:
    print("refused", spool.has_failed_for_good, fault, flush=True)
spool.close_now()
"""
OPTIONS = SpoolOptions(segment_rows_max=50)


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.parametrize("does", ["appends", "commits"])
@pytest.mark.parametrize("deleted", [("spool.lock",), ("spool.lock", "positions")])
def test_a_process_that_was_stopped_and_overtaken_acknowledges_nothing_more(
    tmp_path, does, deleted
) -> None:
    keeper = Spool.open(tmp_path, OPTIONS)
    keeper.cursor("check")
    keeper.close_now()
    stale = subprocess.Popen(
        [sys.executable, "-c", STALE, str(tmp_path), does], stdout=subprocess.PIPE, text=True
    )
    try:
        lines = [stale.stdout.readline() for _ in range(40)]
        stale.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, stale.pid, os.WSTOPPED | os.WNOWAIT)
        for name in deleted:
            (tmp_path / name).unlink()
        newer = overtaken(tmp_path)
        first = newer.head
        assert newer.append_now([numbered(first, 30)]) == first + 30
        stale.send_signal(signal.SIGCONT)
        lines += stale.stdout.readlines()  # until it ends by itself
        assert stale.wait(30) == 0
    finally:
        stale.kill()
        stale.wait()
        stale.stdout.close()
    assert lines[-1].startswith("refused True"), lines[-3:]
    acked = [int(line.split()[1]) for line in lines if line.startswith("acked")]
    assert acked[-1] <= first, "what it acknowledged was there when the newer one looked"
    for _ in range(4):  # and nothing it left behind takes a number or a segment from the newer one
        newer.append_now([numbered(newer.head, 30)])
    head, stats = newer.head, newer.stats()
    assert stats.fault == ""
    newer.close_now()
    again = Spool.open(tmp_path, OPTIONS)
    assert again.head == head
    assert drain(again.cursor("check")) == list(range(again.cursor("check").committed, head))
    assert again.stats().lost_rows == 0
    again.close_now()


def overtaken(directory) -> Spool:
    """Opened by another. A process stopped inside a commit holds SQLite's lock on its segment: the
    start is then refused, as it may be, until that process goes on."""
    return Spool.open(directory, OPTIONS)


def test_a_newer_epoch_in_the_same_file_fences_even_where_locks_are_not_honoured(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("fcntl.flock", lambda _descriptor, _how: None)
    older = Spool.open(tmp_path, OPTIONS)
    older.cursor("one")
    older.append_now([numbered(0, 5)])
    newer = Spool.open(tmp_path, OPTIONS)
    assert newer.head == 5
    with pytest.raises(StorageFault, match="opened the spool after"):
        older.append_now([numbered(5, 5)])
    assert older.has_failed_for_good
    assert older.stats().fault_kind == "fenced"
    assert newer.append_now([numbered(5, 3)]) == 8
    assert drain(newer.cursor("one")) == list(range(8))
    older.close_now()
    newer.close_now()


def test_positions_deleted_under_a_running_spool_are_made_anew(tmp_path) -> None:
    spool = Spool.open(tmp_path, OPTIONS)
    cursor = spool.cursor("one")
    spool.append_now([numbered(0, 5)])
    drain(cursor)
    cursor.commit_now(4)
    (tmp_path / "positions").unlink()
    with pytest.raises(StorageFault):
        spool.append_now([numbered(5, 5)])
    spool.try_again_now()
    spool.append_now([numbered(spool.head, 5)])
    spool.close_now()
    again = Spool.open(tmp_path, OPTIONS)
    assert again.cursor("one").committed == 4
    assert drain(again.cursor("one")) == [4, *range(5, 10)]
    again.close_now()
