"""Every data folder an earlier program left is taken over: no alarm lost, none called again, every
timer goes on, every row is delivered."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from gateway.alarms.record import encode_event
from gateway.alarms.verify import verify_journal
from gateway.model.alarm import AlarmState
from gateway.runtime.core import JUDGE_CURSOR, Ports, open_core
from gateway.runtime.plugins import load_plugins
from gateway.testing import golden
from gateway.testing.golden import DELAY_NS, DELAYED, DELAYED_FROM_NS, START_NS, Clock, S, Story

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent / "golden"
FOLDERS = sorted(FOLDER.glob("*.tar.xz"))


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name.removesuffix(".tar.xz"))
def kept(request):
    """What was kept, and what is known of it."""
    path = request.param
    said = json.loads(path.with_name(path.name.replace(".tar.xz", ".json")).read_bytes())
    return path, said


@pytest.fixture
async def story(kept, tmp_path):
    """The site goes on from it, a second after it broke off."""
    with tarfile.open(kept[0]) as archive:
        archive.extractall(tmp_path, filter="data")
    clock = Clock(golden.STOPPED_NS + S)
    async with open_core(golden.load(tmp_path), load_plugins(), ports=Ports(clock)) as core:
        yield Story(core, clock)


async def until(story: Story, at_s: float) -> list[tuple[str, str, float]]:
    """What is said up to then: transition, alarm, seconds since the start."""
    head = story.core.journal.head
    story.clock.now_ns = START_NS + round(at_s * S)
    await story.core.judge.judge_all(story.clock.now_ns)
    return [
        (event.transition.value, event.alarm.alarm_key, (event.time_ns - START_NS) / S)
        for event in story.core.journal.read(head, 1_000)
    ]


def test_the_formats_of_today_are_kept_for_the_programs_of_tomorrow() -> None:
    """A format that changes: `python -m gateway.testing.golden tests/system/golden`."""
    assert golden.NAME in [path.name.removesuffix(".tar.xz") for path in FOLDERS]


async def test_the_story_leaves_today_what_it_left_then(tmp_path) -> None:
    """The same program, the same events: what follows does not lean on an odd folder."""
    kept = json.loads((FOLDER / f"{golden.NAME}.json").read_bytes())
    await golden.make(tmp_path)
    again = json.loads((tmp_path / f"{golden.NAME}.json").read_bytes())
    assert again["rows"] == kept["rows"]
    assert _told(again) == _told(kept)


def _told(said):
    return [(e["transition"], e["alarm"]["alarm_key"], e["time_ns"]) for e in said["events"]]


async def test_nothing_is_set_aside_and_the_journal_says_what_it_said(story, kept, tmp_path):
    journal = story.core.journal
    events = [json.loads(encode_event(event)) for event in journal.read(0, 1_000)]
    for event, then in zip(events, kept[1]["events"], strict=True):
        # A later program may say more of an event; what was said stays.
        assert event["alarm"].items() >= then.pop("alarm").items()
        assert event.items() >= then.items()
    assert verify_journal(tmp_path / "data" / "journal").ok
    counts = story.core.counters.of("judge")
    assert not [name for name in counts if name.startswith("checkpoint")], "timers go on"
    assert not [*tmp_path.rglob("*quarantine*")]


async def test_every_alarm_stands_as_it_stood_and_nobody_is_called_again(story) -> None:
    assert await until(story, 101) == []
    stands = {row.alarm_key: row.state for row in story.core.judge.standing()}
    assert stands == {
        "g0:methane": AlarmState.ACKNOWLEDGED,
        "g1:methane": AlarmState.UNACKNOWLEDGED,
        "g2:methane": AlarmState.SHELVED,
        "g3:methane": AlarmState.RETURNED_UNACKNOWLEDGED,
        "g0:slow": AlarmState.UNACKNOWLEDGED,
        "g1:slow": AlarmState.UNACKNOWLEDGED,
        "g2:slow": AlarmState.UNACKNOWLEDGED,
        "site:two": AlarmState.UNACKNOWLEDGED,
    }


async def test_every_timer_goes_on(story) -> None:
    ends_s = (DELAYED_FROM_NS + DELAY_NS - START_NS) / S
    assert await until(story, ends_s - 0.1) == []
    assert await until(story, ends_s + 5) == [("ACT", DELAYED, ends_s)]
    story.clock.now_ns = START_NS + 126 * S
    head = story.core.journal.head
    await story.say(126, {golden.LEVEL: 25.0})  # 12 in 46 s: known by the sample of before
    (rise,) = story.core.journal.read(head, 10)
    assert (rise.alarm.alarm_key, rise.transition.value) == ("l0:rise", "ACT")
    assert await until(story, 321) == [("ACT", "g3:silent", 320.0)], "last heard 20 s after start"
    back = [row for row in await until(story, 3_601) if row[1] == "g2:methane"]
    assert [row[0] for row in back][:1] == ["EXP"], "off the shelf when its time is over"


async def test_every_row_is_still_delivered_in_order(story, kept) -> None:
    core = story.core
    cursor = core.deliveries["store"].lanes.main
    found = []
    while (chunk := cursor.read(37)) is not None:
        batch = chunk.batch
        ids = [core.points[index].id for index in batch.point_index.tolist()]
        found += map(
            list, zip(ids, batch.source_time_ns.tolist(), batch.value.tolist(), strict=True)
        )
    assert found == kept[1]["rows"]
    assert core.spool.stats().depth[JUDGE_CURSOR] > golden.UNJUDGED, (
        "and those since the checkpoint"
    )
