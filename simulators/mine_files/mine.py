"""The mine behind the files: sensors with a memory for their alarms, people on their shifts. Pure.

Everything is a function of the seed and of how far the scenario has got: `readings(t_s)`,
`snapshot(t_s)` and so on are called once a file, in order, and return the file's records together
with the samples a gateway must end up with.

    state word of a sensor:  1 alarm, 2 cut off, 4 calibrating, 8 over range,
                             16 substation down, 128 broken; added up

Surprising: alarm and cut-off have hysteresis, as in the real system: the bit set at the upper limit
stays until the value has come back to the release limit.

Owns: what happens underground. Not here: files, times of day (simulator.py).
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from adapters.mine_files.codec import format_time
from gateway.contract.simulator import SentSample
from simulators.mine_files.config import (
    Calibration,
    Distress,
    MineFilesSimulatorConfig,
    Overfill,
    SensorConfig,
    SubstationDown,
)
from simulators.plant import Signal

SOMEWHERE = math.inf
"""Ledger value of "in some area": the index of an area is the gateway's, not the mine's."""
NOWHERE = -1.0
ANNOUNCED_SNAPSHOTS = 2  # files in which somebody who left is still listed, as out
_ALARM, _CUT, _CALIBRATING, _OVER_RANGE, _SUBSTATION_DOWN, _BROKEN = 1, 2, 4, 8, 16, 128
_NO_VALUE = "-9999"
_DAY_S = 86_400.0
_ENTER_S = (600.0, 3000.0)  # jitter after a shift begins and after it ends

_NUMBERS = (
    *("range_high", "range_low", "alarm_high", "alarm_high_release"),
    *("alarm_low", "alarm_low_release", "cut_high", "restore_high"),
)

Fields = dict[str, str]
_E = TypeVar("_E", Overfill, Distress, SubstationDown, Calibration)


@dataclass(slots=True)
class Content:
    """The records of one file and the samples they stand for."""

    records: list[Fields] = field(default_factory=list)
    samples: list[SentSample] = field(default_factory=list)


@dataclass(slots=True)
class _Sensor:
    config: SensorConfig
    code: str
    signal: Signal
    is_alarming: bool = False
    is_cut: bool = False


@dataclass(slots=True)
class _Person:
    number: int
    card: str
    name: str
    shift: int
    is_absent: bool
    enter_s: float
    leave_s: float
    home: str
    phase_s: float
    entered_ns: int = 0
    left_ns: int = 0
    announce: int = 0  # snapshots in which the departure is still to be told
    area: str = ""
    area_since_ns: int = 0


class Mine:
    """One mine."""

    def __init__(self, config: MineFilesSimulatorConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._sensors = [
            _Sensor(
                sensor, self.point_code(sensor), Signal(sensor.signal, f"{seed}/{sensor.suffix}")
            )
            for sensor in config.sensors
        ]
        self._homes = _homes(config)
        rng = random.Random(f"{seed}/people")
        self._people = [self._person(number, rng) for number in range(config.people_count)]
        self._stations = {
            f"{self.area_code(area.code)}{number:06d}": area.code
            for area in config.areas
            for number in range(1, config.stations_per_area + 1)
        }
        self._down = {
            code
            for code in self._stations
            if random.Random(f"{seed}/{code}").random() < config.stations_down_share
        }
        self._caller: str = ""

    # -------------------------------------------------------------------------------------- codes

    def point_code(self, sensor: SensorConfig) -> str:
        return f"{self._config.mine_code}01{sensor.value_type}{sensor.sensor_type}{sensor.suffix}"

    def substation_code(self, number: int) -> str:
        return f"{self._config.mine_code}{number:05d}"

    def area_code(self, code: str) -> str:
        return f"{self._config.mine_code}{code}"

    # ------------------------------------------------------------------------------------- sensors

    def definitions(self, time_ns: int) -> list[Fields]:
        """CDDY."""
        return [
            {
                "code": sensor.code,
                "system": "01",
                "substation": self.substation_code(sensor.config.substation),
                "sensor_type": sensor.config.sensor_type,
                "value_type": sensor.config.value_type,
                "unit": sensor.config.unit,
                **{name: _text(getattr(sensor.config, name)) for name in _NUMBERS},
                "on_text": sensor.config.on_text,
                "off_text": sensor.config.off_text,
                "location": sensor.config.location,
                "time": format_time(time_ns),
            }
            for sensor in self._sensors
        ]

    def readings(self, t_s: float, time_ns: int) -> Content:
        """CDSS."""
        content = Content()
        for sensor in self._sensors:
            if sensor.signal.is_silent(t_s):
                continue
            text, state = self._reading(sensor, t_s)
            content.records.append(
                {
                    "code": sensor.code,
                    "type_name": sensor.config.type_name,
                    "location": sensor.config.location,
                    "value": text,
                    "unit": sensor.config.unit,
                    "state": str(state),
                    "time": format_time(time_ns),
                }
            )
            value = math.nan if text == _NO_VALUE else float(text)
            content.samples += (
                SentSample(sensor.code, time_ns, value),
                SentSample(f"{sensor.code}.state", time_ns, float(state)),
            )
        return content

    def _reading(self, sensor: _Sensor, t_s: float) -> tuple[str, int]:
        config = sensor.config
        down = any(
            event.substation == config.substation for event in self._now(SubstationDown, t_s)
        )
        if down:
            return _NO_VALUE, _SUBSTATION_DOWN
        if sensor.signal.is_broken(t_s):
            return _NO_VALUE, _BROKEN
        value, state = sensor.signal.at(t_s), 0
        for event in self._now(Calibration, t_s):
            if event.suffix == config.suffix:
                value, state = event.value, _CALIBRATING
        decimals = 0 if config.value_type == "KG" else config.signal.decimals
        text = f"{value:.{decimals}f}"
        return text, state | self._verdict(sensor, float(text))

    @staticmethod
    def _verdict(sensor: _Sensor, value: float) -> int:
        """What the mine's own system makes of a value."""
        config = sensor.config
        sensor.is_alarming = _holds(
            value, config.alarm_high, config.alarm_high_release, was=sensor.is_alarming
        ) or _holds(
            -value,
            _negative(config.alarm_low),
            _negative(config.alarm_low_release),
            was=sensor.is_alarming,
        )
        sensor.is_cut = _holds(value, config.cut_high, config.restore_high, was=sensor.is_cut)
        state = (_ALARM if sensor.is_alarming else 0) | (_CUT if sensor.is_cut else 0)
        if config.range_high is not None and value > config.range_high:
            state |= _OVER_RANGE
        return state

    def substations(self, t_s: float, time_ns: int) -> Content:
        """FZSS."""
        content = Content()
        down = {event.substation for event in self._now(SubstationDown, t_s)}
        for number in sorted({sensor.config.substation for sensor in self._sensors}):
            _add_run_state(content, self.substation_code(number), number in down, time_ns)
        return content

    # -------------------------------------------------------------------------------------- people

    def areas(self) -> list[Fields]:
        """RYQY."""
        return [
            {
                "area_type": area.area_type,
                "code": self.area_code(area.code),
                "capacity": str(area.capacity),
                "name": area.name,
            }
            for area in self._config.areas
        ]

    def stations(self) -> list[Fields]:
        """RYJZ."""
        names = {area.code: area.name for area in self._config.areas}
        return [
            {
                "code": code,
                "name": f"{names[area]}{int(code[-6:])}号基站",
                "x": "0",
                "y": "0",
                "z": "0",
                "location": names[area],
            }
            for code, area in self._stations.items()
        ]

    def station_states(self, _t_s: float, time_ns: int) -> Content:
        """JZSS."""
        content = Content()
        for code in self._stations:
            _add_run_state(content, code, code in self._down, time_ns)
        return content

    def people(self) -> list[Fields]:
        """RYXX."""
        jobs = ("采煤机司机", "掘进工", "电钳工", "瓦斯检查员", "未设置")
        return [
            {
                "card": person.card,
                "name": person.name,
                "job": jobs[person.number % len(jobs)],
                "post": "班长" if person.number % 20 == 0 else "未设置",
                "team": f"综采{person.shift + 1}队",
                "birth": "1990-01-01",
                "leader": "1" if person.number == 0 else "0",
                "special": "1" if person.number % 10 == 3 else "0",
            }
            for person in self._people
        ]

    def snapshot(self, t_s: float, time_ns: int) -> Content:
        """RYSS: everyone underground, and those who left in the last two snapshots."""
        content = Content()
        forced = self._overfilled(t_s)
        present = 0
        for person in self._people:
            area = forced.get(person.card) or self._scheduled_area(person, t_s)
            self._move(person, area, time_ns)
            if area:
                present += 1
            elif not person.announce:
                continue
            else:
                person.announce -= 1
            calls = bool(area) and self._calls_for_help(person, t_s)
            content.records.append(self._person_record(person, calls=calls, t_s=t_s))
            content.samples += (
                SentSample(f"{person.card}.area", time_ns, SOMEWHERE if area else NOWHERE),
                SentSample(f"{person.card}.sos", time_ns, float(calls)),
            )
        point = f"{self._config.mine_code}.underground"
        content.samples.append(SentSample(point, time_ns, float(present)))
        return content

    def _person(self, number: int, rng: random.Random) -> _Person:
        config = self._config
        return _Person(
            number=number,
            card=f"{config.mine_code}{10_001 + number:05d}",
            name=f"测试{number + 1:04d}",
            shift=number % config.shift_count,
            is_absent=rng.random() < config.absent_share,
            enter_s=rng.uniform(*_ENTER_S),
            leave_s=rng.uniform(*_ENTER_S),
            home=self._homes.get(number // config.shift_count, config.areas[0].code),
            phase_s=rng.uniform(0, config.dwell_s),
        )

    def _scheduled_area(self, person: _Person, t_s: float) -> str:
        """The area code (4 digits) someone is in by the roster, "" out of the mine."""
        config = self._config
        shift_s = _DAY_S / config.shift_count
        since_s = (config.start_hour * 3600 + t_s - person.shift * shift_s) % _DAY_S
        if person.is_absent or not person.enter_s <= since_s < shift_s + person.leave_s:
            return ""
        segment = int((t_s + person.phase_s) // config.dwell_s)
        on_the_road = _hash(f"{self._seed}/{person.number}/{segment}") % 4 == 0
        return config.areas[0].code if on_the_road else person.home

    def _overfilled(self, t_s: float) -> dict[str, str]:
        """Card → area of everyone an overfill event keeps somewhere."""
        forced: dict[str, str] = {}
        for event in self._now(Overfill, t_s):
            free = (person for person in self._people if person.card not in forced)
            for person, _ in zip(free, range(event.people), strict=False):
                forced[person.card] = event.area
        return forced

    @staticmethod
    def _move(person: _Person, area: str, time_ns: int) -> None:
        if area and not person.area:
            person.entered_ns, person.announce = time_ns, 0
        elif person.area and not area:
            person.left_ns, person.announce = time_ns, ANNOUNCED_SNAPSHOTS
        if area != person.area:
            person.area_since_ns = time_ns
        person.area = area

    def _calls_for_help(self, person: _Person, t_s: float) -> bool:
        if next(self._now(Distress, t_s), None) is None:
            self._caller = ""
            return False
        self._caller = self._caller or person.card
        return person.card == self._caller

    def _person_record(self, person: _Person, *, calls: bool, t_s: float) -> Fields:
        config = self._config
        area = self.area_code(person.area or config.areas[0].code)
        number = 1 + _hash(f"{person.card}/{int(t_s // config.dwell_s)}") % config.stations_per_area
        station, since = f"{area}{number:06d}", format_time(person.area_since_ns)
        is_in = bool(person.area)
        return {
            "card": person.card,
            "name": person.name,
            "flag": "1" if is_in else "2",
            "time_in": format_time(person.entered_ns),
            "time_out": "" if is_in else format_time(person.left_ns),
            "area": area,
            "area_time": since,
            "station": station,
            "station_time": since,
            "shift": "三八制",
            "distance": f"{_hash(f'{person.card}/{t_s}') % 12001 / 100 - 60:.2f}",
            "work_state": "求救" if calls else "正常",
            "leader": "1" if person.number == 0 else "0",
            "special": "1" if person.number % 10 == 3 else "0",
            "track": f"{station}&{since}",
        }

    def _now(self, kind: type[_E], t_s: float) -> Iterator[_E]:
        for event in self._config.events:
            if isinstance(event, kind) and event.at_s <= t_s < event.at_s + event.for_s:
                yield event


def _homes(config: MineFilesSimulatorConfig) -> dict[int, str]:
    """Number within a shift → the area of work, by turns until each holds half of what it may: two
    shifts that meet still fit. Everybody else works on the road."""
    places = {area.code: area.capacity // 2 for area in config.areas[1:]}
    homes: dict[int, str] = {}
    while any(places.values()):
        for code, left in places.items():
            if left:
                homes[len(homes)] = code
                places[code] = left - 1
    return homes


def _holds(value: float, limit: float | None, release: float | None, *, was: bool) -> bool:
    """An upper limit with hysteresis: from the limit up, until it is below the release."""
    if limit is None:
        return False
    return value >= limit or (was and value >= (limit if release is None else release))


def _negative(number: float | None) -> float | None:
    return None if number is None else -number


def _text(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def _hash(text: str) -> int:
    """A number that is the same in every process, unlike hash()."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())


def _add_run_state(content: Content, code: str, is_down: bool, time_ns: int) -> None:
    """Down: communication interrupted, power unknown. Otherwise normal, on mains."""
    run, power = ("1", "9") if is_down else ("0", "1")
    content.records.append({"code": code, "run": run, "power": power, "time": format_time(time_ns)})
    content.samples += (
        SentSample(f"{code}.run", time_ns, float(run)),
        SentSample(f"{code}.power", time_ns, float(power)),
    )
