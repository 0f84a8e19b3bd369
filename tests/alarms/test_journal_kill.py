"""Real processes killed at any instant: nothing acknowledged is lost, nothing is there twice."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.alarms.journal import Journal
from gateway.testing.alarms import make_event

WRITER = """
import sys
from pathlib import Path
from gateway.alarms.journal import Journal
from gateway.testing.alarms import make_event

journal = Journal.open(Path(sys.argv[1]), reserve_bytes=0)
sizes = [1, 1, 3, 40, 1, 7]
head = journal.head
while True:
    size = sizes[head % len(sizes)]
    head = journal.append([make_event(g, key=f"p{g % 9}:r") for g in range(head + 1, head + 1 + size)])
    print(head, flush=True)
    if head % 5 == 0:
        journal.save_checkpoint(head, {})
"""


def acknowledged_before_the_kill(directory: Path, lines: int) -> int:
    """Let a writer run for some acknowledgements, kill it, and give the last one that got out."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, text=True
    ) as writer:
        last = 0
        for _ in range(lines):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout:
            last = int(line) if line.endswith("\n") else last
    return last


@pytest.mark.system
@pytest.mark.slow
def test_what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    rng = random.Random(20260726)
    head = 0
    for epoch in range(1, 9, 2):
        acknowledged = acknowledged_before_the_kill(tmp_path, rng.randrange(1, 60))
        journal = Journal.open(tmp_path, reserve_bytes=0)
        assert journal.epoch == epoch + 1
        assert journal.head >= acknowledged > head
        assert not journal.damage
        assert journal.load_checkpoint() is None or journal.load_checkpoint()[0] <= journal.head
        found = journal.read(head, 100_000)
        assert found == [
            make_event(gseq, key=f"p{gseq % 9}:r") for gseq in range(head + 1, journal.head + 1)
        ]
        assert journal.verify().ok
        live = journal.live_rows()
        journal.rebuild()
        assert journal.live_rows() == live
        head = journal.head
        journal.close()
