"""`hazard-gateway explain`: why a point did or did not alarm at a moment.

    samples of the point, of what is judged with it, of what is computed from it
       └─▶ the core, from `window` before the moment up to it ─▶ its own saved state ─▶ words

The verdict is the core's: history is judged again, the state of the rule core is saved as for a
restart, and the rows of that state are read out: raw condition, since when, output after delays.
Nothing here compares a value with a limit.

Rules above the point belong to the answer: those of points computed from it, and those that judge
its rules (combinations). Rules that do not match it are told with the first selector field that
differs. What people did (shelved, out of service, acknowledged) comes from the site's journal.

Surprising: judged begins anew at the window's start. An alarm that stood before it and whose value
has stayed between reset and limit ever since is not seen by this; the journal's rows beside tell.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from alarm_rules.matching import CompiledRule, Matching, compile_rules
from gateway.alarms.chain import StoredRow, is_whole
from gateway.alarms.reader import JournalReader
from gateway.alarms.record import decode_event
from gateway.config import SiteConfig
from gateway.contract.rule_kind import GroupPlan, Planning
from gateway.model.alarm import Alarm, AlarmEvent
from gateway.model.batch import Batch
from gateway.model.condition import RuleInstance
from gateway.model.errors import ConfigError, Fault, StorageFault
from gateway.model.point import PointTable
from gateway.model.quality import BAD, Quality
from gateway.model.rule import Rule, Selector, alarm_key
from gateway.runtime.checking import load_site
from gateway.runtime.core import NS_PER_S
from gateway.runtime.instants import rfc3339, span
from gateway.runtime.live import effective_time_ns
from gateway.runtime.plugins import Plugins, load_plugins
from gateway.runtime.replay import event_row, number
from gateway.runtime.rerun import (
    LAG_NORMAL_NS,
    Judging,
    LateFilter,
    derived_mask,
    open_points,
    open_scan,
    steps,
)
from gateway.runtime.siterules import site_rules

WINDOW_S = 86_400.0
SAMPLES_BEFORE, SAMPLES_AFTER = 10, 3
EVENTS_SHOWN = 20
GROUP_POINTS_MAX = 1_000  # of an adapter's silence or a site's count: read no more than these
_SECONDS = 366 * 86_400.0  # no rule looks back further


@dataclass(frozen=True)
class ExplainOptions:
    """What the command line says."""

    config: Path
    point: str
    at_ns: int
    as_json: bool = False
    window_s: float | None = None  # None: a day, or as long as the longest delay or window


@dataclass
class Matched:
    """One rule in whose judgement the point takes part."""

    compiled: CompiledRule
    group: str
    inputs: dict[str, list[str]]  # input -> point ids of the group
    through: str  # the point of the question, or one computed from it
    problem: str = ""
    produces: str = ""  # the point it computes
    states: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Explanation:
    """Everything that can be said."""

    options: ExplainOptions
    window_s: float
    points: PointTable
    matched: list[Matched]
    unmatched: list[tuple[Rule, str]]
    samples: dict[str, Batch]
    events: list[AlarmEvent]  # of judging again
    journal: list[AlarmEvent]
    rows: dict[str, Alarm]  # as the journal's last event before the moment left them
    notes: list[str]


def run_explain(options: ExplainOptions) -> int:
    """Prints the explanation. Raises ConfigError, Unavailable, Refused."""
    plugins = load_plugins()
    config = load_site(options.config, plugins)
    found = explain(config, plugins, options)
    if options.as_json:
        sys.stdout.write(json.dumps(report(found), ensure_ascii=False) + "\n")
    else:
        for line in _text(found):
            sys.stdout.write(line + "\n")
    return 0


def explain(config: SiteConfig, plugins: Plugins, options: ExplainOptions) -> Explanation:
    """Judge again up to the moment and read the core's state. Blocks."""
    rules = site_rules(config, plugins.rule_kinds).rules
    with open_points(config, rules) as points:
        judging = Judging(config, plugins, rules, points)
        if options.point not in judging.points:
            expected = "a point this site has configured, met, or names in a rule"
            raise ConfigError([Fault("POINT", 0, options.point, expected)])
        compiled, _ = compile_rules(rules, plugins.rule_kinds)
        web = _Web(compiled, judging)
        web.follow(options.point)
        window_s = options.window_s or _window_s(web.matched)
        found = Explanation(
            options, window_s, judging.points, web.matched, web.unmatched(options.point),
            {}, [], [], {}, web.notes,
        )  # fmt: skip
        with open_scan(config, plugins, points) as scan:
            rows = _read(found, scan, web.wanted(points), derived_mask(points, [judging]))
            _judge(found, judging, rows, int(config.judging.lateness_s * NS_PER_S))
        keys = {state["alarm_key"] for each in found.matched for state in each.states}
        _add_journal(found, config, keys)
    return found


# ---------------------------------------------------------------------- which rules


class _Web:
    """The rules around a point, found by the matching the core itself uses."""

    def __init__(self, compiled: Sequence[CompiledRule], judging: Judging) -> None:
        self._compiled = compiled
        self._judging = judging
        self._points = judging.points
        self._matching = Matching(compiled, judging.points)
        self._matching.update()
        self._seen: set[tuple[int, str]] = set()
        self.matched: list[Matched] = []
        self.notes: list[str] = []
        self._plans: list[GroupPlan | None] = []

    def follow(self, point_id: str) -> None:
        """The rules of the point, then of everything computed from it, then what judges those."""
        waiting = [point_id]
        while waiting:
            through = waiting.pop(0)
            for rule_no, key, _ in self._matching.places(self._points.index(through)):
                if (rule_no, key) in self._seen:
                    continue
                self._seen.add((rule_no, key))
                found = self._matched(rule_no, key, through)
                if found.produces and found.produces in self._points:
                    waiting.append(found.produces)
        self._follow_judges()

    def _matched(self, rule_no: int, key: str, through: str) -> Matched:
        compiled = self._compiled[rule_no]
        members = self._matching.of_rule[rule_no].members(key)
        names = {
            name: [self._points[index].id for index in indices] for name, indices in members.items()
        }
        found = Matched(compiled, key, names, through)
        plan = compiled.kind.plan(
            Planning(
                rule=compiled.rule,
                parameters=compiled.parameters,
                key=key,
                inputs=members,
                points=self._points,
                urgent=lambda _point: None,
                problem=lambda text: setattr(found, "problem", text),
            )
        )
        if plan is not None:
            found.produces = plan.derived.id if plan.derived else ""
            for instance in plan.instances:
                found.states.append(
                    {
                        "alarm_key": alarm_key(instance.target, compiled.rule.id),
                        "on_delay_ns": instance.on_delay_ns,
                        "off_delay_ns": instance.off_delay_ns,
                        "resets": instance.resets,
                        "levels": instance.levels,
                    }
                )
        self.matched.append(found)
        return found

    def _follow_judges(self) -> None:
        """Rules that judge other rules' levels: combinations."""
        below = {each.compiled.rule.id for each in self.matched}
        instances: dict[str, list[RuleInstance]] = {}
        for instance in self._judging.rules.instances:
            instances.setdefault(instance.rule.id, []).append(instance)
        for compiled in self._compiled:
            if compiled.kind.judges is None:
                continue
            patterns = compiled.kind.judges(compiled.parameters)
            judged = sorted(i for i in below if any(fnmatchcase(i, each) for each in patterns))
            if judged:
                found = Matched(compiled, "", {"rules": judged}, "rule " + judged[0])
                for instance in instances.get(compiled.rule.id, ()):
                    zero = (round(compiled.rule.on_delay_s * NS_PER_S),) * len(instance.levels)
                    off = (round(compiled.rule.off_delay_s * NS_PER_S),) * len(instance.levels)
                    found.states.append(
                        {
                            "alarm_key": instance.alarm_key,
                            "on_delay_ns": zero,
                            "off_delay_ns": off,
                            "resets": (),
                            "levels": instance.levels,
                        }
                    )
                self.matched.append(found)

    def unmatched(self, point_id: str) -> list[tuple[Rule, str]]:
        """Every other rule with what keeps it from this point."""
        below = {each.compiled.rule.id for each in self.matched}
        point = self._points.get(point_id)
        assert point is not None, point_id
        device = self._points.device(point.device) if point.device else None
        kind, attributes = (device.kind, device.attributes) if device else ("", {})

        def differs(selector: Selector) -> str:
            for name in (each.name for each in fields(Selector)):
                wanted = getattr(selector, name)
                if wanted and not Selector(**{name: wanted}).matches(point, kind, attributes):
                    has = {
                        "ids": point.id,
                        "device_kind": kind,
                        "attributes": {**attributes, **point.attributes},
                    }.get(name, getattr(point, name, ""))
                    return f"{name} is {_shown(has)}, the rule wants {_shown(wanted)}"
            return "it is of no group the rule judges"

        return [
            (each.rule, "; ".join(differs(one) for one in each.rule.inputs.values()))
            for each in self._compiled
            if each.rule.id not in below and each.kind.judges is None
        ]

    def wanted(self, points: PointTable) -> list[int]:
        """Every stored point that takes part, within reason."""
        names: dict[str, None] = {}
        for found in self.matched:
            if found.compiled.kind.judges is None:
                for members in found.inputs.values():
                    names.update(dict.fromkeys(members[:GROUP_POINTS_MAX]))
                    if len(members) > GROUP_POINTS_MAX:
                        self.notes.append(
                            f"rule {found.compiled.rule.id} judges {len(members)} points together; "
                            f"only {GROUP_POINTS_MAX} of them were read"
                        )
        names.setdefault(self.matched[0].through if self.matched else "")
        return [points.index(name) for name in names if name in points]


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " or ".join(value[:5]) + (" …" if len(value) > 5 else "")
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or "none"
    return repr(str(value)) if value else "empty"


def _window_s(matched: Sequence[Matched]) -> float:
    """A day, or twice the longest span any of the rules speaks of."""
    longest = 0.0
    for found in matched:
        rule = found.compiled.rule
        longest = max(longest, rule.on_delay_s + rule.off_delay_s, *_spans(rule.parameters), 0.0)
    return min(max(WINDOW_S, 2 * longest), _SECONDS)


def _spans(parameters: Any) -> Iterator[float]:
    """Every parameter that is a number of seconds, however deep."""
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            yield from _spans(value)
        elif isinstance(value, int | float) and name.endswith("_s"):
            yield float(value)


# ---------------------------------------------------------------------- judging again


def _read(found: Explanation, scan: Any, wanted: Sequence[int], derived: Any) -> list[Batch]:
    """What had come in about the moment; keeps the samples around it."""
    at_ns = found.options.at_ns
    from_ns = at_ns - int(found.window_s * NS_PER_S)
    index = found.points.index(found.options.point)
    if index < len(derived) and index not in wanted:
        wanted = [*wanted, index]
    batches = list(scan.batches(from_ns, at_ns + 10 * LAG_NORMAL_NS, wanted))
    if getattr(scan, "is_copy", False):
        found.notes.append("the gateway has the history open: a copy of it was read")
    whole = Batch.concat(batches)
    time_ns = effective_time_ns(whole)
    for point in np.unique(whole.point_index).tolist():
        mine = whole.point_index == point
        before = np.flatnonzero(mine & (time_ns <= at_ns))
        after = np.flatnonzero(mine & (time_ns > at_ns))
        before = before[np.argsort(time_ns[before], kind="stable")][-SAMPLES_BEFORE:]
        after = after[np.argsort(time_ns[after], kind="stable")][:SAMPLES_AFTER]
        found.samples[found.points[point].id] = whole.take(np.concatenate([before, after]))
        if len(before):
            _note_newest(found, whole.take(before[-1:]), int(time_ns[before[-1]]))
    rows = [
        batch.take((effective_time_ns(batch) <= at_ns) & ~derived[batch.point_index])
        for batch in batches
    ]
    return [batch for batch in rows if len(batch)]


def _note_newest(found: Explanation, newest: Batch, time_ns: int) -> None:
    """Bad or old: why rules about values hold what they last said."""
    point = found.points[int(newest.point_index[0])]
    quality = int(newest.quality[0])
    if quality >= BAD or math.isnan(float(newest.value[0])):
        word = Quality(quality).name.lower() if quality in _CODES else str(quality)
        found.notes.append(
            f"the newest sample of {point.id} is {word}: rules about its value neither raise nor "
            "clear on it"
        )
    age_s = (found.options.at_ns - time_ns) / NS_PER_S
    if point.interval_s and age_s > 2 * point.interval_s:
        found.notes.append(
            f"the newest sample of {point.id} is {span(age_s)} old, one is due every "
            f"{span(point.interval_s)}: the value holds, silence clears nothing"
        )


def _judge(
    found: Explanation, judging: Judging, batches: Sequence[Batch], lateness_ns: int
) -> None:
    at_ns = found.options.at_ns
    late = LateFilter(len(found.points))
    is_first = True
    for step in steps(iter(batches), lateness_ns, late):
        if is_first:
            judging.begin(int(step.batch.source_time_ns.min()))
            is_first = False
        found.events += judging.judge(step.batch, min(step.known_ns, at_ns + lateness_ns))
    if is_first:
        judging.begin(at_ns)
        found.notes.append("no sample of any point that takes part is stored in the window")
    found.events += judging.settle(at_ns)
    if late.late_count:
        found.notes.append(f"{late.late_count} samples came in after newer ones: judged as late")
    arrays = judging.rules.save()
    states, behind_ns = _states(arrays), _behind(arrays)
    for matched in found.matched:
        for state in matched.states:
            _fill(state, states.get(state["alarm_key"], {}), at_ns)
    if behind_ns.get(found.options.point):
        found.notes.append(
            f"the newest sample of {found.options.point} came in "
            f"{span(behind_ns[found.options.point] / NS_PER_S)} after it was measured: delays "
            "that go by its samples end by so much later"
        )
    keys = {state["alarm_key"] for each in found.matched for state in each.states}
    found.events = [event for event in found.events if event.alarm.alarm_key in keys]


def _behind(arrays: Mapping[str, Any]) -> dict[str, int]:
    """How much later the newest sample of each point came in than it was measured."""
    ids, behind_ns = arrays["points/id"].tolist(), arrays["points/behind_ns"].tolist()
    return {name.decode(): ns for name, ns in zip(ids, behind_ns, strict=True)}


def _states(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The core's state of every instance, from what it would save for a restart."""
    found: dict[str, dict[str, Any]] = {}
    for name, keys in arrays.items():
        if not name.endswith("/instance/key"):
            continue
        prefix = name.removesuffix("key")
        for row, key in enumerate(keys.tolist()):
            found[key.decode()] = {
                column: arrays[f"{prefix}{column}"][row].tolist()
                for column in (
                    "condition",
                    "output",
                    "since_ns",
                    "cause",
                    "quality",
                    "planned",
                    "behind_ns",
                )
                if f"{prefix}{column}" in arrays
            }
    return found


def _fill(state: dict[str, Any], core: Mapping[str, Any], at_ns: int) -> None:
    """One instance in words of its levels: what holds, since when, how long to go."""
    levels = []
    for number_, level in enumerate(state.pop("levels")):
        condition = bool(core["condition"][number_]) if core else False
        active = bool(core["output"][number_]) if core else False
        since_ns = int(core["since_ns"][number_]) if core else 0
        behind_ns = int(core["behind_ns"][number_]) if core else 0
        delay_ns = (state["on_delay_ns"] if condition else state["off_delay_ns"])[number_]
        levels.append(
            {
                "level": level.name,
                "priority": int(level.priority),
                "limit": number(level.limit),
                "reset": number(state["resets"][number_]) if state["resets"] else None,
                "on_delay_s": state["on_delay_ns"][number_] / NS_PER_S,
                "off_delay_s": state["off_delay_ns"][number_] / NS_PER_S,
                "condition": condition,
                "active": active,
                "since_ns": since_ns if condition or since_ns else None,
                "since": rfc3339(since_ns) if condition or since_ns else None,
                "value": number(core["cause"][number_]) if core else None,
                "left_s": (since_ns + delay_ns + behind_ns - at_ns) / NS_PER_S
                if condition != active
                else None,
            }
        )
    for name in ("on_delay_ns", "off_delay_ns", "resets"):
        del state[name]
    state["levels"] = levels


# ---------------------------------------------------------------------- what people did


def _add_journal(found: Explanation, config: SiteConfig, keys: set[str]) -> None:
    """Events of the alarms concerned around the moment, from the site's own journal."""
    folder = config.data_dir / "journal"
    at_ns = found.options.at_ns
    if not keys:
        return
    try:
        with JournalReader.open(folder) as reader:
            for key in sorted(keys):
                before = reader.ask(
                    "SELECT * FROM event WHERE alarm_key = ? AND time_ns <= ?"
                    " ORDER BY gseq DESC LIMIT ?",
                    (key, at_ns, EVENTS_SHOWN),
                )
                after = reader.ask(
                    "SELECT * FROM event WHERE alarm_key = ? AND time_ns > ? ORDER BY gseq LIMIT 3",
                    (key, at_ns),
                )
                events = _events([*reversed(before), *after])
                found.journal += events
                known = [event.alarm for event in events if event.time_ns <= at_ns]
                if known:
                    found.rows[key] = known[-1]
    except (ConfigError, StorageFault) as error:
        found.notes.append(f"the journal was not read: {error}")
    found.journal.sort(key=lambda event: (event.time_ns, event.alarm.gseq))


def _events(rows: Sequence[Sequence[Any]]) -> list[AlarmEvent]:
    events = []
    for row in rows:
        stored = StoredRow(*row)
        if is_whole(stored):
            with suppress(ValueError, KeyError, TypeError):
                events.append(decode_event(stored.record))
    return events


def hidden_by(alarm: Alarm) -> list[str]:
    """What keeps the alarm out of sight."""
    found = []
    if not alarm.enabled:
        found.append("disabled")
    if alarm.out_of_service:
        found.append("out of service")
    if alarm.suppressed_by:
        found.append("suppressed by " + ", ".join(alarm.suppressed_by))
    if alarm.shelved:
        until = alarm.shelved_until_ns
        found.append(f"shelved ({alarm.shelved})" + (f" until {rfc3339(until)}" if until else ""))
    if found and alarm.hidden_note:
        found[-1] += f": {alarm.hidden_note}"
    return found


# ---------------------------------------------------------------------- telling


def report(found: Explanation) -> dict[str, Any]:
    """Everything, for scripts."""
    options = found.options
    point = found.points.get(options.point)
    assert point is not None, options.point
    return {
        "point": {each.name: _plain(getattr(point, each.name)) for each in fields(point)},
        "at": rfc3339(options.at_ns),
        "at_ns": options.at_ns,
        "window_s": found.window_s,
        "verdict": verdict(found),
        "rules": [_rule_row(found, matched) for matched in found.matched],
        "other_rules": [{"rule": rule.id, "why_not": why} for rule, why in found.unmatched],
        "samples": {name: _sample_rows(batch) for name, batch in found.samples.items()},
        "events": [event_row(event) for event in found.events[-EVENTS_SHOWN:]],
        "journal": [_journal_row(event) for event in found.journal],
        "notes": found.notes,
    }


def verdict(found: Explanation) -> str:
    """`alarm`, `hidden`, `delayed`, `clearing` or `normal`: the gravest of its rules."""
    words = {"normal"}
    for matched in found.matched:
        for state in matched.states:
            row = found.rows.get(state["alarm_key"])
            for level in state["levels"]:
                if level["active"]:
                    words.add("hidden" if row is not None and hidden_by(row) else "alarm")
                elif level["condition"]:
                    words.add("delayed")
                if level["active"] and not level["condition"]:
                    words.add("clearing")
    order = ("alarm", "hidden", "delayed", "clearing", "normal")
    return next(word for word in order if word in words)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _rule_row(found: Explanation, matched: Matched) -> dict[str, Any]:
    rule = matched.compiled.rule
    citation = rule.citation
    return {
        "rule": rule.id,
        "kind": rule.kind,
        "version": rule.version,
        "name": dict(rule.name),
        "through": matched.through,
        "group": matched.group,
        "inputs": matched.inputs,
        "parameters": _plain(rule.parameters),
        "citation": {
            "standard": citation.standard,
            "edition": citation.edition,
            "clause": citation.clause,
            "confidence": citation.confidence.value,
            "note": citation.note,
        },
        "computes": matched.produces,
        "problem": matched.problem,
        "alarms": [
            {
                **state,
                "hidden_by": hidden_by(row) if (row := found.rows.get(state["alarm_key"])) else [],
                "state": row.state.value if row else None,
            }
            for state in matched.states
        ],
    }


def _sample_rows(batch: Batch) -> list[dict[str, Any]]:
    return [
        {
            "time": rfc3339(time_ns),
            "time_ns": time_ns,
            "received_ns": received_ns,
            "value": number(value),
            "quality": Quality(code).name.lower() if code in _CODES else code,
        }
        for time_ns, received_ns, value, code in zip(
            batch.source_time_ns.tolist(),
            batch.received_time_ns.tolist(),
            batch.value.tolist(),
            batch.quality.tolist(),
            strict=True,
        )
    ]


_CODES = frozenset(int(quality) for quality in Quality)


def _journal_row(event: AlarmEvent) -> dict[str, Any]:
    return {**event_row(event), "actor": event.actor, "hidden_by": hidden_by(event.alarm)}


def _text(found: Explanation) -> Iterator[str]:
    """For an operator."""
    options = found.options
    point = found.points.get(options.point)
    assert point is not None, options.point
    name = f"{point.name} " if point.name else ""
    where = " ".join(part for part in (point.location, point.area) if part)
    yield f"{name}{point.id} ({point.quantity or 'no quantity'}{', ' + where if where else ''})"
    yield f"at {rfc3339(options.at_ns)}: {_WORDS[verdict(found)]}"
    yield ""
    yield from _sample_lines(found)
    for matched in found.matched:
        yield ""
        yield from _rule_lines(found, matched)
    if not found.matched:
        yield "no rule is about this point:"
    near = [(rule, why) for rule, why in found.unmatched if _is_near(rule, point.quantity)]
    for rule, why in near:
        yield f"  not {rule.id}: {why}"
    left = len(found.unmatched) - len(near)
    if left:
        yield f"  {left} more rules are about other quantities (--json lists them)"
    if found.journal:
        yield ""
        yield "the journal has:"
        yield from (f"  {_event_line(event)}" for event in found.journal[-EVENTS_SHOWN:])
    for note in found.notes:
        yield f"note: {note}"


_WORDS = {
    "alarm": "in alarm",
    "hidden": "in alarm, but hidden",
    "delayed": "beyond a limit, the delay still runs",
    "clearing": "back, the alarm ends when the off-delay is over",
    "normal": "not in alarm",
}


def _is_near(rule: Rule, quantity: str) -> bool:
    return any(each.quantity == quantity for each in rule.inputs.values())


def _sample_lines(found: Explanation) -> Iterator[str]:
    batch = found.samples.get(found.options.point)
    if batch is None:
        yield "no samples of it are stored around this time"
        return
    yield "samples:"
    unit = getattr(found.points.get(found.options.point), "unit", "")
    for row in _sample_rows(batch):
        value = "no value" if row["value"] is None else f"{row['value']:g} {unit}"
        mark = " " if row["time_ns"] <= found.options.at_ns else "later"
        quality = "" if row["quality"] == "good" else f"  {row['quality']}"
        yield f"  {row['time']}  {value}{quality}  {mark}".rstrip()


def _rule_lines(found: Explanation, matched: Matched) -> Iterator[str]:
    rule = matched.compiled.rule
    source = " ".join(part for part in (rule.citation.standard, rule.citation.clause) if part)
    title = rule.name.get("en") or rule.name.get("zh") or ""
    yield f"rule {rule.id} ({rule.kind}) {title}" + (f" [{source}]" if source else "")
    if matched.through != found.options.point:
        yield f"  through {matched.through}"
    if matched.problem:
        yield f"  judges nothing here: {matched.problem}"
    if matched.produces:
        yield f"  computes {matched.produces}"
    if rule.parameters:
        yield f"  {json.dumps(_plain(rule.parameters), ensure_ascii=False)}"
    for state in matched.states:
        yield from _state_lines(found, state)


def _state_lines(found: Explanation, state: Mapping[str, Any]) -> Iterator[str]:
    row = found.rows.get(state["alarm_key"])
    hidden = hidden_by(row) if row is not None else []
    for level in state["levels"]:
        limit = "" if level["limit"] is None else f" (limit {level['limit']:g})"
        yield f"  {level['level']}{limit}: {_level_words(level)}"
    if hidden:
        yield f"  hidden: {'; '.join(hidden)}"


def _level_words(level: Mapping[str, Any]) -> str:
    value = "" if level["value"] is None else f" with {level['value']:g}"
    since = level["since"]
    if level["active"] and level["condition"]:
        return f"in alarm; the condition began {since}{value}"
    if level["condition"]:
        return (
            f"the condition holds since {since}{value}; "
            f"{span(level['left_s'])} of the on-delay are left"
        )
    if level["active"]:
        return f"back since {since}; {span(level['left_s'])} of the off-delay are left"
    return "no condition" + (f" since {since}" if since else " in this window")


def _event_line(event: AlarmEvent) -> str:
    value = "" if event.value is None or math.isnan(event.value) else f" value {event.value:g}"
    actor = f" by {event.actor}" if event.actor else ""
    comment = f" ({event.comment})" if event.comment else ""
    return (
        f"{rfc3339(event.time_ns)} {event.transition.value} {event.alarm.alarm_key} "
        f"{event.level or event.alarm.level}{value}{actor}{comment}"
    )
