"""The simulated mine beside the real adapter: what the ledger says is what comes out."""

from __future__ import annotations

import asyncio
import itertools
import math
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

import simulators
from adapters.mine_files import KIND as ADAPTER
from adapters.mine_files.codec import decode_file, parse_name
from adapters.mine_files.config import MineFilesConfig
from gateway.contract.adapter import AdapterContext
from gateway.contract.simulator import SimulatorContext
from gateway.model.point import PointTable
from simulators.mine_files import KIND
from simulators.mine_files.config import FaultName, MineFilesSimulatorConfig
from simulators.mine_files.faults import damage
from simulators.mine_files.mine import NOWHERE, SOMEWHERE, Mine

POLL_S = 0.001
T0 = 1_768_435_200 * 10**9  # 2026-01-15T00:00:00Z
SECOND = 10**9
SCENARIOS = sorted((Path(simulators.__file__).parent / "scenarios").glob("mine-*.toml"))
QUICK = {"people_count": 12, "stations_per_area": 1, "ack_poll_s": 5.0}


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.ns = T0

    async def sleep(self, seconds: float) -> None:
        self.ns += round(seconds * SECOND)
        await asyncio.sleep(POLL_S)


class Ledger:
    def __init__(self) -> None:
        self.sent_samples: list = []
        self.acknowledged_samples: list = []

    def sent(self, samples) -> None:
        self.sent_samples += samples

    def acknowledged(self, samples) -> None:
        self.acknowledged_samples += samples


class House:
    """Durable at once; remembers everything."""

    def __init__(self) -> None:
        self.table = PointTable()
        self.samples: list = []
        self.counts: Counter = Counter()

    async def emit(self, batch) -> None:
        for row in range(len(batch)):
            point = self.table[int(batch.point_index[row])]
            value = float(batch.value[row])
            if point.kind == "area" and value >= 0:
                assert self.table.devices[int(value)].kind == "area"
                value = SOMEWHERE
            self.samples.append((point.id, int(batch.source_time_ns[row]), value))

    async def points(self, points):
        return [self.table.put(point) for point in points]

    async def devices(self, devices):
        return [self.table.put_device(device) for device in devices]

    def count(self, name, n=1, *, reason=""):
        self.counts[f"{name}.{reason}" if reason else name] += n

    def of(self, point):
        return [(time, value) for id_, time, value in self.samples if id_ == point]


class Both:
    """A simulator and an adapter on one folder and one clock."""

    def __init__(self, tmp_path: Path, seed=1, **config) -> None:
        self.folder, self.clock, self.ledger = tmp_path / "in", Clock(), Ledger()
        self.folder.mkdir()
        state = tmp_path / "state"
        state.mkdir()
        self.house = House()
        context = SimulatorContext(
            name="mine",
            seed=seed,
            ledger=self.ledger,
            now_ns=lambda: self.clock.ns,
            sleep=self.sleep,
        )
        config = MineFilesSimulatorConfig(folder=self.folder, **config)
        self.simulator = KIND.build(config, context)
        self.adapter = ADAPTER.build(
            MineFilesConfig(folder=self.folder, poll_interval_s=POLL_S),
            AdapterContext(
                name="mine",
                now_ns=lambda: self.clock.ns,
                counters=self.house,
                status=lambda *_: None,
                state_dir=state,
                known_points=lambda: list(self.house.table),
            ),
        )
        self.lockstep = False

    async def sleep(self, seconds: float) -> None:
        """In lockstep the mine waits until the gateway has looked at what is there."""
        await self.clock.sleep(seconds)
        if self.lockstep:
            async with asyncio.timeout(10):
                while any(path.name[0] != "." for path in self.folder.glob("*/*.txt")):
                    await asyncio.sleep(POLL_S)

    async def run(self, *, lockstep=False) -> None:
        self.lockstep = lockstep
        task = asyncio.create_task(self.adapter.run(self.house.emit, self.house))
        try:
            async with asyncio.timeout(20):
                await self.simulator.run()
                await self.simulator.drain()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def comparable(samples):
    return sorted((point, time, str(value)) for point, time, value in samples)


def check_nothing_lost(both: Both) -> None:
    assert both.ledger.sent_samples
    assert comparable(both.house.samples) == comparable(both.ledger.sent_samples)
    assert comparable(both.ledger.acknowledged_samples) == comparable(both.ledger.sent_samples)
    assert both.house.counts["inferred.left"] == 0
    keys = [(point, time) for point, time, _ in both.ledger.sent_samples]
    assert len(set(keys)) == len(keys), "a time repeats for a point"


async def test_what_the_ledger_says_is_what_the_gateway_emits(tmp_path) -> None:
    both = Both(tmp_path, duration_s=200, **QUICK)
    await both.run()
    check_nothing_lost(both)
    assert both.house.counts["accepted.CDSS"] == 10
    assert both.house.counts["accepted.RYSS"] == 7
    assert both.house.counts["points_provisional"] == 0
    assert not [
        d
        for d in both.house.table.devices
        if "provisional" in d.attributes and d.kind != "substation"
    ]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
async def test_every_scenario_runs_without_loss(path: Path, tmp_path) -> None:
    scenario = tomllib.loads(path.read_text(encoding="utf-8"))
    assert set(scenario) == {"summary", "config"}
    assert scenario["summary"]
    both = Both(tmp_path, **scenario["config"], duration_s=30, ack_poll_s=5.0)
    await both.run()
    check_nothing_lost(both)


def scenario_of(name: str, tmp_path: Path) -> Both:
    path = next(path for path in SCENARIOS if path.stem == name)
    config = tomllib.loads(path.read_text(encoding="utf-8"))["config"]
    return Both(tmp_path, **config, duration_s=40, ack_poll_s=5.0)


async def test_methane_rises_through_alarm_and_cut_off_and_comes_back(tmp_path) -> None:
    both = scenario_of("mine-methane", tmp_path)
    await both.run()
    code = "99990100012301MN0001001A01"
    values = [value for _, value in both.house.of(code)]
    states = [int(state) for _, state in both.house.of(f"{code}.state")]
    changes = [states[0]] + [b for a, b in itertools.pairwise(states) if a != b]
    assert changes == [0, 1, 3, 0]
    assert max(values) >= 1.5
    assert values[-1] < 0.6
    point = both.house.table.get(code)
    assert (point.quantity, point.location_class) == ("methane", "T1")
    assert point.attributes["cut_high"] == "1.50"


async def test_an_overfilled_area_holds_more_than_its_capacity_and_empties_again(tmp_path) -> None:
    both = scenario_of("mine-overfill", tmp_path)
    counts = []
    snapshot = both.simulator._mine.snapshot

    def counted(t_s, time_ns):
        content = snapshot(t_s, time_ns)
        counts.append(
            (t_s, sum(r["flag"] == "1" and r["area"][-4:] == "0008" for r in content.records))
        )
        return content

    series = next(one for one in both.simulator._series if one.kind == "RYSS")
    series.content = counted
    await both.run()
    check_nothing_lost(both)
    assert all((count > 16) == (5 <= t_s < 25) for t_s, count in counts), counts
    area = both.house.table.device("9999010001230008")
    assert area.attributes["capacity"] == "16"


async def test_a_silent_sensor_is_missing_and_a_broken_one_says_so(tmp_path) -> None:
    both = scenario_of("mine-sensor-silent", tmp_path)
    await both.run()
    assert len(both.house.of("99990100012301MN0001001A01")) == 5
    broken = both.house.of("99990100012301MN0001001A02")
    states = [state for _, state in both.house.of("99990100012301MN0001001A02.state")]
    assert [math.isnan(value) for _, value in broken] == [state == 128 for state in states]
    assert states.count(128) == 20


async def test_in_the_quiet_scenario_no_area_is_over_its_capacity_at_any_hour(tmp_path) -> None:
    config = MineFilesSimulatorConfig(folder=tmp_path)
    mine = Mine(config, seed=7)
    capacity = {f"{config.mine_code}{area.code}": area.capacity for area in config.areas}
    for hour in range(24 * 4):
        content = mine.snapshot(hour * 900.0, T0 + hour * 900 * SECOND)
        held = Counter(r["area"] for r in content.records if r["flag"] == "1")
        assert all(count <= capacity[area] for area, count in held.items()), hour
        assert held, "somebody is down there at any hour"


async def test_who_leaves_is_announced_in_two_snapshots_and_then_gone(tmp_path) -> None:
    events = [{"kind": "overfill", "at_s": 0, "for_s": 60, "area": "0007", "people": 3}]
    config = MineFilesSimulatorConfig(
        folder=tmp_path, people_count=3, absent_share=1.0, events=events
    )
    mine = Mine(config, seed=1)
    flags = []
    for tick in range(6):
        records = mine.snapshot(tick * 30.0, T0 + tick * 30 * SECOND).records
        flags.append("".join(record["flag"] for record in records))
    assert flags == ["111", "111", "222", "222", "", ""]


async def test_a_call_for_help_comes_from_one_person_and_ends(tmp_path) -> None:
    events = [{"kind": "sos", "at_s": 30, "for_s": 60}]
    both = Both(tmp_path, duration_s=150, events=events, **QUICK)
    await both.run()
    check_nothing_lost(both)
    calls = [
        (point, time)
        for point, time, value in both.house.samples
        if point.endswith(".sos") and value == 1
    ]
    assert len(calls) == 2
    assert len({point for point, _ in calls}) == 1


async def test_a_substation_that_is_down_says_so_and_so_do_its_sensors(tmp_path) -> None:
    events = [{"kind": "substation_down", "at_s": 40, "for_s": 40, "substation": 1}]
    both = Both(tmp_path, duration_s=120, state_interval_s=20, events=events, **QUICK)
    await both.run()
    check_nothing_lost(both)
    run = [value for _, value in both.house.of("99990100012300001.run")]
    assert run == [0, 0, 1, 1, 0, 0]
    states = [value for _, value in both.house.of("99990100012301MN0001001A01.state")]
    assert states == [0, 0, 16, 16, 0, 0]


async def test_calibration_shows_its_state_with_the_alarm_it_causes(tmp_path) -> None:
    events = [{"kind": "calibration", "at_s": 20, "for_s": 20, "suffix": "001A01"}]
    both = Both(tmp_path, duration_s=60, events=events, **QUICK)
    await both.run()
    states = [int(value) for _, value in both.house.of("99990100012301MN0001001A01.state")]
    assert states == [0, 4 | 1 | 2, 0]


# ---------------------------------------------------------------------------------------- faults

FAULTS = list(FaultName.__args__)
STORED = {
    "slow": 5, "late": 5, "duplicate": 5, "newlines": 5, "bom": 5, "quotes": 5,
    "wrong_field_count": 5, "full_width": 5,
    "half": 4, "many_bad": 4, "future": 4, "other_mine": 4, "gb2312": 4,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["CDSS", "RYSS"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_costs_what_the_ledger_says_and_nothing_else(fault, kind, tmp_path) -> None:
    faults = [{"fault": fault, "at_s": 40, "file_kind": kind}]
    both = Both(
        tmp_path,
        duration_s=100,
        cdss_interval_s=20,
        ryss_interval_s=20,
        file_faults=faults,
        **QUICK,
    )
    await both.run()
    check_nothing_lost(both)
    assert both.house.counts[f"accepted.{kind}"] == STORED[fault]
    assert both.house.counts["duplicate"] <= (fault == "duplicate")


async def test_a_late_snapshot_is_stored_as_history_in_the_order_it_came(tmp_path) -> None:
    faults = [{"fault": "late", "at_s": 20, "file_kind": "RYSS"}]
    both = Both(tmp_path, duration_s=100, ryss_interval_s=20, file_faults=faults, **QUICK)
    await both.run(lockstep=True)
    check_nothing_lost(both)
    times = [time for time, _ in both.house.of("999901000123.underground")]
    assert [(time - T0) // SECOND for time in times] == [0, 40, 20, 60, 80]
    assert both.house.counts["old_snapshot"] == 1


def test_damage_never_claims_samples_of_a_file_that_cannot_be_taken() -> None:
    head = "999901000123;矿;2026-01-15 08:00:00~"
    for records in (1, 3, 4, 8):
        body = "99990100012301MN0001001A01;环境瓦斯;x;1;%CH4;0;2026-01-15 08:00:00~" * records
        data = f"{head}{body}||".encode()
        for fault in ("wrong_field_count", "full_width"):
            damaged = damage(data, fault, T0)
            message = decode_file(damaged.data, parse_name("999901000123_CDSS_20260115080000.txt"))
            assert damaged.is_taken == (message.bad_share <= 0.20)
            assert message.fault_count == 1


# --------------------------------------------------------------------------------------- promises


def files_of(tmp_path: Path, seed: int) -> dict[str, bytes]:
    """What one mine writes with nobody taking it away."""
    folder = tmp_path / str(seed)
    folder.mkdir(parents=True)
    clock = Clock()
    context = SimulatorContext("mine", seed, Ledger(), lambda: clock.ns, clock.sleep)
    config = MineFilesSimulatorConfig(
        folder=folder, duration_s=120, people_count=30, ack_poll_s=5.0
    )
    asyncio.run(KIND.build(config, context).run())
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.txt")}


def test_the_same_seed_writes_the_same_files_and_another_seed_others(tmp_path) -> None:
    first, second = files_of(tmp_path / "a", 5), files_of(tmp_path / "b", 5)
    assert first == second
    assert files_of(tmp_path / "c", 6) != first
    assert {name.split("_")[1] for name in first} == {
        "CDDY", "RYQY", "RYJZ", "RYXX", "CDSS", "FZSS", "RYSS", "JZSS"
    }  # fmt: skip
    assert {name.split("/")[0] for name in first} == {"aqjk", "rydw"}


async def test_files_that_stay_are_not_acknowledged_and_drain_waits_for_them(tmp_path) -> None:
    both = Both(tmp_path, duration_s=50, **QUICK)
    await both.simulator.run()
    assert both.ledger.sent_samples
    assert both.ledger.acknowledged_samples == []
    drain = asyncio.create_task(both.simulator.drain())
    for _ in range(20):
        await asyncio.sleep(POLL_S)
    assert not drain.done()
    for path in both.folder.rglob("*.txt"):
        path.unlink()
    async with asyncio.timeout(10):
        await drain
    assert both.ledger.acknowledged_samples == both.ledger.sent_samples


async def test_drain_ends_a_run_without_an_end(tmp_path) -> None:
    both = Both(tmp_path, **QUICK)
    run = asyncio.create_task(both.run())
    async with asyncio.timeout(10):
        while len(both.house.samples) < 50:
            await asyncio.sleep(POLL_S)
        await both.simulator.drain()
        await run
    check_nothing_lost(both)


async def test_speed_never_makes_a_time_repeat_or_run_ahead(tmp_path) -> None:
    both = Both(tmp_path, speed=600, duration_s=6000, **QUICK)
    await both.run()
    check_nothing_lost(both)
    assert len(both.house.of("99990100012301MN0001001A01")) == 10
    assert max(time for _, time, _ in both.ledger.sent_samples) <= both.clock.ns


async def test_a_name_that_is_taken_moves_the_time_on_by_a_second(tmp_path) -> None:
    both = Both(tmp_path, duration_s=10, **QUICK)
    (both.folder / "aqjk").mkdir()
    taken = both.folder / "aqjk" / "999901000123_CDSS_20260115080000.txt"
    taken.write_bytes(b"")
    await both.simulator.run()
    assert (both.folder / "aqjk" / "999901000123_CDSS_20260115080001.txt").exists()
    assert taken.read_bytes() == b""


@pytest.mark.parametrize(
    "wrong",
    [
        {"unknown": 1},
        {"mine_code": "140101000123"},
        {"cdss_interval_s": 0.5},
        {"speed": 0},
        {"events": [{"kind": "overfill", "at_s": 0, "for_s": 1, "area": "0999", "people": 1}]},
        {"events": [{"kind": "overfill", "at_s": 0, "for_s": 1, "area": "0007", "people": 500}]},
        {"events": [{"kind": "calibration", "at_s": 0, "for_s": 1, "suffix": "Z"}]},
        {"file_faults": [{"fault": "nonsense", "at_s": 0}]},
    ],
)
def test_a_wrong_option_is_refused_before_the_start(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        MineFilesSimulatorConfig(**({"folder": "in"} | wrong))


def test_out_of_the_mine_is_a_value_no_area_can_have() -> None:
    assert NOWHERE == -1
    assert math.isinf(SOMEWHERE)
