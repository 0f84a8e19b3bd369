"""kill -9 and damaged files: what was returned is there, and the store always opens."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest

from gateway.model.batch import Batch
from gateway.model.errors import Unavailable
from gateway.model.point import Point, PointTable
from gateway.sinks.duckdb import KIND
from gateway.testing.sinks import NOON, S, sink_context

WRITER = """
import asyncio, sys
from pathlib import Path
import numpy as np
from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.sinks.duckdb import KIND
from gateway.testing.sinks import NOON, S, sink_context

async def main(folder, begin):
    points = PointTable()
    for i in range(4):
        points.put(Point(f"p{i}"))
    context = sink_context(Path(folder), points=points)
    sink = KIND.build_samples(KIND.config(settle_rows=3_000, wal_limit_mb=1), context)
    await sink.open()
    while True:
        i = np.arange(begin, begin + 500)
        batch = Batch.of(i % 4, i * 0.5, NOON + i * S, received_time_ns=NOON + i * S)
        await sink.write(batch, begin + 500)
        begin += 500
        print(begin, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def steps(begin: int, count: int) -> Batch:
    i = np.arange(begin, begin + count)
    return Batch.of(i % 4, i * 0.5, NOON + i * S, received_time_ns=NOON + i * S)


def make_sink(folder, **options):
    points = PointTable()
    for i in range(4):
        points.put(Point(f"p{i}"))
    context = sink_context(folder, points=points)
    return KIND.build_samples(KIND.config(**options), context), context


async def held_count(sink) -> int:
    """Rows held, after checking that they are the first of `steps` without hole or repeat."""
    count = await sink.history.count()
    found = await sink.history.read(None, NOON, NOON + (1 << 60), rows_max=10_000_000)
    number = np.sort((found.source_time_ns - NOON) // S)
    assert (number == np.arange(count)).all(), "a hole or a repeat"
    assert (found.value == (found.source_time_ns - NOON) / S * 0.5).all()
    return count


@pytest.mark.system
@pytest.mark.slow
async def test_every_write_that_returned_is_there_after_kill_9(tmp_path) -> None:
    seed = int.from_bytes(os.urandom(4))
    chance = random.Random(seed)
    acknowledged = 0
    for cycle in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(acknowledged)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            for _ in range(chance.randint(1, 25)):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            tail = writer.stdout.read().split()
        acknowledged = int(tail[-1]) if tail else acknowledged
        sink, context = make_sink(tmp_path)
        await sink.open()
        count = await held_count(sink)
        # the write under way when the kill came may be there or not, but whole
        assert acknowledged <= count <= acknowledged + 500, f"seed {seed}, cycle {cycle}"
        assert count % 500 == 0, f"seed {seed}, cycle {cycle}"
        again = await sink.write(steps(acknowledged, 500), acknowledged + 500)
        assert again.accepted == acknowledged + 500 - count, f"seed {seed}, cycle {cycle}"
        assert not context.counters.counts["quarantined:damaged_file"]
        await sink.close()
        acknowledged += 500


def crashed_store(folder) -> tuple[bytes, bytes]:
    """File and log as a process leaves them that dies with 20,000 rows, the last 2,000 in the
    log."""
    script = WRITER.replace("while True:", "while begin < 20_000:").replace("wal_limit_mb=1", "")
    script = script.replace(
        "        print(begin, flush=True)\n",
        "        await sink.settled()\n"
        "        if begin == 18_000:\n"
        "            sink._store._connection.execute('checkpoint')\n",
    )
    script += "\n"
    script = script.replace(
        "asyncio.run(main(sys.argv[1], int(sys.argv[2])))",
        "    import os\n    os._exit(0)\n\nasyncio.run(main(sys.argv[1], 0))",
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True)
    path = folder / "history.duckdb"
    return path.read_bytes(), path.with_name("history.duckdb.wal").read_bytes()


@pytest.fixture(scope="module")
def crashed(tmp_path_factory) -> tuple[bytes, bytes]:
    return crashed_store(tmp_path_factory.mktemp("crashed"))


def lay(folder, file: bytes | None, log: bytes | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in (("history.duckdb", file), ("history.duckdb.wal", log)):
        if data is not None:
            (folder / name).write_bytes(data)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


async def check_goes_on(folder, *, held_at_least: int, damaged: bool) -> None:
    """Opens, holds what could be saved, takes new rows, and says so if something was lost."""
    sink, context = make_sink(folder)
    await sink.open()
    assert await held_count(sink) >= held_at_least
    aside = [path.name for path in folder.iterdir() if ".damaged-" in path.name]
    assert bool(aside) == damaged
    assert bool(context.counters.counts["quarantined:damaged_file"]) == damaged
    assert ("faulty" in [state for state, _ in context.status.states]) == damaged
    assert bool(sink.damage) == damaged
    new = await sink.write(steps(50_000, 100), 50_100)
    assert new.accepted == 100
    await sink.close()


@pytest.mark.system
@pytest.mark.slow
async def test_a_torn_log_loses_only_its_torn_end(tmp_path, crashed) -> None:
    file, log = crashed
    lay(tmp_path / "s", file, log)
    await check_goes_on(tmp_path / "s", held_at_least=20_000, damaged=False)
    lay(tmp_path / "s", file, log[:-5])
    await check_goes_on(tmp_path / "s", held_at_least=19_500, damaged=False)
    lay(tmp_path / "s", file, None)
    await check_goes_on(tmp_path / "s", held_at_least=18_000, damaged=False)


@pytest.mark.system
@pytest.mark.slow
async def test_a_log_the_engine_drops_without_a_word_is_noticed_by_the_offsets(
    tmp_path, crashed
) -> None:
    file, log = crashed
    lay(tmp_path / "s", file, flipped(log, 4))
    sink, context = make_sink(tmp_path / "s")
    await sink.open()
    lost = 20_000 - await held_count(sink)
    assert lost == 2_000, "the engine of this version takes it for a torn end"
    assert not context.counters.counts["quarantined:damaged_file"]
    await sink.write(steps(20_000, 500), 20_500)
    assert context.counters.counts["missing:offset_gap"] == lost
    await sink.close()


@pytest.mark.system
@pytest.mark.slow
async def test_a_damaged_log_is_set_aside_and_the_file_kept(tmp_path, crashed) -> None:
    file, log = crashed
    at = log.index(struct.pack("<d", 19_000 * 0.5))  # a value: its entry's checksum is wrong
    lay(tmp_path / "s", file, flipped(log, at))
    await check_goes_on(tmp_path / "s", held_at_least=18_000, damaged=True)
    (aside,) = (tmp_path / "s").glob("*.damaged-*")
    assert aside.name.startswith("history.duckdb.wal.damaged-")
    assert aside.read_bytes() == flipped(log, at), "kept as it was found"


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.parametrize("file", [b"", b"not a database" * 500, None], ids=["empty", "text", "cut"])
async def test_a_file_that_is_no_database_is_set_aside_with_its_log(
    tmp_path, crashed, file
) -> None:
    good, log = crashed
    lay(tmp_path / "s", good[: len(good) // 2] if file is None else file, log)
    await check_goes_on(tmp_path / "s", held_at_least=0, damaged=True)


@pytest.mark.system
@pytest.mark.slow
async def test_any_flipped_bit_lets_the_store_open_and_take_new_rows(tmp_path, crashed) -> None:
    """Data that is damaged where opening does not look is told at reading, never made up."""
    file, log = crashed
    seed = int.from_bytes(os.urandom(4))
    chance = random.Random(seed)
    for _ in range(16):
        target = chance.choice(["file", "log"])
        at = chance.randrange(len(file if target == "file" else log))
        if target == "file":
            lay(tmp_path / "s", flipped(file, at), log)
        else:
            lay(tmp_path / "s", file, flipped(log, at))
        sink, _ = make_sink(tmp_path / "s")
        await sink.open()
        try:
            await held_count(sink)
        except Unavailable:
            assert target == "file", f"seed {seed}: {target} at {at}"
        new = await sink.write(steps(50_000, 100), 50_100)
        assert new.accepted == 100, f"seed {seed}: {target} at {at}"
        await sink.close()


async def test_a_store_broken_while_running_is_opened_anew_by_the_next_write(tmp_path) -> None:
    sink, _ = make_sink(tmp_path)
    await sink.open()
    await sink.write(steps(0, 100), 100)
    sink._store._connection.close()  # as after a fatal error of the engine
    with pytest.raises(Unavailable):
        await sink.write(steps(100, 100), 200)
    assert (await sink.write(steps(100, 100), 200)).accepted == 100
    assert await held_count(sink) == 200
    await sink.close()
