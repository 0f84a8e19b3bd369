"""History judged with an outline gives what it gives row by row: no skip hides an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alarm_rules import outline as outline_module
from alarm_rules.kinds import calculation, limit, offline
from alarm_rules.outline import Outline, outline_of
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.condition import Conditions
from gateway.model.point import Device, Point, PointTable
from gateway.model.quality import EARLIEST_BELIEVED_NS, Quality
from gateway.model.rule import GroupBy, Rule, Selector

NS = 1_000_000_000
T0 = 1_700_000_000 * NS
KINDS = {"limit": limit.KIND, "offline": offline.KIND, "calculation": calculation.KIND}
POINTS = 16
ROWS = 40  # of a point in a batch: enough for an outline
STEP_NS = 10 * NS
SPAN_NS = ROWS * STEP_NS
LEVELS = {"H": {"limit": 1.0, "reset": 0.8}, "HH": {"limit": 2.0, "reset": 1.0}, "L": -1.0}
RULES = [
    Rule(
        "gas", "limit", {"value": Selector(quantity="q")}, {"levels": LEVELS},
        on_delay_s=25.0, off_delay_s=15.0,
    ),
    Rule("more", "limit", {"value": Selector(ids=("p1", "p2"))}, {"levels": {"H": 1.5}}),
    Rule("off", "offline", {"value": Selector(quantity="q")}, {"max_age_s": 60.0}),
    Rule(
        "dev", "offline", {"value": Selector(device="d1")},
        {"max_age_s": 35.0, "scope": "device", "needs": "any"},
    ),
    Rule(
        "devgood", "offline", {"value": Selector(device="d2")},
        {"max_age_s": 35.0, "scope": "device", "needs": "good"},
    ),
    Rule(
        "sum", "calculation", {"a": Selector(ids=("p5",)), "b": Selector(ids=("p6",))},
        {"expression": "a + b", "id": "sum", "quantity": "total"}, group_by=GroupBy.SITE,
    ),
    Rule("total", "limit", {"value": Selector(quantity="total")}, {"levels": {"H": 1.5}}),
]  # fmt: skip

SIMPLE = [RULES[0], RULES[2]]
"""With these nothing at all is left of a calm batch."""


def rule_set(
    rules: Sequence[Rule] = RULES, *, interval_s: float = 10.0, lateness_ns: int = 0
) -> RuleSet:
    """p0 to p14 are judged, p15 is not; p2 to p4 are one device, p8 and p9
    another."""
    table = PointTable()
    devices = {2: "d1", 3: "d1", 4: "d1", 8: "d2", 9: "d2"}
    for device in ("d1", "d2"):
        table.put_device(Device(device, "substation"))
    for number in range(POINTS):
        table.put(
            Point(
                id=f"p{number}",
                quantity="q" if number < POINTS - 1 else "other",
                device=devices.get(number, ""),
                interval_s=interval_s,
            )
        )
    found = RuleSet(rules, KINDS, table, lateness_ns=lateness_ns)
    while wanted := found.derived_points():
        for point in wanted:
            table.put(point)
        found.refresh()
    found.evaluate(Batch.empty(), T0)
    return found


Columns = dict[str, np.ndarray[Any, Any]]


def calm(number: int, points: Sequence[int] = range(POINTS)) -> Columns:
    """The columns of a batch in which nothing happens: the `number`th span of each point."""
    point = np.repeat(np.array(points), ROWS)
    time_ns = T0 + number * SPAN_NS + np.tile(np.arange(1, ROWS + 1) * STEP_NS, len(points))
    return {
        "point_index": point,
        "value": 0.1 + 0.05 * np.cos(time_ns / NS + point),
        "quality": np.zeros(len(point), np.uint8),
        "source_time_ns": time_ns,
        "received_time_ns": time_ns + NS // 2,
    }


def batch_of(columns: Columns) -> Batch:
    return Batch.of(
        columns["point_index"], columns["value"], columns["source_time_ns"],
        received_time_ns=columns["received_time_ns"], quality=columns["quality"],
    )  # fmt: skip


def table_of(conditions: Conditions) -> list[tuple[str, ...]]:
    names = ("time_ns", "instance", "level", "began_ns", "value", "limit", "quality", "late")
    columns = [getattr(conditions, name).tolist() for name in names]
    return [tuple(map(str, row)) for row in zip(*columns, strict=True)]


class Both:
    """The same told to two rule sets, one of them with outlines."""

    def __init__(self, rules: Sequence[Rule] = RULES, **more: Any) -> None:
        self.skipped = self.judged = self.history = 0
        self.events: list[tuple[Any, ...]] = []
        self.skipping, self.looking = (
            self._counting(rule_set(rules, **more)),
            rule_set(rules, **more),
        )

    def _counting(self, rules: RuleSet) -> RuleSet:
        real = rules._quiet

        def counted(batch: Batch, outline: Any) -> Any:
            found = real(batch, outline)
            self.skipped += 0 if found is None else found.row_count
            return found

        rules._quiet = counted  # type: ignore[method-assign]
        return rules

    def tell(self, columns: Columns, now_ns: int) -> None:
        batch = batch_of(columns)
        outline = outline_of(batch)
        found = self.skipping.evaluate(batch, now_ns, outline)
        expected = self.looking.evaluate(batch, now_ns)
        for name in (
            *("judged_count", "late_count", "history_count", "ignored_count", "clock_count"),
            *("derived_seen_count", "held_count", "derived"),
        ):
            assert getattr(found, name) == getattr(expected, name), name
        for name in (
            *("time_ns", "instance", "level", "began_ns", "value", "limit", "quality", "late"),
        ):
            np.testing.assert_array_equal(
                getattr(found.conditions, name), getattr(expected.conditions, name), err_msg=name
            )
        self.judged += expected.judged_count
        self.history += expected.history_count
        self.events += zip(
            expected.conditions.instance.tolist(),
            expected.conditions.level.tolist(),
            expected.conditions.time_ns.tolist(),
            strict=True,
        )

    def tell_in_pieces(self, columns: Columns, now_ns: int) -> int:
        """As a back-test does where it may; returns how many pieces it were."""
        batch = batch_of(columns)
        outline = outline_of(batch)
        expected = self.looking.evaluate(batch, now_ns)
        parts: list[tuple[int, Outline | None]] = [(now_ns, None)]
        is_flagged = bool((batch.quality == Quality.UNCERTAIN_CLOCK).any())
        if outline is not None and outline.is_own_time and outline.is_in_order.all():
            outline = outline.uncut() if is_flagged else outline
            parts = [
                (now_ns if end is None else min(end - 1, now_ns), d) for d, end in outline.pieces()
            ]
        found = [self.skipping.evaluate(batch, known_ns, part) for known_ns, part in parts]
        for name in ("judged_count", "late_count", "history_count", "ignored_count"):
            assert sum(getattr(each, name) for each in found) == getattr(expected, name), name
        told = [row for each in found for row in table_of(each.conditions)]
        assert sorted(told) == sorted(table_of(expected.conditions))
        self.judged += expected.judged_count
        self.events += told
        return len(parts)

    def check_end(self) -> None:
        """What stands and what is remembered is the same, and so is what a silence then gives."""
        saved, wanted = self.skipping.save(), self.looking.save()
        assert saved.keys() == wanted.keys()
        for name in wanted:
            np.testing.assert_array_equal(saved[name], wanted[name], err_msg=name)

    def restart(self) -> None:
        skipping, looking = self._counting(rule_set()), rule_set()
        skipping.load(self.skipping.save())
        looking.load(self.looking.save())
        self.skipping, self.looking = skipping, looking


# ---------------------------------------------------------------------- what a skip could hide


def at(point: int, row: int, **change: Any) -> Callable[[Columns], None]:
    """One row of a batch, changed."""

    def apply(columns: Columns) -> None:
        for name, value in change.items():
            columns[name][point * ROWS + row] = value

    return apply


def shift(point: int, row: int, by_ns: int, *, rows: int = ROWS) -> Callable[[Columns], None]:
    """Rows of a point, later by that much."""

    def apply(columns: Columns) -> None:
        chosen = slice(point * ROWS + row, min((point + 1) * ROWS, point * ROWS + row + rows))
        columns["source_time_ns"][chosen] += by_ns
        columns["received_time_ns"][chosen] = np.maximum(
            columns["received_time_ns"][chosen], columns["source_time_ns"][chosen]
        )

    return apply


def ahead(point: int, by_ns: int) -> Callable[[Columns], None]:
    """A point whose clock is ahead of receipt."""

    def apply(columns: Columns) -> None:
        columns["source_time_ns"][point * ROWS : (point + 1) * ROWS] += by_ns

    return apply


CALIBRATING, FAULT, CLOCK = (
    int(each)
    for each in (Quality.UNCERTAIN_CALIBRATING, Quality.BAD_SENSOR_FAULT, Quality.UNCERTAIN_CLOCK)
)


def _all(*changes: Callable[[Columns], None]) -> Callable[[Columns], None]:
    def apply(columns: Columns) -> None:
        for change in changes:
            change(columns)

    return apply


def _many(point: int, row: int, count: int, **change: Any) -> Callable[[Columns], None]:
    return _all(*(at(point, row + step, **change) for step in range(count)))


SEEN = [
    ("a value at the limit, for its delay", _many(0, 10, 4, value=1.0)),
    ("a value at the lower limit, for its delay", _many(3, 10, 4, value=-1.0)),
    ("one value beyond the limit of a second rule on the point", at(1, 20, value=1.5)),
    ("the first row", at(1, 0, value=2.0)),
    ("the last row", at(2, ROWS - 1, value=2.0)),
    ("an infinite value", at(1, 5, value=np.inf)),
    ("the other infinite value, for its delay", _many(0, 5, 4, value=-np.inf)),
    ("a silence of exactly the span", shift(0, 20, 50 * NS)),
    ("bad values for the span", _many(0, 10, 6, quality=FAULT)),
    ("no numbers for the span", _many(0, 10, 6, value=np.nan)),
    ("bad infinite values for the span", _many(0, 10, 6, quality=FAULT, value=np.inf)),
    ("a calculated value beyond its limit", at(5, 7, value=1.45)),
    (
        "a device silent while every point of it is",
        _all(*(shift(p, 20, 40 * NS) for p in (2, 3, 4))),
    ),
    ("beyond the limit under calibration", _many(1, 9, 4, value=1.6, quality=CALIBRATING)),
]
UNSEEN = [
    ("just inside the limit", _many(0, 10, 4, value=np.nextafter(1.0, 0.0))),
    ("just inside the lower limit", _many(0, 10, 4, value=np.nextafter(-1.0, 0.0))),
    ("a silence just shorter than the span", shift(0, 20, 50 * NS - 1)),
    ("a device one point of which goes on", _all(*(shift(p, 20, 40 * NS) for p in (2, 3)))),
    ("a device one point of which goes on with bad values", _all(
        *(shift(p, 20, 40 * NS) for p in (2, 3)), _many(4, 20, 4, quality=FAULT),
    )),
    ("a device one point of which is bad for a while", _many(8, 20, 4, quality=FAULT)),
    ("two rows of one time", shift(0, 20, -STEP_NS, rows=1)),
    ("a row older than the one before it", shift(0, 20, -STEP_NS - 1, rows=1)),
    ("a point no rule asks for", at(15, 20, value=99.0)),
    ("a clock of 1999", at(0, 0, source_time_ns=EARLIEST_BELIEVED_NS - 1)),
    ("a clock that is flagged", at(0, 20, quality=CLOCK)),
    ("a clock eight seconds ahead", ahead(0, 8 * NS)),
    ("a clock far ahead", at(0, 39, source_time_ns=T0 + 10**6 * NS)),
    ("calibrating inside the band", _many(0, 10, 3, quality=CALIBRATING)),
    ("a bad value", at(0, 10, quality=FAULT)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "is_seen"),
    [pytest.param(change, True, id=name) for name, change in SEEN]
    + [pytest.param(change, False, id=name) for name, change in UNSEEN],
)
def test_what_happens_in_one_row_of_a_calm_history_is_not_skipped(
    change: Callable[[Columns], None], is_seen: bool
) -> None:
    both = Both()
    both.tell(calm(0), T0 + SPAN_NS)
    assert both.events == []
    columns = calm(1)
    change(columns)
    skipped = both.skipped
    both.tell(columns, T0 + 2 * SPAN_NS)
    assert both.skipped > skipped, "nothing was skipped: this shows nothing"
    assert bool(both.events) is is_seen
    both.tell(calm(2), T0 + 3 * SPAN_NS)
    both.check_end()


def test_a_calm_history_is_skipped_whole_but_for_what_is_calculated() -> None:
    both = Both()
    both.tell(calm(0), T0 + SPAN_NS)
    assert both.skipped == 0, "points never heard before were skipped"
    both.tell(calm(1), T0 + 2 * SPAN_NS)
    assert both.skipped == (POINTS - 3) * ROWS
    assert both.events == []


def test_stored_samples_of_a_calculated_point_are_seen_and_not_judged() -> None:
    both = Both()
    both.tell(calm(0), T0 + SPAN_NS)
    columns = calm(1, range(POINTS + 1))  # the one behind the site's own
    skipped = both.skipped
    both.tell(columns, T0 + 2 * SPAN_NS)
    assert both.skipped > skipped
    assert both.events == []
    both.check_end()


def test_two_runs_of_a_point_in_one_batch_are_both_looked_at() -> None:
    both = Both()
    both.tell(calm(0), T0 + SPAN_NS)
    first, second = calm(1), calm(2)
    second["source_time_ns"][:ROWS] += 50 * NS  # a silence between the runs, in neither of them
    second["received_time_ns"] += 60 * NS
    both.tell(
        {name: np.concatenate([first[name], second[name]]) for name in first},
        T0 + 3 * SPAN_NS,
    )
    assert len(both.events) == 2
    both.check_end()


def test_a_run_that_comes_back_older_is_late() -> None:
    """Neither a rule nor the memory of holes minds a silence here."""
    both = Both([replace(RULES[2], parameters={"max_age_s": 3600.0}), RULES[0]], interval_s=900.0)
    both.tell(calm(0), T0 + SPAN_NS)
    newer, older = calm(2), calm(1)
    both.tell(
        {name: np.concatenate([newer[name], older[name]]) for name in newer}, T0 + 3 * SPAN_NS
    )
    both.check_end()


@pytest.mark.parametrize("older_ns", [0, NS, STEP_NS])
def test_a_tick_after_a_skipped_stretch_is_late_where_the_stretch_was_newer(older_ns: int) -> None:
    both = Both(SIMPLE)
    both.tell(calm(0), T0 + SPAN_NS)
    for number, at_ns in enumerate((T0 + SPAN_NS, T0 + 2 * SPAN_NS)):
        tick = {name: column[::ROWS].copy() for name, column in calm(0).items()}
        tick["source_time_ns"][:] = tick["received_time_ns"][:] = at_ns + NS - number * older_ns
        both.tell(tick, at_ns + NS)
        stretch = calm(number + 1)
        for name in ("source_time_ns", "received_time_ns"):
            stretch[name] += 2 * NS
        skipped = both.skipped
        if number == 0:
            both.tell(stretch, at_ns + SPAN_NS + 2 * NS)
            assert both.skipped > skipped
    both.check_end()


def test_with_a_lateness_rows_wait_in_the_reorder_buffer_all_the_same() -> None:
    both = Both(lateness_ns=20 * NS)
    for number in range(3):
        columns = calm(number)
        at(0, 30, value=2.5)(columns)
        both.tell(columns, T0 + (number + 1) * SPAN_NS)
    both.check_end()


@pytest.mark.parametrize(
    ("standing", "value", "ends"),
    [(1.2, 0.9, False), (1.2, 0.8, False), (1.2, np.nextafter(0.8, 0.0), True), (2.5, 0.9, True)],
)
def test_a_standing_level_ends_where_it_resets_although_every_value_is_below_its_limit(
    standing: float, value: float, ends: bool
) -> None:
    both = Both()
    both.tell(calm(0), T0 + SPAN_NS)
    raised = calm(1)
    raised["value"][:ROWS] = standing
    both.tell(raised, T0 + 2 * SPAN_NS)
    after = calm(2)
    after["value"][:ROWS] = (standing + 0.01) if standing < 2 else standing
    after["value"][5 : 5 + 4] = value
    count = len(both.events)
    both.tell(after, T0 + 3 * SPAN_NS)
    assert (len(both.events) > count) is ends
    assert both.skipped
    both.check_end()


def test_a_delay_that_began_before_a_calm_stretch_ends_in_it() -> None:
    both = Both()
    first = calm(0)
    first["value"][ROWS - 1] = 1.3  # p0, in the last row: the delay of 25 s is still to run
    both.tell(first, T0 + SPAN_NS)
    assert both.events == []
    second = calm(1)
    second["value"][:ROWS] = 1.3
    both.tell(second, T0 + 2 * SPAN_NS)
    assert [(level, (at_ns - T0 - SPAN_NS) / NS) for _, level, at_ns in both.events] == [(2, 25.0)]
    assert both.skipped >= 8 * ROWS
    both.check_end()


def test_a_silence_after_a_skipped_stretch_counts_from_its_last_row() -> None:
    both = Both()
    both.tell(calm(0), T0 + SPAN_NS)
    both.tell(calm(1), T0 + 2 * SPAN_NS)
    both.tell(calm(2, range(1, POINTS)), T0 + 3 * SPAN_NS)
    silent = [at_ns - T0 - 2 * SPAN_NS for _, _, at_ns in both.events]
    assert silent == [60 * NS]
    both.tell(calm(3), T0 + 4 * SPAN_NS)
    assert len(both.events) == 2
    both.check_end()


@pytest.mark.parametrize(("silence_s", "is_hole"), [(61, True), (60, False)])
def test_a_hole_before_a_calm_stretch_can_be_filled_later(silence_s: int, is_hole: bool) -> None:
    """No rule minds the silence of these points: only the memory of holes does."""
    lenient = [replace(RULES[2], parameters={"max_age_s": 3600.0}), RULES[0]]
    both = Both(lenient)
    both.tell(calm(0), T0 + SPAN_NS)
    later = calm(1)
    for name in ("source_time_ns", "received_time_ns"):
        later[name][: 2 * ROWS] += silence_s * NS - STEP_NS
    skipped = both.skipped
    both.tell(later, T0 + 2 * SPAN_NS + 60 * NS)
    assert both.skipped > skipped
    filling = {name: column[:4].copy() for name, column in calm(1).items()}
    filling["value"][:] = 1.6
    judged = both.judged
    both.tell(filling, T0 + 2 * SPAN_NS + 60 * NS)
    assert (both.history > 0) is is_hole
    assert both.judged == judged
    both.check_end()


# ---------------------------------------------------------------------- random histories


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[tuple[float, float]]]:
    """A seed, and of each batch how much happens in it and how far behind the clock is, seconds."""
    seed = draw(st.integers(0, 2**32 - 1))
    return seed, draw(
        st.lists(
            st.tuples(st.sampled_from([0.0, 0.2, 0.5]), st.sampled_from([0.0, 30.0, -30.0])),
            min_size=3,
            max_size=6,
        )
    )


def disturbed(rng: np.random.Generator, number: int, share: float) -> Columns:
    """A batch in which something happens to some points."""
    columns = calm(number)
    for point in np.flatnonzero(rng.random(POINTS) < share):
        row, count = int(rng.integers(ROWS)), int(rng.integers(1, 9))
        count = min(count, ROWS - row)
        what = int(rng.integers(8))
        if what <= 2:
            value = float(rng.choice([-1.0, 0.8, 0.99, 1.0, 1.5, 2.0, np.inf]))
            _many(point, row, count, value=value)(columns)
        elif what == 3:
            quality = int(rng.choice([FAULT, CALIBRATING, CLOCK, int(Quality.UNCERTAIN)]))
            _many(point, row, count, quality=quality)(columns)
        elif what == 4:
            _many(point, row, count, value=np.nan)(columns)
        elif what == 5:
            shift(point, row, int(rng.choice([20, 25, 49, 50, 51, 300])) * NS)(columns)
        elif what == 6:
            shift(point, row, -int(rng.choice([10, 15, 500])) * NS, rows=count)(columns)
        else:
            at(point, row, source_time_ns=int(rng.choice([0, T0 + 10**6 * NS])))(columns)
    kept = np.ones(len(columns["value"]), np.bool_)
    for point in np.flatnonzero(rng.random(POINTS) < share / 2):  # fewer rows, or none
        begin = point * ROWS + int(rng.integers(ROWS))
        kept[begin : begin + int(rng.integers(2 * ROWS))] = False
    return {name: column[kept] for name, column in columns.items()}


@pytest.mark.slow
@given(histories())
@settings(max_examples=60, deadline=None)
def test_random_histories_give_the_same_with_and_without_outlines(
    history: tuple[int, list[tuple[float, float]]],
) -> None:
    seed, batches = history
    rng = np.random.default_rng(seed)
    both = Both()
    both.tell(calm(0), T0 + SPAN_NS)
    for number, (share, behind_s) in enumerate(batches, 1):
        both.tell(disturbed(rng, number, share), T0 + (number + 1) * SPAN_NS - int(behind_s) * NS)
        if rng.random() < 0.2:
            both.restart()
    both.check_end()


@pytest.mark.slow
@given(histories())
@settings(max_examples=60, deadline=None)
def test_random_histories_give_the_same_in_pieces_of_time(
    history: tuple[int, list[tuple[float, float]]],
) -> None:
    seed, batches = history
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outline_module, "PIECE_ROWS_MIN", 4)
        both = Both()
        assert both.tell_in_pieces(calm(0), T0 + SPAN_NS) > 1
        for number, (share, behind_s) in enumerate(batches, 1):
            now_ns = T0 + (number + 1) * SPAN_NS - int(abs(behind_s)) * NS
            both.tell_in_pieces(disturbed(rng, number, share), now_ns)
        both.tell_in_pieces(calm(len(batches) + 1), T0 + (len(batches) + 2) * SPAN_NS)


def test_a_wrong_clock_is_seen_before_the_timers_of_its_time() -> None:
    """Its rows are judged at receipt: in a piece of their own times they would come behind."""
    columns = calm(1)
    ahead(0, 3600 * NS)(columns)
    outline = outline_of(batch_of(columns))
    assert outline is not None
    assert not outline.is_own_time
    columns = calm(1)
    columns["source_time_ns"][:2] -= T0
    outline = outline_of(batch_of(columns))
    assert outline is not None
    assert not outline.is_own_time
    outline = outline_of(batch_of(calm(1)))
    assert outline is not None
    assert outline.is_own_time


def test_the_random_histories_skip_and_raise() -> None:
    """Else the law above says nothing."""
    rng = np.random.default_rng(7)
    both = Both()
    both.tell(calm(0), T0 + SPAN_NS)
    for number in range(1, 30):
        both.tell(disturbed(rng, number, 0.2), T0 + (number + 1) * SPAN_NS)
    assert both.skipped > both.judged // 6
    assert len(both.events) > 50


# ---------------------------------------------------------------------- the outline itself


@pytest.mark.parametrize("piece_rows", [1, 10, 1 << 16])
@pytest.mark.parametrize("block_rows", [1, 64, 1 << 16])
@pytest.mark.parametrize("seed", range(12))
def test_a_outline_says_of_each_run_what_its_rows_say(
    seed: int, block_rows: int, piece_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outline_module, "PIECE_ROWS_MIN", piece_rows)
    monkeypatch.setattr(outline_module, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(outline_module, "RUN_ROWS_MIN", 2)
    rng = np.random.default_rng(seed)
    columns = disturbed(rng, 1, 0.5)
    batch = batch_of(columns)
    found = outline_of(batch)
    assert found is not None
    point = batch.point_index
    edges = [0, *(np.flatnonzero(np.diff(point)) + 1).tolist(), len(point)]
    assert found.start.tolist() == edges[:-1]
    assert found.stop.tolist() == edges[1:]
    for run, (start, stop) in enumerate(pairwise(edges)):
        value, time_ns = batch.value[start:stop], batch.source_time_ns[start:stop]
        received_ns, quality = batch.received_time_ns[start:stop], batch.quality[start:stop]
        steps = np.diff(time_ns).tolist()
        assert found.point[run] == point[start]
        assert found.lag_ns[run] == (received_ns - time_ns).max()
        assert found.ahead_ns[run] == (time_ns - received_ns).max()
        assert found.step_ns[run] == max([0, *steps])
        is_plain = bool((quality < Quality.UNCERTAIN).all()) and not np.isnan(value).any()
        is_plain = is_plain and all(step > 0 for step in steps)
        is_plain = is_plain and bool(time_ns[0] >= EARLIEST_BELIEVED_NS)
        assert found.is_plain[run] == is_plain
        assert found.is_in_order[run] == (
            all(step >= 0 for step in steps) and bool((np.diff(received_ns) >= 0).all())
        )
        of_times = (found.first_received_ns[run], found.last_received_ns[run])
        assert of_times == (received_ns[0], received_ns[-1])
        if is_plain:
            assert (found.least[run], found.most[run]) == (value.min(), value.max())
            assert (found.first_ns[run], found.last_ns[run]) == (time_ns[0], time_ns[-1])
    if found.finer is not None and found.is_in_order.all():
        pieces = list(found.pieces())
        assert sum(each.row_count for each, _ in pieces) == len(batch)
        begin_ns = -(1 << 62)
        for each, end_ns in pieces:
            time_ns = each.taken(batch).source_time_ns
            assert time_ns.min() >= begin_ns
            begin_ns = 1 << 62 if end_ns is None else end_ns
            assert time_ns.max() < begin_ns
    half = slice(len(found) // 2, None)
    part, rows = found.part(half), slice(int(found.start[half][0]), None)
    again = outline_of(batch.take(rows))
    assert again is not None
    for name in ("start", "stop", "point", "is_plain", "is_in_order", "step_ns", "lag_ns"):
        assert getattr(part, name).tolist() == getattr(again, name).tolist(), name
    if part.finer is not None:
        assert part.finer.start.min() == 0
        assert part.finer.row_count == part.row_count
    chosen = rng.random(len(found)) < 0.5
    owner = np.repeat(np.arange(len(found)), found.stop - found.start)
    assert found.rows(chosen).tolist() == np.flatnonzero(chosen[owner]).tolist()


def test_a_row_received_before_the_one_before_it_is_seen_wherever_runs_are_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outline_module, "PIECE_ROWS_MIN", 4)
    for row in range(1, ROWS):
        columns = calm(0)
        columns["received_time_ns"][row:ROWS] -= STEP_NS + 1
        found = outline_of(batch_of(columns))
        assert found is not None
        assert found.finer is not None
        assert found.is_in_order.tolist() == [False] + [True] * (POINTS - 1), row


def test_rows_in_order_of_arrival_have_no_outline() -> None:
    columns = calm(0)
    order = np.argsort(columns["source_time_ns"], kind="stable")
    assert outline_of(batch_of({name: column[order] for name, column in columns.items()})) is None
    assert outline_of(Batch.empty()) is None
