"""Puts the mine's files into a folder on their cadence, and watches them being taken away.

    aqjk/  CDDY once, then CDSS and FZSS        rydw/  RYXX, RYQY, RYJZ once, then RYSS and JZSS

A file is written under a hidden temporary name and renamed, so that nobody sees half of it unless a
fault asks for just that. The protocol's acknowledgement is the disappearance of the file.

Times in files are wall-clock seconds and strictly increase within a series; the scenario second of
the n-th file of a series depends on n alone, so the same seed sends the same values.

Surprising: faults that cost a file its samples leave it out of the ledger, so that the ledger says
what must come out of a store.

Owns: folder, cadence, ledger. Not here: contents (mine.py), damage (faults.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapters.mine_files.codec import SECOND_NS, encode_file, encode_name, format_time
from gateway.contract.simulator import SentSample, SimulatorContext
from simulators.mine_files.config import FileFault, MineFilesSimulatorConfig
from simulators.mine_files.faults import damage
from simulators.mine_files.mine import Content, Fields, Mine

SAFETY_FOLDER = "aqjk"
PERSONNEL_FOLDER = "rydw"
STAMP_STEP_S = 1.0  # the format's resolution
SLOW_UPLOAD_S = 1.0
LATE_BY_FILES = 2  # with one, the gateway would find both at one look and put them in order


@dataclass(slots=True)
class _Series:
    """Files of one kind, one after the other."""

    kind: str
    folder: str
    cadence_s: float  # scenario seconds
    content: Callable[[float, int], Content]
    sent_count: int = 0
    held: _File | None = None  # a late file
    held_for: int = 0  # files that still go before it

    @property
    def next_s(self) -> float:
        return self.sent_count * self.cadence_s


@dataclass(slots=True)
class _File:
    path: Path
    data: bytes
    samples: Sequence[SentSample]
    is_taken: bool = True  # the gateway will store its samples
    repeat: bool = False  # put it there once more when it has gone


@dataclass(slots=True)
class _Upload:
    """A file of which half is there."""

    due_ns: int
    file: _File


@dataclass
class MineFilesSimulator:
    """One simulated mine; see `gateway.contract.simulator.Simulator`."""

    config: MineFilesSimulatorConfig
    context: SimulatorContext
    _mine: Mine = field(init=False)
    _series: list[_Series] = field(init=False)
    _faults: list[FileFault] = field(init=False)
    _outstanding: list[_File] = field(default_factory=list, init=False)
    _uploads: list[_Upload] = field(default_factory=list, init=False)
    _last_stamp_ns: dict[str, int] = field(default_factory=dict, init=False)
    _is_stopping: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        config = self.config
        self._mine = mine = Mine(config, self.context.seed)
        # Nothing comes more often than the times in the files can tell apart.
        finest_s = config.speed * STAMP_STEP_S
        self._series = [
            _Series(kind, folder, max(interval_s, finest_s), content)
            for kind, folder, interval_s, content in (
                ("FZSS", SAFETY_FOLDER, config.state_interval_s, mine.substations),
                ("CDSS", SAFETY_FOLDER, config.cdss_interval_s, mine.readings),
                ("JZSS", PERSONNEL_FOLDER, config.state_interval_s, mine.station_states),
                ("RYSS", PERSONNEL_FOLDER, config.ryss_interval_s, mine.snapshot),
            )
        ]
        self._faults = sorted(config.file_faults, key=lambda fault: fault.at_s)

    async def run(self) -> None:
        """Send until the scenario ends, until `drain` or until cancelled."""
        self._make_folders()
        started_ns = self.context.now_ns()
        self._send_lists()
        while not self._is_stopping:
            series = min(self._series, key=lambda series: series.next_s)
            t_s = series.next_s
            if self.config.duration_s is not None and t_s >= self.config.duration_s:
                break
            await self._wait_until(started_ns + round(t_s / self.config.speed * SECOND_NS))
            if not self._is_stopping:
                self._send(series, t_s)
        self._flush()

    async def drain(self) -> None:
        """Send no new samples; return when every file is gone."""
        self._is_stopping = True
        self._flush()
        self._watch()
        while self._outstanding or self._uploads:
            await self.context.sleep(self.config.ack_poll_s)
            self._flush()
            self._watch()

    # ---------------------------------------------------------------------------------- sending

    def _make_folders(self) -> None:
        for name in (SAFETY_FOLDER, PERSONNEL_FOLDER):
            (self.config.folder / name).mkdir(parents=True, exist_ok=True)

    def _send_lists(self) -> None:
        """What the mine has: four files without samples."""
        config, mine = self.config, self._mine
        maker = {"model": "KJ000X", "maker": "示例厂家", "expiry": "2028-12-31"}
        safety = {**maker, "system": "煤矿安全监控系统"}
        personnel = {**maker, "system": "人员位置监测系统", "capacity": str(config.capacity)}
        points = mine.definitions(self.context.now_ns())
        self._put_list("CDDY", SAFETY_FOLDER, points, safety)
        self._put_list("RYQY", PERSONNEL_FOLDER, mine.areas(), {})
        self._put_list("RYJZ", PERSONNEL_FOLDER, mine.stations(), {})
        self._put_list("RYXX", PERSONNEL_FOLDER, mine.people(), personnel)

    def _put_list(self, kind: str, folder: str, records: list[Fields], extra: Fields) -> None:
        stamp_ns = self._stamp(kind, folder)
        data = encode_file(kind, {**self._header(stamp_ns), **extra}, records)
        self._put(_File(self._path(kind, folder, stamp_ns), data, ()))

    def _send(self, series: _Series, t_s: float) -> None:
        series.sent_count += 1
        stamp_ns = self._stamp(series.kind, series.folder)
        content = series.content(t_s, stamp_ns)
        data = encode_file(series.kind, self._header(stamp_ns), content.records)
        file = _File(self._path(series.kind, series.folder, stamp_ns), data, content.samples)
        fault = self._next_fault(series.kind, t_s)
        if fault is not None:
            self.context.log(f"{fault.fault}: {file.path.name}")
            file.data, file.is_taken = damage(data, fault.fault, stamp_ns)
            if fault.fault == "late":
                self._release(series)
                series.held, series.held_for = file, LATE_BY_FILES
                return
            if fault.fault == "slow":
                self._start_upload(file)
                return
            file.repeat = fault.fault == "duplicate"
        self._put(file)
        series.held_for -= 1
        if series.held_for <= 0:
            self._release(series)

    def _next_fault(self, kind: str, t_s: float) -> FileFault | None:
        for fault in self._faults:
            if fault.file_kind == kind and fault.at_s <= t_s:
                self._faults.remove(fault)
                return fault
        return None

    def _release(self, series: _Series) -> None:
        """The late file, now that newer ones went before it."""
        if series.held is not None:
            held, series.held = series.held, None
            self._put(held)

    def _start_upload(self, file: _File) -> None:
        file.path.write_bytes(file.data[: len(file.data) // 2])
        due_ns = self.context.now_ns() + round(SLOW_UPLOAD_S * SECOND_NS)
        self._uploads.append(_Upload(due_ns, file))

    def _put(self, file: _File) -> None:
        _write(file.path, file.data)
        if not file.is_taken:
            return
        if file.samples:
            self.context.ledger.sent(file.samples)
        self._outstanding.append(file)

    def _header(self, stamp_ns: int) -> Fields:
        return {
            "mine_code": self.config.mine_code,
            "mine_name": self.config.mine_name,
            "time": format_time(stamp_ns),
        }

    def _stamp(self, kind: str, folder: str) -> int:
        """The wall-clock second, later than any before of this kind; a taken name moves it on."""
        stamp_ns = self.context.now_ns() // SECOND_NS * SECOND_NS
        stamp_ns = max(stamp_ns, self._last_stamp_ns.get(kind, 0) + SECOND_NS)
        while self._path(kind, folder, stamp_ns).exists():
            stamp_ns += SECOND_NS
        self._last_stamp_ns[kind] = stamp_ns
        return stamp_ns

    def _path(self, kind: str, folder: str, stamp_ns: int) -> Path:
        return self.config.folder / folder / encode_name(self.config.mine_code, kind, stamp_ns)

    # --------------------------------------------------------------------------------- watching

    async def _wait_until(self, due_ns: int) -> None:
        """Sleep in slices: what has been taken is told, and a drain ends the wait."""
        while not self._is_stopping:
            self._finish_uploads()
            self._watch()
            left_s = (due_ns - self.context.now_ns()) / SECOND_NS
            if left_s <= 0:
                return
            await self.context.sleep(min(left_s, self.config.ack_poll_s))

    def _watch(self) -> None:
        """Tell the ledger which files have gone; put back those that come twice."""
        gone = [file for file in self._outstanding if not file.path.exists()]
        if not gone:
            return
        self._outstanding = [file for file in self._outstanding if file not in gone]
        for file in gone:
            if file.samples:
                self.context.ledger.acknowledged(file.samples)
            if file.repeat:
                _write(file.path, file.data)
                self._outstanding.append(_File(file.path, file.data, ()))

    def _finish_uploads(self) -> None:
        now_ns = self.context.now_ns()
        for upload in [upload for upload in self._uploads if upload.due_ns <= now_ns]:
            self._uploads.remove(upload)
            self._put(upload.file)

    def _flush(self) -> None:
        """Nothing newer will come: late files go now, uploads when they are due."""
        for series in self._series:
            self._release(series)
        self._finish_uploads()


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
