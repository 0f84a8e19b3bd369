"""`hazard-gateway replay`: recorded samples down the live road, as fast as it goes.

    file ─▶ rows by time ─▶ Intake.emit ─▶ Spool ─▶ Judge (RuleSet, AlarmBook) ─▶ Journal ─▶ stdout
                                                     └ clock: the newest sample judged

It is the gateway `run` starts, assembled by the same function, without adapters and sinks and with
another clock: nothing here judges. Everything is written into a temporary data directory that goes
at the end, or into `--data-dir`, which stays and must be empty.

**Time** is the data's: a sample counts as received when it was measured, and timers (delays,
silence) fire up to the last sample, or up to `until`. Rows of one instant are handed over together.

**Points** are those the site configures, those its own gateway has met (its registry is copied,
never opened), those a rule names by id, and with `declare` every other the file names. Rows of
points that rules calculate are left out: they are calculated again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from gateway.config import SiteConfig
from gateway.config.schema import SpoolSection
from gateway.model.alarm import AlarmEvent, Transition
from gateway.model.batch import Batch
from gateway.model.errors import ConfigError, Fault
from gateway.model.point import Point, is_valid_id
from gateway.runtime.checking import load_site
from gateway.runtime.core import NS_PER_S, Core, open_core
from gateway.runtime.instants import rfc3339
from gateway.runtime.plugins import Plugins, load_plugins
from gateway.runtime.recording import Recording
from gateway.runtime.timesort import TimeSort, sort_by_time

BATCH_ROWS = 20_000
COMMIT_ROWS = 1_000_000  # then the spool forgets what is judged
PROGRESS_INTERVAL_S = 0.5
REGISTRY_FILES = ("points", "points.journal", "points.journal.1")


@dataclass(frozen=True)
class ReplayOptions:
    """What the command line says."""

    config: Path
    file: Path | None  # None: standard input
    data_dir: Path | None = None
    until_ns: int | None = None
    declare: bool = False


@dataclass
class ReplayResult:
    """What came of every row."""

    rows: int = 0
    judged: int = 0
    refused: int = 0
    calculated: int = 0  # rows of points that rules calculate: left out
    after_end: int = 0  # behind `until`: left out
    events: int = 0
    raised: int = 0
    last_ns: int | None = None
    notes: list[str] = field(default_factory=list)


Tell = Callable[[Sequence[AlarmEvent]], None]


def run_replay(options: ReplayOptions) -> int:
    """Events on stdout, all else on stderr. Returns 1 when the file had rows and none was usable.

    Raises ConfigError for a site with faults, a file that is no recording, a data directory in use.
    """
    plugins = load_plugins()
    config = load_site(options.config, plugins)
    output = sys.stdout.buffer

    def tell(events: Sequence[AlarmEvent]) -> None:
        write_events(output, events)

    result = asyncio.run(replay(config, plugins, options, tell=tell))
    output.flush()
    for line in summary(result):
        sys.stderr.write(line + "\n")
    return 1 if result.rows and not result.judged and not result.calculated else 0


def write_events(output: IO[bytes], events: Sequence[AlarmEvent]) -> None:
    for event in events:
        output.write(orjson.dumps(event_row(event)) + b"\n")


def number(value: float | None) -> float | None:
    """The value if JSON can say it."""
    return value if value is not None and math.isfinite(value) else None


def event_row(event: AlarmEvent) -> dict[str, Any]:
    """One transition as `replay` prints it; the first ten keys are promised to scripts."""
    alarm = event.alarm
    return {
        "alarm_key": alarm.alarm_key,
        "occ_no": alarm.occ_no,
        "seq": alarm.seq,
        "event": event.transition.value,
        "level": event.level or alarm.level,
        "priority": int(alarm.priority),
        "t": rfc3339(event.time_ns),
        "value": number(event.value),
        "limit": number(event.limit),
        "rule": alarm.rule_id,
        "t_ns": event.time_ns,
        "began_ns": alarm.condition_time_ns,
        "kind": alarm.rule_kind,
        "rule_version": alarm.rule_version,
        "target": alarm.target,
        "point": alarm.point_id,
        "unit": alarm.unit,
        "scheme": alarm.scheme,
        "scheme_level": alarm.scheme_level,
        "state": alarm.state.value,
        "annunciate": event.annunciate,
        "late": event.late,
        "planned": alarm.planned,
        "comment": event.comment,
    }


def summary(result: ReplayResult) -> Iterator[str]:
    """The last lines on stderr."""
    yield from result.notes
    if result.refused:
        share = 100 * result.refused / max(result.rows, 1)
        yield f"REFUSED {result.refused} of {result.rows} rows ({share:.2g} %), see above"
    end = "" if result.last_ns is None else f", up to {rfc3339(result.last_ns)}"
    yield (
        f"replay: {result.rows} rows read, {result.judged} judged, {result.refused} refused, "
        f"{result.events} alarm events, {result.raised} alarms raised{end}"
    )


async def replay(
    config: SiteConfig, plugins: Plugins, options: ReplayOptions, *, tell: Tell
) -> ReplayResult:
    """Judge the whole file; `tell` gets the events as they are journalled."""
    result = ReplayResult()
    with _data_dir(options.data_dir, config) as folder:
        clock = _Clock()
        seeded = config.model_copy(
            update={
                "data_dir": folder,
                "adapters": (),
                "sinks": (),
                "spool": SpoolSection(),  # a site's byte budget is for its own disk
            }
        )
        async with open_core(seeded, plugins, clock=lambda: clock.now_ns) as core:
            player = Player(core, clock, result, options.until_ns, tell)
            await player.prepare(named_points(core.rules.rules))
            recording = Recording(options.file, player.known(declare=options.declare))
            runs = _made(folder / "replay-runs")
            whole = await asyncio.to_thread(sort_by_time, recording.batches(), runs)
            result.rows = recording.row_count
            result.refused = recording.refusals.total
            result.notes += [*recording.notes, *recording.refusals.lines(recording.name)]
            await player.play(whole)
            shutil.rmtree(runs)
    return result


@dataclass
class _Clock:
    """The time of the data."""

    now_ns: int = 0


class Player:
    """Hands rows over and lets the judge look, batch by batch."""

    def __init__(
        self, core: Core, clock: _Clock, result: ReplayResult, until_ns: int | None, tell: Tell
    ) -> None:
        self._core = core
        self._clock = clock
        self._result = result
        self._until_ns = until_ns
        self._lateness_ns = int(core.config.judging.lateness_s * NS_PER_S)
        self._progress = Progress("replay")
        self._tell = tell
        self._untold: list[AlarmEvent] = []  # journalled
        core.event_listeners.append(self._untold.extend)
        self._calculated: set[int] = set()

    async def prepare(self, named: Sequence[str]) -> None:
        """Points that rules name by id, and those they calculate, become known."""
        core = self._core
        await core.registry.points([Point(id=each) for each in named if each not in core.points])
        await core.judge.refresh()
        self._calculated = {core.points.index(each) for each in core.judge.rules.derived_ids}

    def known(self, *, declare: bool) -> Callable[[str], int | None]:
        """Look a point up; with `declare`, make it known."""
        registry = self._core.registry

        def look_up(point_id: str) -> int | None:
            if point_id in registry.table:
                return registry.table.index(point_id)
            if declare and is_valid_id(point_id):
                return registry.declare_now([Point(id=point_id)])[0]
            return None

        return look_up

    async def play(self, whole: TimeSort) -> None:
        """Every batch, then the clock up to the end."""
        unsaved = 0
        for batch in whole.batches(BATCH_ROWS):
            rows = self._usable(batch)
            if not len(rows):
                continue
            end_ns = int(rows.source_time_ns[-1])
            if self._result.last_ns is None:  # what was never heard counts from here on
                await self._judge(int(rows.source_time_ns[0]), ahead_ns=0)
            await self._core.intake.emit(rows)
            await self._judge(end_ns, ahead_ns=self._lateness_ns)
            self._result.judged += len(rows)
            self._result.last_ns = end_ns
            unsaved += len(rows)
            if unsaved >= COMMIT_ROWS:
                await self._core.judge.checkpoint()
                unsaved = 0
            self._progress.show(self._result.judged / max(whole.row_count, 1), self._result.events)
        if self._until_ns is not None and self._result.last_ns is not None:
            await self._judge(self._until_ns, ahead_ns=self._lateness_ns)
        self._progress.end()

    async def _judge(self, known_ns: int, *, ahead_ns: int) -> None:
        """Rows are in order, so everything up to `known_ns` is known: nothing waits for the
        lateness a live gateway allows."""
        self._clock.now_ns = max(self._clock.now_ns, known_ns)
        await self._core.judge.judge_all(known_ns + ahead_ns, at_event_time=True)
        events = self._untold.copy()
        self._untold.clear()
        self._result.events += len(events)
        self._result.raised += sum(each.transition is Transition.ACTIVATED for each in events)
        self._tell(events)

    def _usable(self, batch: Batch) -> Batch:
        if self._until_ns is not None:
            inside = batch.source_time_ns <= self._until_ns
            self._result.after_end += int(len(batch) - inside.sum())
            batch = batch.take(inside)
        if self._calculated:
            own = [point in self._calculated for point in batch.point_index.tolist()]
            if any(own):
                self._result.calculated += sum(own)
                batch = batch.take([at for at, is_own in enumerate(own) if not is_own])  # type: ignore[arg-type]
        return batch


def named_points(rules: Sequence[Any]) -> list[str]:
    """Ids that rules select by: the site knows these, whether or not anything declared them."""
    return sorted(
        {
            point_id
            for rule in rules
            for selector in rule.inputs.values()
            for point_id in selector.ids
            if is_valid_id(point_id) and "*" not in point_id
        }
    )


@contextlib.contextmanager
def _data_dir(wanted: Path | None, config: SiteConfig) -> Iterator[Path]:
    """Where this replay keeps its spool and journal, with a copy of the site's point registry."""
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="hazard-gateway-replay-") as name:
            folder = Path(name)
            copy_registry(config.data_dir, folder)
            yield folder
        return
    if wanted.exists() and any(wanted.iterdir()):
        raise ConfigError([Fault("--data-dir", 0, str(wanted), "an empty or new folder")])
    wanted.mkdir(parents=True, exist_ok=True)
    copy_registry(config.data_dir, wanted)
    yield wanted


def copy_registry(data_dir: Path, folder: Path) -> None:
    """The point table of a gateway that may be running: every line of its journal file is whole
    and synced, so a copy of the files is at most a moment old."""
    for name in REGISTRY_FILES:
        source = data_dir / name
        if source.is_file():
            shutil.copyfile(source, folder / name)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Progress:
    """One line on stderr, over and over, where a person is looking."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._is_shown = sys.stderr.isatty()
        self._started_s = self._last_s = time.monotonic()
        self._width = 0

    def show(self, share: float, events: int, detail: str = "") -> None:
        now_s = time.monotonic()
        if not self._is_shown or now_s - self._last_s < PROGRESS_INTERVAL_S:
            return
        self._last_s = now_s
        spent_s = now_s - self._started_s
        left = f", {spent_s / share - spent_s:.0f} s left" if share > 0 else ""
        text = f"{self._word}: {100 * share:.0f} %, {events} events{left} {detail}"
        self._width = max(self._width, len(text))
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()

    def end(self) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            self._width = 0
