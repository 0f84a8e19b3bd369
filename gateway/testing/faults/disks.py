"""F5 and F6: the disk is full, has no inodes, becomes read-only, or gives back other bytes.

File systems of their own, made and unmade here: a small tmpfs, an ext4 in a file. Whatever happens,
they are unmounted.

The surprising thing: a file system with files open for writing cannot be remounted read-only by
anybody but the kernel, so the kernel is made to do it (`errors=remount-ro` and an error of ext4's
own making); and it does not take that back. Recovery there means unmount, mount, start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from gateway.runtime.clock import now_ns
from gateway.testing.faults import checks, evidence
from gateway.testing.faults.process import Missing
from gateway.testing.faults.rig import Plan, Rig, dropped_count
from gateway.testing.faults.scenario import Run
from gateway.testing.faults.servers import program

DISK_MB = 192  # the journal's reserve of 64 MiB, the history's log, and room to fill
INODES = 400
# Of a disk this small; a real one keeps 256, and room for two segments to make room with.
_FREE = "disk_free_min_mb = 16\nsegment_bytes_max_mb = 4"
_EXT4_MB = 224
_CHUNK = b"\0" * (1 << 20)
_RECOVERS_S = 30.0


def _mount(*arguments: str) -> None:
    done = subprocess.run(
        [program("mount"), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Missing(f"mount {' '.join(arguments)}: {done.stderr.strip()}")


def _unmount(folder: Path) -> None:
    """Lazily if something still holds it: it is gone then with its last user."""
    umount = program("umount")
    if subprocess.run([umount, str(folder)], capture_output=True, check=False).returncode:
        subprocess.run([umount, "-l", str(folder)], capture_output=True, check=False)


@contextlib.contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _unmount(folder)


def fill(path: Path) -> int:
    """Write until nothing more goes in; returns the bytes."""
    written = 0
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1 << 9):
            while True:
                try:
                    written += file.write(_CHUNK[:size])
                except OSError:
                    break
    return written


async def _live(seconds: float) -> tuple[int, int]:
    """Let the load go on; returns from when to when."""
    began_ns = now_ns()
    await asyncio.sleep(seconds)
    return began_ns, now_ns()


async def ends_well(run: Run, rig: Rig) -> None:
    """The gateway never ended; what was promised is stored or counted as dropped, exactly; every
    transition is on record."""
    found = run.found
    process = rig.gateway
    assert process is not None, "started"
    if not found.require(process.is_running, f"the gateway ended: {process.said(600)}"):
        return
    await rig.feeder.stop()
    found.require(await rig.drained(run.limit(checks.DRAIN_S)), "not everything drained in time")
    dropped = dropped_count(rig.link.status)
    await checks.check_journal(run, rig)
    await rig.stop()
    held = await rig.stored()
    wanted = rig.feeder.expected
    lost = [sample for sample in wanted if sample not in held]
    found.figure(f"{len(wanted)} samples promised, {len(lost)} not stored, {dropped} counted so")
    found.require(
        len(lost) == dropped, f"{len(lost)} samples not stored, {dropped} counted as dropped"
    )
    found.none_of([f"{n} x {s}" for s, n in held.items() if n > 1][:3], "stored twice")


async def full_disk(run: Run) -> None:
    """F5-full."""
    with tmpfs(run.folder / "disk", f"size={DISK_MB}m,mode=700") as disk:
        async with run.rig(Plan(data_dir=disk / "data", spool=_FREE)) as rig:
            await rig.first_start()
            rig.feeder.start()
            await asyncio.sleep(1.0)
            ballast = disk / "ballast"
            filled = await asyncio.to_thread(fill, ballast)
            run.found.figure(f"{filled >> 20} MiB of ballast in {DISK_MB} MiB")
            began_ns, ended_ns = await _live(4.0 if run.quick else 20.0)
            checks.check_latency(run, rig, began_ns, ended_ns - 10**9, "while full:")
            ballast.unlink()
            await _live(1.0 if run.quick else 5.0)
            await ends_well(run, rig)


async def no_inodes(run: Run) -> None:
    """F5-inodes: files there are grow; no new one can be made. The spool must roll meanwhile."""
    options = f"size={DISK_MB}m,nr_inodes={INODES},mode=700"
    with tmpfs(run.folder / "disk", options) as disk:
        plan = Plan(data_dir=disk / "data", spool=f"segment_rows_max = 100\n{_FREE}")
        async with run.rig(plan) as rig:
            await rig.first_start()
            rig.feeder.start()
            await asyncio.sleep(1.0)
            taken = disk / "taken"
            taken.mkdir()
            count = 0
            with contextlib.suppress(OSError):
                while True:
                    (taken / str(count)).touch()
                    count += 1
            run.found.figure(f"{count} of {INODES} inodes taken")
            began_ns, ended_ns = await _live(4.0 if run.quick else 20.0)
            checks.check_latency(run, rig, began_ns, ended_ns - 10**9, "without inodes:")
            shutil.rmtree(taken)
            await _live(1.0 if run.quick else 5.0)
            await ends_well(run, rig)


@contextlib.asynccontextmanager
async def _ext4(folder: Path) -> AsyncIterator[Path]:
    """An ext4 of our own, mounted at `folder`."""
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(_EXT4_MB << 20)
    await asyncio.to_thread(
        subprocess.run, [program("mkfs.ext4"), "-q", "-F", str(image)], check=True
    )
    folder.mkdir(parents=True, exist_ok=True)
    mount_ext4(image, folder)
    try:
        yield folder
    finally:
        _unmount(folder)
        image.unlink()


def mount_ext4(image: Path, folder: Path) -> None:
    _mount("-o", "loop,errors=remount-ro", str(image), str(folder))


def make_read_only(folder: Path) -> None:
    """Let ext4 find an error. Raises Missing."""
    with Path("/proc/mounts").open(encoding="utf-8") as mounts:
        devices = [line.split()[0] for line in mounts if line.split()[1] == str(folder)]
    switch = Path("/sys/fs/ext4") / Path(devices[0]).name / "trigger_fs_error"
    try:
        with contextlib.suppress(OSError):  # the write itself may be told of the error
            switch.write_text("1", encoding="ascii")
        os.close(os.open(folder / "probe", os.O_CREAT | os.O_WRONLY))
    except OSError:
        return
    raise Missing("this kernel does not make an ext4 read-only on order")


async def read_only(run: Run) -> None:
    """F5-readonly: nothing is acknowledged that is not on the disk; after unmount, mount and start
    everything is there, and what the broker still held comes in."""
    async with _ext4((run.folder / "disk").resolve()) as disk:  # noqa: SIM117
        async with run.rig(Plan(data_dir=disk / "data", spool=_FREE)) as rig:
            await rig.first_start()
            rig.feeder.start()
            await asyncio.sleep(1.5)
            make_read_only(disk)
            await _live(3.0 if run.quick else 15.0)
            process = rig.gateway
            assert process is not None, "started"
            state = "still ran" if process.is_running else "had ended for a service manager"
            said = process.said(100_000)
            loud = [line for line in said.splitlines() if "CRITICAL" in line or "ERROR" in line]
            run.found.require(bool(loud), "a read-only disk and not a word in the log")
            run.found.figure(f"the gateway {state}; {len(loud)} lines of log about it")
            await rig.stop()
            _unmount(disk)
            mount_ext4(disk.with_suffix(".img"), disk)
            await rig.start()
            await asyncio.sleep(1.0)
            await checks.check_all(run, rig)


# ---------------------------------------------------------------------- F6

_FLIPS = (  # what is damaged, in turn
    "spool/*.segment",
    "spool/*.segment-wal",
    "spool/positions",
    "journal/journal.db",
    "journal/journal.db-wal",
    "journal/checkpoint-*",
    "points",
    "points.journal",
)
# One bit spoils at most one page of 4 KiB, or one batch where that is larger: 50 reports of five
# samples gathered while the gateway was starting; about ten events of 350 bytes.
_SAMPLES_OF_A_FLIP_MAX = 250
_EVENTS_OF_A_FLIP_MAX = 12
_STARTS_S = 10.0


def flip(path: Path, rng: random.Random) -> int:
    """One bit of one byte that is not zero; returns where."""
    data = path.read_bytes()
    where = next(
        (w for w in (rng.randrange(len(data)) for _ in range(1000)) if data[w]), len(data) - 1
    )
    with path.open("r+b") as file:
        file.seek(where)
        file.write(bytes([data[where] ^ (1 << rng.randrange(8))]))
    return where


async def flipped_bits(run: Run) -> None:
    """F6: kill, flip, start, again and again, with the database away so that the spool holds
    everything; then the database comes back."""
    rounds = run.pick(8, 64)
    async with run.rig(Plan(store="influxdb")) as rig:
        await rig.first_start()
        await rig.proxies["store"].set("refuse")
        rig.feeder.start()
        hit: list[str] = []
        for number in range(rounds):
            await asyncio.sleep(0.6)
            await rig.kill()
            files = [
                path
                for path in sorted(rig.data_dir.glob(_FLIPS[number % len(_FLIPS)]))
                if path.is_file() and path.stat().st_size
            ]
            if files:
                path = run.rng.choice(files)
                where = flip(path, run.rng)
                hit.append(f"{path.relative_to(rig.data_dir)} at {where}")
                run.say(hit[-1])
            began_ns = now_ns()
            await rig.start()
            took_s = (now_ns() - began_ns) / 1e9
            run.found.require(took_s <= run.limit(_STARTS_S), f"start took {took_s:.1f} s")
        await rig.proxies["store"].set("pass")
        await rig.feeder.stop()
        run.found.require(await rig.drained(run.limit(checks.DRAIN_S)), "not everything drained")
        quarantined = rig.link.status["spool"]["quarantined_count"]
        records = await rig.records()
        whole, words = await evidence.journal_is_whole(rig.journal)
        held = await rig.stored()
    _judge_damage(run, rig, hit, held, records)
    found = run.found
    copies = [p for p in rig.data_dir.glob("**/quarantine/*") if p.is_file()]
    found.figure(
        f"{len(copies)} copies in quarantine, {quarantined} counted since the last start; "
        f"verify: {words[:120]}"
    )
    missing = records[-1].gseq - len(records)
    found.require(not missing or not whole, f"{missing} events gone and verify says whole")
    found.require(not found.damage_count or bool(copies), "something lost, nothing in quarantine")


def _judge_damage(
    run: Run,
    rig: Rig,
    hit: Sequence[str],
    held: Counter[tuple[str, int, float]],
    records: Sequence[evidence.JournalRecord],
) -> None:
    """Loss within what the flips can have hit."""
    found = run.found
    in_spool = sum(name.startswith("spool") for name in hit)
    in_journal = sum(name.startswith("journal/journal") for name in hit)
    lost = [sample for sample in rig.feeder.expected if sample not in held]
    missing = records[-1].gseq - len(records)
    found.damage_count = len(lost) + missing
    found.figure(
        f"{len(hit)} flips; {len(rig.feeder.acknowledged)} samples promised, {len(lost)} lost by "
        f"{in_spool} flips in the spool; {len(records)} events on record, {missing} lost by "
        f"{in_journal} flips in the journal"
    )
    found.require(
        len(lost) <= in_spool * _SAMPLES_OF_A_FLIP_MAX, f"{len(lost)} samples lost: {lost[:3]}"
    )
    found.require(missing <= in_journal * _EVENTS_OF_A_FLIP_MAX, f"{missing} events lost")
