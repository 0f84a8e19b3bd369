"""The rule set: what is judged and when, growth, state, and the checks that guard the kinds."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from alarm_rules.bench import DEFINITION, EXCURSION_S, batches_of, lines, measure
from alarm_rules.kinds import calculation, count, limit, offline
from alarm_rules.kinds.limit import LimitEvaluator
from alarm_rules.ruleset import RuleSet, check_rules
from gateway.model.batch import Batch
from gateway.model.condition import Conditions
from gateway.model.errors import ConfigError
from gateway.model.point import Device, Point, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import GroupBy, Rule, Selector
from gateway.testing.effort import calls_of
from gateway.testing.rule_kinds import NS_PER_S, RuleCase, Sample, at_ns, check_rule_kind

KINDS = {k.KIND.name: k.KIND for k in (calculation, count, limit, offline)}
GAS = Rule("gas", "limit", {"value": Selector(quantity="methane")}, {"levels": {"H": 1.0}})


def table_of(*ids: str, **fields) -> PointTable:
    table = PointTable()
    for name in ids:
        table.put(Point(id=name, **{"quantity": "methane", **fields}))
    return table


def batch_of(*rows, received_s=None, quality=0) -> Batch:
    point, second, value = zip(*rows, strict=True)
    times = [at_ns(s) for s in second]
    received = times if received_s is None else at_ns(received_s)
    return Batch.of(point, value, times, received_time_ns=received, quality=quality)


def told(rules: RuleSet, batch: Batch, second: float) -> list[tuple[str, int, float]]:
    found = rules.evaluate(batch, at_ns(second)).conditions
    return [
        (rules.instances[i].alarm_key, int(level), (int(t) - at_ns(0)) / NS_PER_S)
        for i, level, t in zip(found.instance, found.level, found.time_ns, strict=True)
    ]


# ------------------------------------------------------------------ time


def test_a_row_from_the_future_is_judged_at_the_time_of_its_receipt_and_counted() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a"))
    found = rules.evaluate(batch_of((0, 5000.0, 2.0), received_s=10), at_ns(10))
    assert (found.clock_count, found.conditions.time_ns.tolist()) == (1, [at_ns(10)])


def test_a_clock_ahead_by_no_more_than_the_tolerance_is_believed() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a"))
    found = rules.evaluate(batch_of((0, 15.0, 2.0), received_s=10), at_ns(10))
    assert (found.clock_count, found.conditions.time_ns.tolist()) == (0, [at_ns(15)])


def test_a_row_flagged_for_its_clock_is_judged_at_receipt_even_when_it_looks_old() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a"))
    flagged = batch_of((0, -9e8, 2.0), received_s=10, quality=int(Quality.UNCERTAIN_CLOCK))
    assert rules.evaluate(flagged, at_ns(10)).conditions.time_ns.tolist() == [at_ns(10)]


@pytest.mark.parametrize("nonsense", [np.iinfo(np.int64).min, -1, 0, np.iinfo(np.int64).max])
def test_no_source_time_however_absurd_stops_the_judging_of_the_next_row(nonsense) -> None:
    rules = RuleSet([GAS], KINDS, table_of("a"))
    assert told(rules, batch_of((0, 1.0, 0.1)), 1) == []
    odd = Batch.of([0], [0.0], nonsense, received_time_ns=at_ns(2))
    rules.evaluate(odd, at_ns(2))
    assert told(rules, batch_of((0, 3.0, 2.0)), 3) == [("a:gas", 1, 3.0)]


def test_a_row_older_than_the_newest_of_its_point_is_late_and_changes_nothing() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a", "b"))
    rules.evaluate(batch_of((0, 10.0, 0.1)), at_ns(10))
    found = rules.evaluate(batch_of((0, 9.0, 5.0), (1, 9.0, 5.0)), at_ns(10))
    assert (found.late_count, found.history_count, found.judged_count) == (1, 1, 1)
    now = found.conditions.instance[~found.conditions.late]
    assert [rules.instances[i].alarm_key for i in now] == ["b:gas"]
    assert rules.current_levels().tolist() == [0, 1]


def test_a_sample_overtaken_by_a_timer_still_counts_from_the_timers_moment_on() -> None:
    slow = Rule("slow", "limit", GAS.inputs, GAS.parameters, on_delay_s=5)
    rules = RuleSet([slow], KINDS, table_of("a"))
    assert told(rules, batch_of((0, 1.0, 2.0)), 1) == []
    assert told(rules, Batch.empty(), 8) == [("a:slow", 1, 6.0)]
    assert told(rules, batch_of((0, 3.0, 0.0)), 8) == [("a:slow", 0, 6.0)]


def random_tick(rng: np.random.Generator, second: float, points: int) -> Batch:
    """A range of points, each once and in order; most times past the last tick, some far off."""
    first = int(rng.integers(0, points)) if rng.random() < 0.5 else 0
    point = np.arange(first, points if rng.random() < 0.7 else int(rng.integers(first, points)) + 1)
    late_s = np.where(rng.random(len(point)) < rng.choice([0, 0.2]), rng.choice([1, 90, 4000]), 0)
    time_ns = at_ns(second) - (late_s * NS_PER_S).astype(np.int64) - rng.integers(0, 2, len(point))
    value = rng.choice([0.1, 0.7, 1.2, 6.0], len(point))
    quality = np.zeros(len(point), np.uint8)
    if rng.random() < 0.3:
        value[rng.random(len(point)) < 0.2] = np.nan
        unsure = [Quality.BAD_STALE, Quality.UNCERTAIN_CLOCK, Quality.UNCERTAIN_CALIBRATING]
        quality = np.where(rng.random(len(point)) < 0.2, rng.choice(unsure), 0)
    received_ns = at_ns(second + float(rng.choice([0, 0, -600])))  # the clock may be absurd
    return Batch.of(point, value, time_ns, received_time_ns=received_ns, quality=quality)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_known_of_a_tick_as_a_whole_finds_what_a_look_at_each_row_finds(seed) -> None:
    rng = np.random.default_rng(seed)
    made = [
        Rule("gas", "limit", GAS.inputs, BAND, on_delay_s=2.0),
        Rule("off", "offline", GAS.inputs, {"max_age_s": 30.0}),
        Rule("any", "offline", GAS.inputs, {"max_age_s": 50.0, "needs": "any"}),
    ]
    table = table_of(*"abcdefgh")
    table.put(Point(id="unasked", quantity="rain"))
    ticks, rows = (RuleSet(made, KINDS, table) for _ in range(2))
    second, changes, late = 0.0, 0, 0
    for number in range(50):
        second += float(rng.choice([1, 1, 1, 2, 29, 31, 200]))
        batch = random_tick(rng, second, len(table))
        mixed = batch.take(np.roll(np.arange(len(batch)), 1))  # no range any more
        one, other = (
            rules.evaluate(b, at_ns(second)) for rules, b in ((ticks, batch), (rows, mixed))
        )
        for name in ("late_count", "history_count", "clock_count", "judged_count"):
            assert getattr(one, name) == getattr(other, name), name
        for name in Conditions.__slots__:
            np.testing.assert_array_equal(
                getattr(one.conditions, name), getattr(other.conditions, name), name
            )
        changes, late = changes + len(one.conditions), late + one.late_count
        if number == 30:
            for rules in (ticks, rows):
                rules.load(rules.save())
    saved = rows.save()
    for name, column in ticks.save().items():
        np.testing.assert_array_equal(column, saved[name], name)
    assert changes > 40, "the case has something to find"
    assert late > 5, "the case has something late"


def test_a_row_older_than_its_point_but_not_than_the_tick_before_is_late() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a", "b"))
    rules.evaluate(batch_of((0, 5.0, 0.1), (1, 1.0, 0.1)), at_ns(5))
    found = rules.evaluate(batch_of((0, 3.0, 2.0), (1, 3.0, 2.0)), at_ns(5))
    assert (found.judged_count, found.late_count) == (1, 1)
    assert rules.current_levels().tolist() == [0, 1]


def test_ticks_without_a_usable_value_are_silence_to_who_needs_one() -> None:
    off = Rule("off", "offline", GAS.inputs, {"max_age_s": 30.0})
    rules = RuleSet([off], KINDS, table_of("a", "b"))
    for second, value in ((0.0, 0.1), (10.0, np.nan), (20.0, np.nan)):
        assert told(rules, batch_of((0, second, value), (1, second, 0.1)), second) == []
    late = told(rules, batch_of((0, 40.0, 0.1), (1, 40.0, 0.1)), 40)
    assert late == [("a:off", 1, 30.0), ("a:off", 0, 40.0)]


def test_a_tick_of_other_points_between_does_not_make_an_old_row_new() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a", "b", "c"))
    rules.evaluate(batch_of((0, 1.0, 0.1), (1, 1.0, 0.1)), at_ns(1))
    rules.evaluate(batch_of((1, 9.0, 0.1), (2, 9.0, 0.1)), at_ns(9))
    found = rules.evaluate(batch_of((0, 5.0, 2.0), (1, 5.0, 2.0)), at_ns(9))
    assert (found.judged_count, found.late_count) == (1, 1)


BAND = {"levels": {"H": {"limit": 1.0, "reset": 0.5}, "HH": 5.0}}


@pytest.mark.parametrize(
    ("before", "first", "second", "stands"),
    [
        ([], 2.0, 0.1, True),  # the first sample of the time set it
        ([3.0], 2.0, 0.1, True),  # it stood: what sets it again may not be looked at
        ([3.0, 2.0], 2.0, 0.1, True),
        ([3.0], 0.1, 2.0, True),  # the other way round: set wins too
        ([3.0], float("nan"), 0.1, False),  # nobody said set at that time
        ([], 0.1, 0.1, False),
    ],
)
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("neighbours", [False, True])
def test_a_set_is_not_undone_by_a_reset_of_the_same_time_in_another_call(  # noqa: PLR0917
    before, first, second, stands, restart, neighbours
) -> None:
    def judged(second: float, *values: float) -> None:
        rows = [(0, second, value) for value in values]
        rows += [(1, second, 0.1)] if neighbours else []
        rules.evaluate(batch_of(*rows), at_ns(second))

    rule = Rule("gas", "limit", GAS.inputs, BAND)
    rules = RuleSet([rule], KINDS, table_of("a", "b"))
    for number, value in enumerate(before):
        judged(float(number), value)
    judged(10.0, first)
    if restart:
        saved, rules = rules.save(), RuleSet([rule], KINDS, table_of("a", "b"))
        rules.load(saved)
    judged(10.0, second)
    assert bool(rules.current_levels()[0]) == stands
    judged(10.0, second)
    assert bool(rules.current_levels()[0]) == stands, "nor by the same sample once more"
    judged(11.0, 0.1)
    assert rules.current_levels()[0] == 0, "the next sample ends it"


def test_rows_wait_in_the_buffer_until_the_lateness_has_passed() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a"), lateness_ns=5 * NS_PER_S)
    assert rules.evaluate(batch_of((0, 3.0, 2.0)), at_ns(3)).held_count == 1
    assert told(rules, batch_of((0, 2.0, 0.5)), 7) == []
    assert told(rules, Batch.empty(), 8) == [("a:gas", 1, 3.0)]


def test_a_full_buffer_judges_its_oldest_rows_early_and_says_how_many() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a"), lateness_ns=50 * NS_PER_S, held_rows_max=2)
    batch = batch_of((0, 3.0, 2.0), (0, 1.0, 2.0), (0, 2.0, 0.0))
    found = rules.evaluate(batch, at_ns(3))
    assert (found.held_count, found.released_count, found.judged_count) == (2, 1, 1)
    assert found.conditions.time_ns.tolist() == [at_ns(1)]


# ------------------------------------------------------------------ which rows


def test_unknown_points_and_points_without_rules_are_ignored_and_counted() -> None:
    table = table_of("a")
    table.put(Point(id="x", quantity="humidity"))
    found = RuleSet([GAS], KINDS, table).evaluate(
        batch_of((0, 1.0, 0.1), (1, 1.0, 9.0), (7, 1.0, 9.0), (-1, 1.0, 9.0)), at_ns(1)
    )
    assert (found.ignored_count, found.judged_count, len(found.conditions)) == (3, 1, 0)


def test_the_batch_handed_in_is_left_as_it_was() -> None:
    batch = batch_of((0, 2.0, 2.0), (0, 1.0, 0.0))
    copy = Batch(*(getattr(batch, name).copy() for name in Batch.__slots__))
    RuleSet([GAS], KINDS, table_of("a"), lateness_ns=1).evaluate(batch, at_ns(5))
    assert batch == copy


def test_several_rules_on_one_point_each_see_every_sample() -> None:
    low = Rule("low", "limit", GAS.inputs, {"levels": {"L": 0.2, "H": 3.0}})
    rules = RuleSet([GAS, low], KINDS, table_of("a"))
    rows = batch_of((0, 1.0, 0.1), (0, 2.0, 2.0), (0, 3.0, 4.0), (0, 4.0, 0.5))
    assert told(rules, rows, 4) == [
        ("a:low", 1, 1.0), ("a:gas", 1, 2.0), ("a:low", 0, 2.0), ("a:low", 2, 3.0),
        ("a:gas", 0, 4.0), ("a:low", 0, 4.0),
    ]  # fmt: skip
    assert rules.current_levels().tolist() == [0, 0]


# ------------------------------------------------------------------ growth


def test_points_that_appear_are_judged_and_the_standing_ones_keep_their_state_and_number() -> None:
    table = table_of("a")
    slow = Rule("gas", "limit", GAS.inputs, GAS.parameters, on_delay_s=5)
    rules = RuleSet([slow], KINDS, table)
    told(rules, batch_of((0, 1.0, 2.0)), 1)
    table.put(Point(id="b", quantity="methane"))
    rules.refresh()
    assert told(rules, batch_of((1, 2.0, 2.0)), 7) == [("a:gas", 1, 6.0), ("b:gas", 1, 7.0)]
    assert rules.current_levels().tolist() == [1, 1]


def test_a_point_that_no_longer_matches_falls_silent_and_comes_back_as_after_a_restart() -> None:
    table = table_of("a")
    rules = RuleSet([GAS], KINDS, table)
    told(rules, batch_of((0, 1.0, 2.0)), 1)
    table.put(Point(id="a", quantity="other"))
    rules.refresh()
    assert rules.evaluate(batch_of((0, 2.0, 0.0)), at_ns(2)).ignored_count == 1
    table.put(Point(id="a", quantity="methane"))
    rules.refresh()
    assert told(rules, batch_of((0, 3.0, 2.0)), 3) == [("a:gas", 1, 3.0)]
    assert len(rules.instances) == 1


@pytest.mark.parametrize("comes_back", [False, True])
def test_no_delay_ends_for_a_point_that_no_longer_matches(comes_back: bool) -> None:
    table = table_of("a")
    rules = RuleSet([replace(GAS, on_delay_s=3.0)], KINDS, table)
    told(rules, batch_of((0, 1.0, 2.0)), 1)
    table.put(Point(id="a", quantity="other"))
    rules.refresh()
    assert told(rules, batch_of((0, 2.0, 2.0)), 9) == []
    if comes_back:
        table.put(Point(id="a", quantity="methane"))
        rules.refresh()
    assert told(rules, Batch.empty(), 10) == []
    assert rules.current_levels().tolist() == [0]


def test_a_devices_attribute_decides_which_rule_applies_and_may_change() -> None:
    selector = Selector(quantity="methane", attributes={"grade": "1"})
    rule = Rule("g1", "limit", {"value": selector}, {"levels": {"H": 1.0}})
    table = table_of("a", device="d")
    rules = RuleSet([rule], KINDS, table)
    assert not rules.instances
    table.put_device(Device(id="d", kind="dam", attributes={"grade": "1"}))
    rules.refresh()
    assert [i.alarm_key for i in rules.instances] == ["a:g1"]


def test_refreshing_without_a_change_looks_at_no_point() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a"))
    before = rules.instances[0]
    rules._matching.update = None  # would raise if it were called
    rules.refresh()
    assert rules.instances[0] is before


# ------------------------------------------------------------------ state


def test_a_half_elapsed_delay_goes_on_after_a_restart_with_other_points_and_order() -> None:
    slow = Rule("gas", "limit", GAS.inputs, GAS.parameters, on_delay_s=10)
    rules = RuleSet([slow], KINDS, table_of("a", "b"))
    told(rules, batch_of((0, 1.0, 2.0), (1, 1.0, 0.0)), 1)
    saved = rules.save()
    after = RuleSet([slow], KINDS, table_of("new", "b", "a"))
    after.load(saved)
    assert told(after, Batch.empty(), 20) == [("a:gas", 1, 11.0)]
    assert after.evaluate(batch_of((2, 0.5, 0.0)), at_ns(20)).late_count == 1


def test_an_instance_whose_levels_have_other_names_starts_fresh() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a"))
    told(rules, batch_of((0, 1.0, 2.0)), 1)
    other = Rule("gas", "limit", GAS.inputs, {"levels": {"L": -1.0, "H": 1.0}})
    after = RuleSet([other], KINDS, table_of("a"))
    after.load(rules.save())
    assert after.current_levels().tolist() == [0]


def test_a_saved_state_is_arrays_without_objects_and_of_a_stated_version() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a"), lateness_ns=NS_PER_S)
    rules.evaluate(batch_of((0, 1.0, 2.0)), at_ns(1))
    saved = rules.save()
    assert all(array.dtype != object for array in saved.values())
    saved["version"] = np.array([99])
    with pytest.raises(ConfigError, match="version 2, not 99"):
        rules.load(saved)


# ------------------------------------------------------------------ the rules themselves


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (Rule("r", "guess", GAS.inputs, {}), "one of calculation, count, limit, offline"),
        (Rule("r", "limit", {}, GAS.parameters), "at least one selector"),
        (Rule("r", "limit", {"x": Selector()}, GAS.parameters), "exactly value"),
        (Rule("r", "limit", GAS.inputs, {}), "parameters.levels"),
        (Rule("r", "limit", GAS.inputs, GAS.parameters, on_delay_s=-1), "0 s or more"),
    ],
)
def test_a_rule_that_cannot_be_judged_is_refused_with_its_name_and_key(rule, word) -> None:
    with pytest.raises(ConfigError, match=word):
        RuleSet([rule], KINDS, PointTable())
    (fault, *_) = check_rules([rule], KINDS)
    assert fault.key.startswith("r.")


def test_every_fault_of_every_rule_is_reported_at_once() -> None:
    bad = [Rule("a", "x", {}, {}), Rule("b", "limit", {}, {}), GAS, GAS]
    assert [fault.key for fault in check_rules(bad, KINDS)] == [
        "a.kind", "b.parameters.levels", "gas.id",
    ]  # fmt: skip


# ------------------------------------------------------------------ the guard itself


def broken(**methods):
    """The limit kind with something wrong in it."""
    from dataclasses import replace

    return replace(limit.KIND, build=type("Broken", (LimitEvaluator,), methods))


def sees_only_what_is_beyond(self, rows):
    return ~((rows.value > self._low[rows.point]) & (rows.value < self._high[rows.point]))


def takes_bad_values(self, feed, times, now_ns):
    from dataclasses import replace

    return LimitEvaluator.judge(self, replace(feed, usable=np.ones(len(feed), bool)), times, now_ns)


CASE = RuleCase(
    [GAS],
    [Point(id="a", quantity="methane"), Point(id="b", quantity="methane")],
    [Sample("a", t, v) for t, v in enumerate([0.1, 2.0, 0.5, 2.0, 2.0, 0.0, 3.0, 0.2])]
    + [Sample("b", 3, 2.0, int(Quality.BAD)), Sample("b", 5, 2.0), Sample("b", 6, 0.0)],
)


def test_the_guard_passes_the_real_kind() -> None:
    assert len(check_rule_kind(limit.KIND, CASE).changes) == 8


@pytest.mark.parametrize(
    "methods",
    [
        {"select": sees_only_what_is_beyond},
        {"judge": takes_bad_values},
    ],
)
def test_the_guard_refuses_a_kind_that_breaks_a_law(methods) -> None:
    with pytest.raises(AssertionError):
        check_rule_kind(broken(**methods), CASE)


def test_a_reference_that_differs_is_a_failure_that_names_the_difference() -> None:
    with pytest.raises(AssertionError, match="only here"):
        check_rule_kind(
            limit.KIND, CASE, reference=lambda _: type(check_rule_kind(limit.KIND, CASE))([], [])
        )


# ------------------------------------------------------------------ speed


@pytest.mark.slow
def test_the_bench_judges_real_changes_and_tells_them_beside_the_machine() -> None:
    found = measure(KINDS, time.process_time, seconds=0.1, sizes=[20_000])
    (size,) = found["sizes"]
    assert size["instances"] == 20_000
    rows = {(row["traffic"], row["form"]): row for row in size["rows"]}
    assert len(rows) == 6
    assert rows["restless", "tick"]["changes"] > 100
    normal = rows["normal", "tick"]
    assert 0 < normal["changes"] / normal["batches"] < 20, "each begins and ends by itself"
    assert rows["crossing", "tick"]["changes"] == 0, "no crossing lasts its delay"
    for row in rows.values():
        assert row["best_per_s"] >= row["evaluations_per_s"] > 0
        assert row["ns_per_sample"] > 0
    assert size["machine"]["gathers_per_s"] > 0
    assert size["save_ms"] > 0
    text = "\n".join(lines(found))
    assert DEFINITION in text
    assert "crossing burst" in text


def test_in_normal_traffic_each_point_is_abnormal_for_a_minute_of_its_own() -> None:
    points, ticks = 20_000, 90
    batches = islice(batches_of(points, "normal", "tick", seed=3, from_s=50), ticks)
    abnormal = np.array([batch.value >= 1.0 for batch, _ in batches])
    begins = abnormal[1:] & ~abnormal[:-1]
    share = abnormal.mean(axis=1)
    assert share.min() > 0.008
    assert share.max() < 0.012
    assert begins.any(axis=1).sum() > 0.8 * ticks, "all at once is a flood"
    assert begins.sum(axis=1).max() < 20
    whole = begins[:-EXCURSION_S].any(axis=0)
    assert set(abnormal[:, whole].sum(axis=0)) == {EXCURSION_S}


def test_rules_that_name_their_points_are_found_by_id_and_not_one_after_the_other() -> None:
    count = 3_000  # looked at pair by pair: 9 million
    table = table_of(*(f"p{n}" for n in range(count)))
    rules = [
        Rule(f"g{n}", "limit", {"value": Selector(ids=(f"p{n}", "gone"))}, {"levels": {"H": n}})
        for n in range(count)
    ]
    looks = calls_of(lambda: RuleSet(rules, KINDS, table))
    assert looks < 1_000 * count, f"{looks} calls: each rule looked at each point"
    found = RuleSet(rules, KINDS, table)
    assert [i.alarm_key for i in found.instances] == [f"p{n}:g{n}" for n in range(count)]
    assert told(found, batch_of((7, 1.0, 7.0), (8, 1.0, 7.9)), 1) == [("p7:g7", 1, 1.0)]


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ({"ids": ("a", "b")}, "ab"),
        ({"ids": ("a", "b"), "area": "east"}, "a"),
        ({"area": "east"}, "a"),
        ({"quantity": "dust"}, "b"),
        ({"device_kind": "vehicle"}, "a"),
        ({"attributes": {"class": "heavy"}}, "a"),
        ({"attributes": {"class": "light"}}, "b"),
        ({"adapter": "x", "ids": ("b",)}, ""),
    ],
)
def test_a_selector_finds_the_points_it_matches_whichever_index_leads_to_them(
    selector, fits
) -> None:
    table = PointTable()
    table.put_device(Device(id="d", kind="vehicle", attributes={"class": "heavy"}))
    points = [
        Point(id="a", quantity="methane", area="east", device="d"),
        Point(id="b", quantity="dust", area="west", attributes={"class": "light"}),
    ]
    for point in points:
        table.put(point)
    rule = Rule("r", "limit", {"value": Selector(**selector)}, {"levels": {"H": 1.0}})
    found = [i.target for i in RuleSet([rule], KINDS, table).instances]
    assert found == list(fits)
    inherited = table.device("d").attributes
    said = [p.id for p in points if rule.inputs["value"].matches(p, *(
        ("vehicle", inherited) if p.device else ("", None)))]  # fmt: skip
    assert found == said, "the index and Selector.matches disagree"


def test_a_restart_with_other_points_matches_the_saved_state_by_name() -> None:
    slow = Rule("gas", "limit", GAS.inputs, GAS.parameters, on_delay_s=5)
    first = RuleSet([slow], KINDS, table_of("a", "b", "c"))
    told(first, batch_of((0, 1.0, 2.0), (1, 1.0, 2.0)), 1)
    second = RuleSet([slow], KINDS, table_of("c", "b", "new"))
    second.load(first.save())
    assert told(second, Batch.empty(), 6) == [("b:gas", 1, 6.0)]


def test_names_saved_after_points_were_added_are_those_of_all_rows() -> None:
    table = table_of("a")
    rules = RuleSet([GAS], KINDS, table)
    rules.evaluate(batch_of((0, 1.0, 2.0)), at_ns(1))
    assert rules.save()["points/id"].tolist() == [b"a"]
    table.put(Point(id="longer.name", quantity="methane"))
    rules.refresh()
    rules.evaluate(batch_of((1, 2.0, 2.0)), at_ns(2))
    saved = rules.save()
    assert saved["points/id"].tolist() == [b"a", b"longer.name"]
    assert saved["0:limit/instance/key"].tolist() == [b"a:gas", b"longer.name:gas"]
    assert saved["0:limit/instance/levels"].tolist() == [b"H", b"H"]


def test_a_site_wide_calculation_needs_no_group_in_its_id() -> None:
    rule = Rule(
        "sum", "calculation", {"a": Selector(ids=("a",)), "b": Selector(ids=("b",))},
        {"expression": "a + b", "id": "total", "quantity": "total"}, group_by=GroupBy.SITE,
    )  # fmt: skip
    table = table_of("a", "b")
    rules = RuleSet([rule], KINDS, table)
    (point,) = rules.derived_points()
    table.put(point)
    rules.refresh()
    found = rules.evaluate(batch_of((0, 1.0, 2.0), (1, 1.0, 3.0)), at_ns(1))
    assert (found.derived.value.tolist(), rules.derived_points()) == ([5.0], [])


# ------------------------------------------------------------------ the word of an earlier life

TWO = Rule(
    "two",
    "limit",
    {"value": Selector(quantity="methane")},
    {"levels": {"H": 1.0, "HH": 2.0}},
    on_delay_s=2,
    off_delay_s=3,
)
H, HH = 1, 2
# (levels before, the word, values that follow by second, what is told of them)
WORDS = [
    (0.1, H, [(20, 0.1), (24, 0.1)], [(0, 23.0)]),  # over with its next sample, not without one
    (0.1, H, [(20, 1.5)], []),
    (0.1, HH, [(20, 1.5), (24, 1.5)], [(H, 23.0)]),
    (1.5, 0, [(20, 1.5)], [(H, 12.0)]),  # it lasts: raised again, the delay from the word on
    (1.5, 0, [(20, 1.5), (24, 1.5)], [(H, 12.0)]),
    (1.5, 0, [(11, 0.1), (20, 0.1)], []),
    (2.5, H, [(20, 2.5)], [(HH, 12.0)]),
    (2.5, HH, [(20, 2.5)], []),
]


@pytest.mark.parametrize(("before", "word", "then", "expected"), WORDS)
def test_the_core_stands_by_the_word_and_goes_on_from_there(before, word, then, expected) -> None:
    rules = RuleSet([TWO], KINDS, table_of("b", "a"))
    told(rules, batch_of((1, 1.0, before)), 1)
    told(rules, batch_of((1, 8.0, before)), 8)
    level = rules.current_levels()
    position = next(n for n, i in enumerate(rules.instances) if i.alarm_key == "a:two")
    changes = [int(level[position]) != word]
    level[position] = word
    taken = rules.take_word(level, np.full(len(level), at_ns(10)))
    assert taken.tolist() == [position] * sum(changes)
    assert rules.current_levels().tolist() == level.tolist()
    told(rules, Batch.empty(), 10.5)
    found = [
        change for at_s, value in then for change in told(rules, batch_of((1, at_s, value)), at_s)
    ]
    assert found == [("a:two", level, at_s) for level, at_s in expected]


def test_what_was_over_by_a_sample_that_is_lost_is_over_until_the_next_one() -> None:
    """The disk had not taken the sample; its device sends it again."""
    rules = RuleSet([GAS], KINDS, table_of("a"))
    assert told(rules, batch_of((0, 8.0, 1.5)), 8) == [("a:gas", 1, 8.0)]
    rules.take_word(np.zeros(1, np.uint8), np.array([at_ns(10)]))
    assert told(rules, Batch.empty(), 12) == []
    assert told(rules, batch_of((0, 10.0, 0.1)), 13) == []
    assert told(rules, batch_of((0, 14.0, 1.5)), 14) == [("a:gas", 1, 14.0)]
