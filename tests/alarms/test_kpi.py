"""The alarm figures: small cases by hand, and random events beside plain loops over the list."""

import itertools
import math
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.alarms.columns import event_columns, journal_columns
from gateway.alarms.journal import Journal
from gateway.alarms.kpi import BREACHES, STATES, TRANSITIONS, AlarmColumns, AlarmKpi, kpi
from gateway.alarms.reader import JournalReader
from gateway.model.alarm import AlarmEvent, AlarmState, Transition
from gateway.model.rule import Priority
from gateway.testing.alarms import S, make_event
from gateway.testing.effort import calls_of

M, H, D = 60 * S, 3600 * S, 86_400 * S
T, A = Transition, AlarmState
STANDING = {A.UNACKNOWLEDGED, A.ACKNOWLEDGED, A.RETURNED_UNACKNOWLEDGED, A.LATCHED_UNACKNOWLEDGED, A.LATCHED_ACKNOWLEDGED}  # fmt: skip
SEEN = {A.ACKNOWLEDGED, A.LATCHED_ACKNOWLEDGED, A.NORMAL, A.DISABLED}


def row(
    time_ns: int,
    transition: Transition = T.ACTIVATED,
    *,
    key: str = "a",
    state: AlarmState | None = None,
    heard: bool | None = None,
    lag_ns: int = 0,
    priority: int = 3,
    planned: bool = False,
    until_ns: int | None = None,
    **more,
) -> AlarmEvent:
    if state is None:
        state = {T.ACTIVATED: A.UNACKNOWLEDGED, T.ACKNOWLEDGED: A.ACKNOWLEDGED}.get(
            transition, A.NORMAL
        )
    made = make_event(1, key=f"{key}:r", transition=transition, time_ns=time_ns)
    alarm = replace(made.alarm, state=state, priority=Priority(priority), planned=planned, shelved_until_ns=until_ns)  # fmt: skip
    heard = transition in (T.ACTIVATED, T.ESCALATED) if heard is None else heard
    return replace(made, alarm=alarm, recorded_time_ns=time_ns + lag_ns, annunciate=heard, **more)


def numbered(rows: list[AlarmEvent]) -> list[AlarmEvent]:
    return [replace(r, alarm=replace(r.alarm, gseq=at)) for at, r in enumerate(rows, 1)]


def figures(rows: list[AlarmEvent], from_ns: int = 0, to_ns: int = D) -> AlarmKpi:
    return kpi(event_columns(numbered(rows)), from_ns=from_ns, to_ns=to_ns)


# --- by hand


def test_of_nothing_nothing_is_said_and_nothing_fails() -> None:
    found = figures([])
    assert (found.annunciations, found.windows, found.average_per_10min) == (0, 144, 0.0)
    assert (found.top10_share, found.psi, found.highest_share, found.detection_p99_ms) == (
        None,
    ) * 4
    assert {g["verdict"] for g in found.to_json()["grades"]} == {"good", "nothing to judge"}


def test_rates_count_what_was_heard_in_aligned_windows() -> None:
    rows = [row(at * S, key=f"k{at}") for at in range(11)] + [row(10 * M), row(25 * M)]
    found = figures(rows, to_ns=H)
    assert (found.annunciations, found.windows) == (13, 6)
    assert found.average_per_10min == 13 / 6
    assert (found.peak_share, found.max_per_10min) == (1 / 6, 11)
    assert figures(rows, from_ns=5 * M, to_ns=26 * M).windows == 3


NOT_HEARD = [
    ("hidden", row(1 * S, heard=False), (0, 0)),
    ("calibrating", row(1 * S, planned=True), (0, 1)),
    ("calibrating, and marked to be heard", row(1 * S, planned=True, heard=True), (0, 1)),
    ("late", row(1 * S, T.HISTORICAL, late=True, heard=True), (0, 0)),
    ("before", row(-1 * S), (0, 0)),
    ("after", row(D), (0, 0)),
    ("the first instant", row(0), (1, 0)),
    ("the last instant", row(D - 1), (1, 0)),
]


@pytest.mark.parametrize(("name", "one", "expected"), NOT_HEARD, ids=[r[0] for r in NOT_HEARD])
def test_only_what_a_person_was_asked_to_look_at_counts(name, one, expected) -> None:
    found = figures([one])
    assert (found.annunciations, found.planned) == expected
    assert found.late == (name == "late")


def test_a_flood_begins_with_the_tenth_in_ten_minutes_and_ends_below_five() -> None:
    rows = [row(at * M, key=f"k{at}") for at in range(10)]  # the tenth at 9 min
    (flood,) = figures(rows).floods
    # Four are left from 15 min on: those of 6 to 9 min.
    assert flood == (9 * M, 15 * M, 10)
    assert figures(rows).flood_share == 6 * M / D
    assert figures(rows[:9]).flood_count == 0
    assert figures(rows, to_ns=12 * M).floods[0].end_ns == 12 * M


def test_an_annunciation_ten_minutes_old_no_longer_counts_for_a_flood() -> None:
    rows = [row(0)] + [row(10 * M, key=f"k{at}") for at in range(9)]
    assert figures(rows).flood_count == 0
    assert figures([row(1), *rows[1:]]).flood_count == 1


def test_the_ten_that_call_most_are_named_with_their_share() -> None:
    rows = [row(at * H + i * M * 5, key=f"k{at:02}") for at in range(12) for i in range(12 - at)]
    found = figures(rows)
    assert [item.alarm_key for item in found.top10] == [f"k{at:02}:r" for at in range(10)]
    assert found.top10_share == 75 / 78


CHATTER = [
    ("three in under a minute", [0, 30, 59.999], 1),
    ("three in a minute", [0, 30, 60], 0),
    ("two at once", [0, 0], 0),
]


@pytest.mark.parametrize(("name", "seconds", "count"), CHATTER, ids=[r[0] for r in CHATTER])
def test_chattering_is_three_of_one_key_within_a_minute(name, seconds, count) -> None:
    rows = [row(round(at * S)) for at in seconds]
    assert figures(rows).chattering_count == count
    apart = [row(round(at * S), key=str(i)) for i, at in enumerate(seconds)]
    assert figures(apart).chattering_count == 0


def test_the_chatter_index_is_the_mean_of_one_over_the_gaps() -> None:
    found = figures([row(0), row(10 * S), row(50 * S), row(0, key="b"), row(100 * S, key="b")])
    assert found.psi == pytest.approx((1 / 10 + 1 / 40 + 1 / 100) / 3)
    assert found.psi_over == ("a:r",)


FLEETING = [
    ("back in ten seconds", [row(0), row(10 * S, T.RETURNED)], 1),
    ("back a little later", [row(0), row(10 * S + 1, T.RETURNED)], 0),
    ("not back", [row(0)], 0),
    ("again within a minute", [row(0), row(5 * S, T.RETURNED), row(60 * S), row(99 * S, T.RETURNED)], 0),
    ("again after a minute", [row(0), row(5 * S, T.RETURNED), row(61 * S), row(99 * S, T.RETURNED)], 1),
    ("after another", [row(0), row(30 * S, T.RETURNED), row(50 * S), row(55 * S, T.RETURNED)], 0),
    ("another key's return", [row(0), row(5 * S, T.RETURNED, key="b")], 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rows", "count"), FLEETING, ids=[r[0] for r in FLEETING])
def test_fleeting_is_gone_before_anybody_could_act_and_alone(name, rows, count) -> None:
    assert figures(rows).fleeting == count


def test_stale_is_in_sight_for_more_than_a_day_by_the_worst_day() -> None:
    rows = [row(-2 * D), row(0, key="b"), row(D + H, T.RETURNED, key="b"), row(0, key="c"), row(D, T.RETURNED, key="c")]  # fmt: skip
    found = figures(rows, to_ns=3 * D)
    assert (found.stale_max, found.stale_now) == (2, ("a:r",))
    hidden = [row(-2 * D), row(H, T.SHELVED, state=A.SHELVED, until_ns=2 * H)]
    assert figures(hidden, from_ns=2 * H).stale_max == 0


def test_the_mix_is_compared_with_eighty_fifteen_five() -> None:
    rows = [row(at * M, priority=p) for at, p in enumerate([4] * 80 + [3] * 15 + [2] * 4 + [1])]
    found = figures(rows)
    assert found.by_priority == {"critical": 1, "high": 4, "medium": 15, "low": 80}
    assert found.mix_deviation == pytest.approx(0)
    assert found.highest_share == 0.01


HIDING = [
    ({"transition": T.SHELVED, "actor": "li", "comment": "dust", "until_ns": H}, ""),
    ({"transition": T.SHELVED, "actor": "", "comment": "dust", "until_ns": H}, "nobody"),
    ({"transition": T.SHELVED, "actor": "li", "until_ns": H}, "no_reason"),
    (
        {"transition": T.SHELVED, "actor": "li", "comment": "dust", "until_ns": 8 * H + 1},
        "too_long",
    ),
    ({"transition": T.SHELVED_ONCE, "actor": "li", "comment": "dust", "priority": 1}, "critical"),
    ({"transition": T.SUPPRESSED}, ""),
    ({"transition": T.SUPPRESSED, "actor": "li"}, "no_reason"),
    (
        {"transition": T.SUPPRESSED, "actor": "li", "comment": "dust", "priority": 1},
        "no_second_person",
    ),
    ({"transition": T.OUT_OF_SERVICE, "actor": "li", "comment": "[P 7] repair"}, ""),
    ({"transition": T.OUT_OF_SERVICE, "actor": "li", "comment": "[P 7] "}, "no_reason"),
    ({"transition": T.OUT_OF_SERVICE, "actor": "li", "comment": "repair"}, "no_permit"),
    ({"transition": T.DISABLED}, "nobody"),
    ({"transition": T.ACKNOWLEDGED}, ""),
]


@pytest.mark.parametrize(("given_row", "breach"), HIDING)
def test_hiding_without_name_reason_permit_or_second_person_is_counted(given_row, breach) -> None:
    found = figures([row(0, given_row.pop("transition"), **dict(given_row))])
    assert {name for name, n in found.unauthorised.items() if n} == ({breach} - {""})


def test_a_critical_alarm_suppressed_by_two_persons_is_authorised() -> None:
    one = row(0, T.SUPPRESSED, actor="li", comment="dust", priority=1)
    two = replace(one, alarm=replace(one.alarm, hidden_note="li + wang: dust"))
    assert sum(figures([two]).unauthorised.values()) == 0


def test_shelves_are_counted_with_age_repeats_and_those_past_their_end() -> None:
    rows = [
        row(0, T.SHELVED, until_ns=H, state=A.SHELVED),
        row(H // 2, T.SHELVED, until_ns=2 * H, state=A.SHELVED),
        row(2 * H, T.SHELF_EXPIRED),
        row(0, T.SHELVED, key="b", until_ns=H, state=A.SHELVED),
    ]
    found = figures(rows, to_ns=3 * H)
    assert (found.shelvings, found.reshelved_share, found.shelved_past_limit) == (3, 1 / 3, 1)
    assert found.shelved_mean_age_s == (2 * 3600 + 3 * 3600) / 2


def test_the_time_to_acknowledge_runs_from_when_it_could_be_heard() -> None:
    rows = [
        row(0, lag_ns=5 * S, priority=1),
        row(10 * S, T.ESCALATED, state=A.UNACKNOWLEDGED, priority=1),
        row(65 * S, T.ACKNOWLEDGED, priority=1),
        row(99 * S, T.ACKNOWLEDGED, priority=1),  # of nothing that called
        row(100 * S, priority=1),
        row(120 * S, T.ACKNOWLEDGED, priority=1),
        row(0, key="b"),
    ]
    found = figures(rows)
    assert found.time_to_ack == {"critical": (2, 40.0, 60.0)}
    assert found.acks == 3


BULKS = [("six at once", 6, 1 * S, 1.0), ("five", 5, 1 * S, 0.0), ("looked at", 6, 2 * S, 0.0)]


@pytest.mark.parametrize(("name", "count", "after", "share"), BULKS, ids=[r[0] for r in BULKS])
def test_a_rubber_stamp_is_one_of_many_and_too_fast_to_have_looked(name, count, after, share):
    rows = [row(0, key=f"k{at}") for at in range(count)]
    rows += [row(after, T.ACKNOWLEDGED, key=f"k{at}", actor="li") for at in range(count)]
    assert figures(rows).rubber_stamp_share == share
    others = [replace(r, actor=f"p{at % 2}") for at, r in enumerate(rows)]
    assert figures(others).rubber_stamp_share == 0.0


def test_detection_is_from_the_moment_the_delay_was_over_until_the_gateway_knew() -> None:
    rows = [row(at * M, lag_ns=at * 1_000_000, key=f"k{at}") for at in range(1, 101)]
    found = figures(rows)
    latency = (found.detection_p50_ms, found.detection_p99_ms, found.detection_max_ms)
    assert latency == (50.0, 99.0, 100.0)


# --- beside plain loops


def lives(rows: list[AlarmEvent], to_ns: int) -> dict[str, list[AlarmEvent]]:
    found = defaultdict(list)
    for r in rows:
        if r.time_ns < to_ns and not r.late and r.transition is not T.HISTORICAL:
            found[r.alarm.alarm_key].append(r)
    return found


def called(r: AlarmEvent) -> bool:
    return r.annunciate and not r.alarm.planned


def stretches(life, has, to_ns):
    """(start, end, last row) of each run of rows that `has`."""
    found, start, last = [], None, None
    for r in life:
        if has(r):
            start, last = (r.time_ns if start is None else start), r
        elif start is not None:
            found.append((start, r.time_ns, last))
            start = None
    return found + ([(start, to_ns, last)] if start is not None else [])


def rank(values, share):
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else None


def reference(rows: list[AlarmEvent], from_ns: int, to_ns: int) -> dict:
    by_key = lives(rows, to_ns)
    inside = [r for life in by_key.values() for r in life if r.time_ns >= from_ns]
    heard = sorted((r for r in inside if called(r)), key=lambda r: r.time_ns)
    windows = range(from_ns // (10 * M), (to_ns - 1) // (10 * M) + 1)
    counts = [sum(r.time_ns // (10 * M) == w for r in heard) for w in windows]
    flood_ns, floods, on_since = 0, 0, None
    times = [r.time_ns for r in heard]
    for at in sorted({t + d for t in times for d in (0, 10 * M)}):
        n = sum(at - 10 * M < t <= at for t in times)
        if on_since is None and n >= 10:
            on_since, floods = at, floods + 1
        elif on_since is not None and n < 5:
            flood_ns += min(at, to_ns) - on_since
            on_since = None
    keys = sorted({r.alarm.alarm_key for r in heard})
    times_of = {k: [r.time_ns for r in heard if r.alarm.alarm_key == k] for k in keys}
    top = sorted(((-len(ts), k) for k, ts in times_of.items()))[:10]
    inverse = {k: [1 / max((b - a) / S, 1) for a, b in itertools.pairwise(ts)] for k, ts in times_of.items()}  # fmt: skip
    pooled = [x for xs in inverse.values() for x in xs]
    fleeting = 0
    for life in by_key.values():
        calls = [r.time_ns for r in life if called(r)]
        for at, r in enumerate(life):
            if not called(r) or r.transition is not T.ACTIVATED or r.time_ns < from_ns:
                continue
            near = sum(abs(t - r.time_ns) <= 60 * S for t in calls) - 1
            back = next((b for b in life[at:] if b.transition is T.RETURNED), None)
            fleeting += bool(near == 0 and back and back.time_ns - r.time_ns <= 10 * S)
    days = [0] * -(-(to_ns - from_ns) // D)
    now = set()
    for k, life in by_key.items():
        for start, end, _ in stretches(life, lambda r: r.alarm.state in STANDING, to_ns):
            begin = max(start + D, from_ns)
            if begin < end:
                for day in range((begin - from_ns) // D, (end - 1 - from_ns) // D + 1):
                    days[day] += 1
                now |= {k} if end == to_ns else set()
    shelves = [run for life in by_key.values() for run in stretches(life, lambda r: r.alarm.shelved_until_ns, to_ns) if run[1] > from_ns]  # fmt: skip
    asked = [r.alarm.alarm_key for r in inside if r.transition in (T.SHELVED, T.SHELVED_ONCE)]
    waits, acks, fast = defaultdict(list), [], set()
    for life in by_key.values():
        first = None
        for r in life:
            if r.transition is T.ACKNOWLEDGED and r.time_ns >= from_ns:
                acks.append(r)
                if first is not None:
                    wait = r.time_ns - first.recorded_time_ns
                    waits[r.alarm.priority.name.lower()].append(wait / S)
                    fast |= {id(r)} if wait < 2 * S else set()
            if called(r) and first is None:
                first = r
            if r.alarm.state in SEEN:
                first = None
    stamped, bulk = 0, []
    for r in [*sorted(acks, key=lambda r: (r.actor, r.time_ns)), None]:
        if r is None or (bulk and (r.actor != bulk[-1].actor or r.time_ns - bulk[-1].time_ns > S)):
            stamped += sum(id(b) in fast for b in bulk) if len(bulk) > 5 else 0
            bulk = []
        bulk.append(r)
    latency = [(r.recorded_time_ns - r.time_ns) / 1e6 for r in heard if r.transition in (T.ACTIVATED, T.ESCALATED)]  # fmt: skip
    return {
        "annunciations": len(heard),
        "planned": sum(r.alarm.planned and r.transition in (T.ACTIVATED, T.ESCALATED) for r in inside),
        "average_per_10min": len(heard) / len(windows),
        "peak_share": sum(n > 10 for n in counts) / len(windows),
        "max_per_10min": max(counts),
        "flood_count": floods,
        "flood_share": flood_ns / (to_ns - from_ns),
        "top10": tuple((k, -n) for n, k in top),
        "chattering": tuple(k for k, ts in times_of.items() if any(c - a < M for a, c in zip(ts, ts[2:], strict=False))),
        "psi": sum(pooled) / len(pooled) if pooled else None,
        "psi_over": tuple(k for k, xs in inverse.items() if xs and sum(xs) / len(xs) > 0.05),
        "fleeting": fleeting,
        "stale_max": max(days),
        "stale_now": tuple(sorted(now)),
        "shelvings": len(asked),
        "shelved_mean_age_s": sum(e - s for s, e, _ in shelves) / S / len(shelves) if shelves else None,
        "reshelved_share": (len(asked) - len(set(asked))) / len(asked) if asked else None,
        "shelved_past_limit": sum(e - r.alarm.shelved_until_ns > M for _, e, r in shelves),
        "time_to_ack": {p: (len(w), float(np.median(w)), rank(w, 0.95)) for p, w in waits.items()},
        "acks": len(acks),
        "rubber_stamp_share": stamped / len(acks) if acks else None,
        "detection_p50_ms": rank(latency, 0.5),
        "detection_p99_ms": rank(latency, 0.99),
    }  # fmt: skip


GAPS = [
    0,
    0,
    0,
    1,
    S // 2,
    S,
    2 * S,
    9 * S,
    10 * S,
    29 * S,
    30 * S,
    M,
    M + 1,
    5 * M,
    10 * M,
    H,
    D + H,
]
SOME = [T.ACTIVATED, T.ACTIVATED, T.RETURNED, T.ESCALATED, T.ACKNOWLEDGED, T.ACKNOWLEDGED, T.SHELVED, T.SHELF_EXPIRED, T.HISTORICAL]  # fmt: skip


def history(rng: random.Random) -> list[AlarmEvent]:
    at, rows = 5 * D + rng.choice([0, -D, -3 * D]), []
    busy = rng.random() < 0.5
    for _ in range(rng.randrange(60)):
        at += rng.choice(GAPS[:12] if busy else GAPS)
        rows.append(
            row(
                at,
                rng.choice(SOME),
                key=rng.choice("aaabc"),
                state=rng.choice(list(AlarmState)),
                heard=rng.random() < 0.7,
                lag_ns=rng.choice([0, S // 4, 3 * S]),
                priority=rng.randrange(1, 5),
                planned=rng.random() < 0.2,
                until_ns=rng.choice([None, at + 5 * M, at + H]),
                actor=rng.choice(["li", "li", "wang"]),
                late=rng.random() < 0.1,
            )
        )
    return rows


@pytest.mark.parametrize("block", range(5))
def test_the_figures_are_those_of_plain_loops(block) -> None:
    for seed in range(block * 20, block * 20 + 20):
        rng = random.Random(seed)
        rows = history(rng)
        from_ns = 5 * D + rng.choice([0, 1, -D, 7 * M])
        to_ns = 5 * D + rng.choice([D, H, 3 * D, 40 * M + 1])
        found = figures(rows, from_ns=from_ns, to_ns=to_ns)
        for name, expected in reference(numbered(rows), from_ns, to_ns).items():
            value = getattr(found, name)
            wanted = pytest.approx(expected) if isinstance(expected, float) else expected
            assert value == wanted, f"seed {seed}: {name}"


# --- from a journal


def test_a_journal_gives_the_columns_of_its_events_and_how_things_stood_before(
    tmp_path: Path,
) -> None:
    rows = [row(at * M, key=f"k{at % 7}") for at in range(60)]
    rows[30] = replace(rows[30], late=True, time_ns=2 * M)
    rows = numbered(rows)
    journal = Journal.open(tmp_path / "j", reserve_bytes=0)
    journal.append(rows)
    found, damaged = journal_columns(journal, 20 * M, 50 * M)
    before = {r.alarm.alarm_key: r for r in rows if r.time_ns < 20 * M and not r.late}
    within = [r for r in rows if 20 * M <= r.time_ns < 50 * M]
    expected = event_columns(sorted([*before.values(), *within], key=lambda r: r.alarm.gseq))
    assert damaged == 0
    assert found.time_ns.tolist() == expected.time_ns.tolist()
    names = [found.keys[code] for code in found.key]
    assert names == [expected.keys[code] for code in expected.key]
    with JournalReader.open(journal.directory) as reader:
        offline, _ = journal_columns(reader, 20 * M, 50 * M)
    whole = event_columns(rows)
    answers = [kpi(c, from_ns=20 * M, to_ns=50 * M) for c in (found, offline, whole)]
    assert answers[0] == answers[1] == answers[2]
    journal.close()


def test_a_damaged_row_is_left_out_of_the_figures_and_counted(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j", reserve_bytes=0)
    journal.append(numbered([row(at * M) for at in range(5)]))
    db = journal._database._writer
    db.execute("UPDATE event SET record = x'7b7d' WHERE gseq = 2")
    found, damaged = journal_columns(journal, 0, H)
    assert (len(found), damaged) == (4, 1)
    journal.close()


@pytest.mark.slow
def test_a_million_events_take_less_than_two_seconds() -> None:
    count, keys = 1_000_000, 5_000
    rng = np.random.default_rng(7)
    times = np.sort(rng.integers(0, 30 * D, count))
    columns = AlarmColumns(
        time_ns=times,
        recorded_ns=times + rng.integers(0, S, count),
        key=rng.integers(0, keys, count).astype(np.int32),
        transition=rng.integers(0, len(TRANSITIONS), count).astype(np.uint8),
        state=rng.integers(0, len(STATES), count).astype(np.uint8),
        priority=rng.integers(1, 5, count).astype(np.uint8),
        annunciate=rng.random(count) < 0.4,
        planned=rng.random(count) < 0.05,
        late=rng.random(count) < 0.01,
        until_ns=np.where(rng.random(count) < 0.1, times + H, 0),
        actor=rng.integers(0, 9, count).astype(np.int32),
        breach=rng.integers(0, len(BREACHES), count).astype(np.uint8),
        keys=[f"k{at}" for at in range(keys)],
        actors=[f"p{at}" for at in range(9)],
    )
    looks = calls_of(lambda: kpi(columns, from_ns=0, to_ns=30 * D))
    assert looks < count / 2, f"{looks} calls: row by row"
    assert kpi(columns, from_ns=0, to_ns=30 * D).annunciations > 300_000
