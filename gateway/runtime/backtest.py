"""`hazard-gateway backtest`: what another rule set would have raised over stored history.

                         ┌─▶ site's own rules ─▶ book ─▶ episodes ─┐
    store ─by receipt─▶ ─┤                                         ├─▶ matched ─▶ differences
                         └─▶ rules of --rules ─▶ book ─▶ episodes ─┘      └─▶ KPIs of both

Every batch is read and converted once and judged by both sets with the live core (rerun.py); an
**episode** is one activation of one alarm with its return. Two episodes of one alarm key that touch
are the same; what has no partner is added or gone. A set that is given only some sections has the
site's own for the rest: `--rules` with one `[[pack_override]]` compares just that.

Judged from `warm_up_s` before `from` on, so that what stood at `from` stands; only what begins in
[from, to) counts. Nobody acknowledges anything in a back-test, and nothing is shelved.

Memory: one batch, and one row for each event.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alarm_rules.ruleset import check_rules
from gateway.alarms.columns import event_columns
from gateway.alarms.kpi import kpi
from gateway.config import SiteConfig, load
from gateway.model.alarm import AlarmEvent, Transition
from gateway.model.errors import ConfigError, Fault
from gateway.model.point import PointTable
from gateway.runtime.checking import kinds_of, load_site
from gateway.runtime.core import NS_PER_S
from gateway.runtime.instants import rfc3339, span
from gateway.runtime.plugins import Plugins, load_plugins
from gateway.runtime.replay import Progress
from gateway.runtime.rerun import (
    Judging,
    LateFilter,
    Step,
    derived_mask,
    open_points,
    open_scan,
    steps,
)
from gateway.runtime.siterules import site_rules

WARM_UP_S = 86_400.0
CHANGES_MAX = 1_000  # differences listed one by one; the tables count all of them
SECTIONS = {"packs": "packs", "pack_override": "pack_overrides", "rule": "rules"}
SETS = ("site", "other")


@dataclass(frozen=True)
class BacktestOptions:
    """What the command line says."""

    config: Path
    rules: Path
    from_ns: int
    to_ns: int
    as_json: bool = False
    warm_up_s: float = WARM_UP_S


@dataclass(slots=True)
class Episode:
    """One activation of one alarm and what came of it."""

    begin_ns: int
    level: str  # the most severe one, by priority and then by the newest
    priority: int
    end_ns: int | None = None  # None: still active at the end
    announced: bool = False  # a person was called

    def seconds(self, to_ns: int) -> float:
        return ((self.end_ns if self.end_ns is not None else to_ns) - self.begin_ns) / NS_PER_S


@dataclass
class Raised:
    """Everything one rule set raised."""

    episodes: dict[str, list[Episode]] = field(default_factory=lambda: defaultdict(list))
    events: list[AlarmEvent] = field(default_factory=list)
    rule_of: dict[str, str] = field(default_factory=dict)
    target_of: dict[str, str] = field(default_factory=dict)

    def take(self, events: Sequence[AlarmEvent]) -> None:
        self.events += events
        for event in events:
            alarm = event.alarm
            key = alarm.alarm_key
            mine = self.episodes[key]
            if event.transition is Transition.ACTIVATED:
                self.rule_of[key], self.target_of[key] = alarm.rule_id, alarm.target
                mine.append(Episode(event.time_ns, alarm.level, int(alarm.priority)))
            if not mine:
                continue
            last = mine[-1]
            last.announced |= event.annunciate
            if event.transition is Transition.ESCALATED:
                last.level, last.priority = alarm.level, min(last.priority, int(alarm.priority))
            elif event.transition is Transition.RETURNED:
                last.end_ns = event.time_ns

    def within(self, from_ns: int, to_ns: int) -> dict[str, list[Episode]]:
        """The episodes that touch [from, to)."""
        found = {}
        for key, episodes in self.episodes.items():
            inside = [
                each
                for each in episodes
                if each.begin_ns < to_ns and (each.end_ns is None or each.end_ns >= from_ns)
            ]
            if inside:
                found[key] = inside
        return found


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. Seconds are of the other set against the site's: less than 0 is earlier."""

    what: str  # added, gone, changed
    alarm_key: str
    rule: str
    target: str
    begin_ns: int  # with the site's rules where it has one
    site: Episode | None
    other: Episode | None
    begins_s: float = 0.0
    ends_s: float = 0.0
    lasts_s: float = 0.0


@dataclass
class Tally:
    """Differences of one rule, one point, or all."""

    raised_site: int = 0
    raised_other: int = 0
    same: int = 0
    added: int = 0
    gone: int = 0
    earlier: int = 0
    later: int = 0
    longer: int = 0
    shorter: int = 0
    level: int = 0  # of the same episode, another most severe level
    active_s_site: float = 0.0
    active_s_other: float = 0.0
    earlier_s: float = 0.0  # sums
    later_s: float = 0.0

    def row(self) -> dict[str, Any]:
        return {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in vars(self).items()
        }


@dataclass
class Comparison:
    """What both sets raised, side by side."""

    total: Tally = field(default_factory=Tally)
    rules: dict[str, Tally] = field(default_factory=dict)
    targets: dict[str, Tally] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)


@dataclass
class Backtest:
    """The result of one run."""

    options: BacktestOptions
    rule_counts: dict[str, int]
    rows: int = 0
    late: int = 0
    raised: dict[str, Raised] = field(default_factory=dict)
    comparison: Comparison = field(default_factory=Comparison)
    spent_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    notes: list[str] = field(default_factory=list)


def run_backtest(options: BacktestOptions) -> int:
    """Prints the comparison. Raises ConfigError, Unavailable, Refused."""
    plugins = load_plugins()
    config = load_site(options.config, plugins)
    other = other_site(config, plugins, options.rules)
    result = backtest(config, other, plugins, options)
    lines = [json.dumps(report(result))] if options.as_json else _text(result)
    for note in result.notes:
        sys.stderr.write(f"{note}\n")
    for line in lines:
        sys.stdout.write(f"{line}\n")
    return 0


# ---------------------------------------------------------------------- the other rule set


def other_site(config: SiteConfig, plugins: Plugins, path: Path) -> SiteConfig:
    """The site with the sections of `path` in the place of its own. Raises ConfigError with the
    faults of that file."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        given = tomllib.loads(text)
    except OSError as error:
        expected = f"a readable file ({error.strerror})"
        raise ConfigError([Fault(str(path), 0, "", expected)]) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError([Fault(str(path), 0, "", f"TOML in UTF-8: {error}")]) from error
    found = _loaded(config, plugins, path, text, given)
    taken = {SECTIONS[name]: getattr(found, SECTIONS[name]) for name in given if name in SECTIONS}
    if not taken:
        expected = "at least one of packs, [[pack_override]], [[rule]]"
        raise ConfigError([Fault(str(path), 0, "", expected)])
    other = config.model_copy(update={"path": path, **taken})
    rules = site_rules(other, plugins.rule_kinds)
    faults = [*rules.faults]
    faults += [replace(f, file=str(path)) for f in check_rules(rules.rules, plugins.rule_kinds)]
    if faults:
        raise ConfigError(faults)
    return other


def _loaded(
    config: SiteConfig, plugins: Plugins, path: Path, text: str, given: Mapping[str, Any]
) -> SiteConfig:
    """Read by the reader of site files, which wants a site: what is missing is put around the text,
    and faults are told with the lines of the file as it stands."""
    before = ""
    if "packs" not in given:
        before = f"packs = {json.dumps(list(config.packs))}\n"
    after = ""
    if "site" not in given:
        after = f'\n[site]\ntenant = "{config.site.tenant}"\nid = "{config.site.id}"\n'
    with tempfile.TemporaryDirectory(prefix="hazard-gateway-rules-") as folder:
        whole = Path(folder) / path.name
        whole.write_text(before + text + after, encoding="utf-8")
        try:
            return load(whole, kinds_of(plugins))
        except ConfigError as error:
            shift = before.count("\n")
            raise ConfigError(
                [
                    replace(fault, file=str(path), line=max(0, fault.line - shift))
                    for fault in error.faults
                ]
            ) from error


# ---------------------------------------------------------------------- judging


def backtest(
    config: SiteConfig, other: SiteConfig, plugins: Plugins, options: BacktestOptions
) -> Backtest:
    """Judge stored history with both rule sets. Blocks."""
    if options.from_ns >= options.to_ns:
        raise ConfigError([Fault("--to", 0, "", "a time after --from")])
    rules = {
        name: site_rules(each, plugins.rule_kinds).rules
        for name, each in zip(SETS, (config, other), strict=True)
    }
    result = Backtest(options, {name: len(each) for name, each in rules.items()})
    with (
        open_points(config, [rule for each in rules.values() for rule in each]) as points,
        open_scan(config, plugins, points) as scan,
    ):
        if getattr(scan, "is_copy", False):
            result.notes.append("the gateway has the history open: a copy of it is judged")
        judgings = {name: Judging(config, plugins, each, points) for name, each in rules.items()}
        start_ns = options.from_ns - int(options.warm_up_s * NS_PER_S)
        for name in SETS:
            result.raised[name] = Raised()
        _judge(result, points, scan.batches(start_ns, options.to_ns), judgings, config)
    site, theirs = (result.raised[name] for name in SETS)
    result.comparison = compare(site, theirs, options.from_ns, options.to_ns)
    return result


def _judge(
    result: Backtest,
    points: PointTable,
    batches: Iterator[Any],
    judgings: Mapping[str, Judging],
    config: SiteConfig,
) -> None:
    options, spent = result.options, result.spent_s
    lateness_ns = int(config.judging.lateness_s * NS_PER_S)
    late = LateFilter(len(points))
    derived = derived_mask(points, list(judgings.values()))
    any_derived = bool(derived.any())
    progress = Progress("backtest")
    whole_ns = options.to_ns - options.from_ns
    is_first = True
    clock = time.perf_counter()
    for step in steps(batches, lateness_ns, late):
        batch = step.batch
        if any_derived and len(batch):
            is_input = ~derived[batch.point_index]
            if not is_input.all():
                batch = batch.take(is_input)
                step = Step(batch, step.known_ns)
        spent["reading"] += time.perf_counter() - clock
        if is_first and len(batch):
            is_first = False
            for judging in judgings.values():
                judging.begin(int(batch.source_time_ns.min()))
        for known_ns, outline in step.pieces():
            for name, judging in judgings.items():
                clock = time.perf_counter()
                result.raised[name].take(judging.judge(batch, known_ns, outline))
                spent[f"judging_{name}"] += time.perf_counter() - clock
        result.rows += len(batch)
        share = (step.known_ns - options.from_ns) / whole_ns
        progress.show(share, sum(len(each.events) for each in result.raised.values()))
        clock = time.perf_counter()
    for name, judging in judgings.items():
        if not is_first:
            result.raised[name].take(judging.settle(options.to_ns))
    result.late = late.late_count
    progress.end()


# ---------------------------------------------------------------------- comparing


def compare(site: Raised, other: Raised, from_ns: int, to_ns: int) -> Comparison:
    """Episodes of both, matched; what begins before `from_ns` in both counts in neither."""
    found = Comparison()
    ours, theirs = site.within(from_ns, to_ns), other.within(from_ns, to_ns)
    for key in sorted(ours.keys() | theirs.keys()):
        rule = site.rule_of.get(key) or other.rule_of[key]
        target = site.target_of.get(key) or other.target_of[key]
        tallies = (
            found.total,
            found.rules.setdefault(rule, Tally()),
            found.targets.setdefault(target, Tally()),
        )
        for mine, its in matched(ours.get(key, []), theirs.get(key, [])):
            begins = [each.begin_ns for each in (mine, its) if each is not None]
            if max(begins) < from_ns:
                continue
            change = _change((key, rule, target), mine, its, to_ns)
            for tally in tallies:
                _count(tally, change, to_ns)
            if change.what != "same":
                found.changes.append(change)
    found.changes.sort(key=lambda change: (change.begin_ns, change.alarm_key))
    return found


def matched(
    ours: Sequence[Episode], theirs: Sequence[Episode]
) -> Iterator[tuple[Episode | None, Episode | None]]:
    """Pairs of episodes that touch, each at most once, and those without a partner."""
    i = j = 0
    while i < len(ours) and j < len(theirs):
        mine, its = ours[i], theirs[j]
        if mine.end_ns is not None and mine.end_ns < its.begin_ns:
            yield mine, None
            i += 1
        elif its.end_ns is not None and its.end_ns < mine.begin_ns:
            yield None, its
            j += 1
        else:
            yield mine, its
            i, j = i + 1, j + 1
    yield from ((mine, None) for mine in ours[i:])
    yield from ((None, its) for its in theirs[j:])


def _change(
    names: tuple[str, str, str], mine: Episode | None, its: Episode | None, to_ns: int
) -> Change:
    if mine is None or its is None:
        only = mine or its
        assert only is not None, "a pair of nothing"
        lasts = only.seconds(to_ns)
        return Change(
            "gone" if mine else "added",
            *names, only.begin_ns, mine, its,
            lasts_s=-lasts if mine else lasts,
        )  # fmt: skip
    begins_s = (its.begin_ns - mine.begin_ns) / NS_PER_S
    ends_s = 0.0
    if mine.end_ns is not None or its.end_ns is not None:
        ends_s = ((its.end_ns or to_ns) - (mine.end_ns or to_ns)) / NS_PER_S
    is_same = not begins_s and not ends_s and mine.level == its.level
    return Change(
        "same" if is_same else "changed",
        *names, mine.begin_ns, mine, its, begins_s, ends_s,
        its.seconds(to_ns) - mine.seconds(to_ns),
    )  # fmt: skip


def _count(tally: Tally, change: Change, to_ns: int) -> None:
    if change.site is not None:
        tally.raised_site += 1
        tally.active_s_site += change.site.seconds(to_ns)
    if change.other is not None:
        tally.raised_other += 1
        tally.active_s_other += change.other.seconds(to_ns)
    if change.what != "changed":
        setattr(tally, change.what, getattr(tally, change.what) + 1)
        return
    assert change.site is not None, "a changed episode has two sides"
    assert change.other is not None, "a changed episode has two sides"
    tally.earlier += change.begins_s < 0
    tally.later += change.begins_s > 0
    tally.earlier_s += max(0.0, -change.begins_s)
    tally.later_s += max(0.0, change.begins_s)
    tally.longer += change.lasts_s > 0
    tally.shorter += change.lasts_s < 0
    tally.level += change.site.level != change.other.level


# ---------------------------------------------------------------------- telling


def report(result: Backtest) -> dict[str, Any]:
    """Everything, for scripts."""
    options, found = result.options, result.comparison
    return {
        "from": rfc3339(options.from_ns),
        "to": rfc3339(options.to_ns),
        "from_ns": options.from_ns,
        "to_ns": options.to_ns,
        "samples": result.rows,
        "late_samples": result.late,
        "seconds": {name: round(value, 3) for name, value in result.spent_s.items()},
        **{
            name: {
                "rules": result.rule_counts[name],
                "raised": getattr(found.total, f"raised_{name}"),
                "kpi": kpis(result.raised[name], options),
            }
            for name in SETS
        },
        "difference": found.total.row(),
        "by_rule": {name: tally.row() for name, tally in sorted(found.rules.items())},
        "by_target": {name: tally.row() for name, tally in sorted(found.targets.items())},
        "changes": [_change_row(change) for change in found.changes[:CHANGES_MAX]],
        "changes_left_off": max(0, len(found.changes) - CHANGES_MAX),
    }


def kpis(raised: Raised, options: BacktestOptions) -> dict[str, Any]:
    """The alarm KPIs an operator's position would have had. Nobody acknowledged anything, and how
    fast a past alarm was found says nothing: the figures of that are left out."""
    columns = event_columns(raised.events)
    found = kpi(columns, from_ns=options.from_ns, to_ns=options.to_ns).to_json()
    grades = [grade for grade in found.pop("grades") if not grade["name"].startswith("detection")]
    kept = {name: value for name, value in found.items() if not name.startswith("detection")}
    return {**kept, "grades": grades}


def _change_row(change: Change) -> dict[str, Any]:
    def episode(each: Episode | None) -> dict[str, Any] | None:
        if each is None:
            return None
        end_ns = each.end_ns
        return {
            "begin": rfc3339(each.begin_ns),
            "begin_ns": each.begin_ns,
            "end": None if end_ns is None else rfc3339(end_ns),
            "end_ns": end_ns,
            "level": each.level,
            "priority": each.priority,
            "announced": each.announced,
        }

    return {
        "what": change.what,
        "alarm_key": change.alarm_key,
        "rule": change.rule,
        "target": change.target,
        "begins_s": change.begins_s,
        "ends_s": change.ends_s,
        "lasts_s": round(change.lasts_s, 9),
        "site": episode(change.site),
        "other": episode(change.other),
    }


def _text(result: Backtest) -> Iterator[str]:
    """For a person."""
    options, found = result.options, result.comparison
    total = found.total
    days = (options.to_ns - options.from_ns) / NS_PER_S / 86_400
    when = f"{rfc3339(options.from_ns)} to {rfc3339(options.to_ns)}"
    yield f"{when}, {days:.4g} days, {result.rows:,} samples"
    yield (
        f"raised: {total.raised_site} with the site's rules, "
        f"{total.raised_other} with {options.rules}"
    )
    yield (
        f"        {total.added} added, {total.gone} no longer raised, {total.earlier} earlier, "
        f"{total.later} later, {total.longer} longer, {total.shorter} shorter, "
        f"{total.level} at another level, {total.same} the same"
    )
    yield from _kpi_lines(result)
    yield ""
    yield from _table("rule", found.rules)
    yield ""
    yield from _table("about", found.targets, rows_max=20)
    if found.changes:
        yield ""
        yield "first differences:"
        yield from (f"  {_sentence(change)}" for change in found.changes[:20])
        if len(found.changes) > 20:
            yield f"  and {len(found.changes) - 20} more: --json has up to {CHANGES_MAX}"
    spent = sum(result.spent_s.values())
    if spent:
        yield ""
        yield f"{result.rows / spent / 1e6:.3g} M samples/s with both rule sets, {spent:.3g} s"


def _kpi_lines(result: Backtest) -> Iterator[str]:
    site, other = (kpis(result.raised[name], result.options) for name in SETS)
    yield ""
    yield f"{'alarm KPI':<24}{'site':>12}{'other':>12}{'target':>10}  other is"
    for mine, its in zip(site["grades"], other["grades"], strict=True):
        cells = (_short(mine["value"]), _short(its["value"]))
        yield (
            f"{mine['name']:<24}{cells[0]:>12}{cells[1]:>12}{its['target']:>10g}  {its['verdict']}"
        )


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(word: str, tallies: Mapping[str, Tally], rows_max: int = 1_000) -> Iterator[str]:
    """The most different first."""
    ordered = sorted(
        tallies.items(),
        key=lambda item: (
            -(item[1].added + item[1].gone + item[1].earlier + item[1].later),
            -item[1].raised_site,
            item[0],
        ),
    )
    head = ("site", "other", "added", "gone", "earlier", "later", "active site", "active other")
    yield f"{word:<40}" + "".join(f"{each:>13}" for each in head)
    for name, tally in ordered[:rows_max]:
        cells = (
            *(tally.raised_site, tally.raised_other, tally.added, tally.gone),
            *(tally.earlier, tally.later, span(tally.active_s_site), span(tally.active_s_other)),
        )
        yield f"{name:<40}" + "".join(f"{each!s:>13}" for each in cells)
    if len(ordered) > rows_max:
        yield f"and {len(ordered) - rows_max} more"


def _sentence(change: Change) -> str:
    when = rfc3339(change.begin_ns)[:19] + "Z"
    if change.what == "added":
        return f"{when} {change.alarm_key}: would also be raised, for {span(change.lasts_s)}"
    if change.what == "gone":
        return f"{when} {change.alarm_key}: would not be raised; it lasted {span(-change.lasts_s)}"
    parts = []
    if change.begins_s:
        word = "earlier" if change.begins_s < 0 else "later"
        parts.append(f"{span(abs(change.begins_s))} {word}")
    if change.lasts_s:
        word = "longer" if change.lasts_s > 0 else "shorter"
        parts.append(f"{span(abs(change.lasts_s))} {word}")
    if change.site and change.other and change.site.level != change.other.level:
        parts.append(f"at {change.other.level} instead of {change.site.level}")
    return f"{when} {change.alarm_key}: {', '.join(parts)}"
