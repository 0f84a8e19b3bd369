"""How long it takes until a site's rules judge: one rule for each point, the dearest way to say it.

    equal       every rule states the same limits; each names its own point
    different   every rule has limits of its own
    one         one rule that selects all the points
    reload      the `different` ones read again, a few of them edited: exchanged in place
    restart     the same as a new set, with the state they had

Most sites have a hundred rules that select by quantity and place, and cost what `one` costs.
`measure` takes the clock as an argument: this package reads none. It should count the process's own
time; the time a loop of additions takes stands beside it, since a shared machine may be half as
fast from one minute to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from alarm_rules.ruleset import RuleSet
from gateway.contract.rule_kind import RuleKind
from gateway.model.point import Point, PointTable
from gateway.model.rule import Rule, Selector

SIZE = 100_000
EDITED = 3
_STEP = 1e-5  # from one rule's limits to the next one's
_ADDITIONS = 1_000_000

Clock = Callable[[], float]


def measure(kinds: Mapping[str, RuleKind], clock: Clock, *, size: int = SIZE) -> dict[str, Any]:
    """Seconds by `clock` (time.process_time), and how many instances each form gave."""
    table = PointTable()
    for number in range(size):
        table.put(Point(id=f"p{number}", quantity="methane", interval_s=1.0))
    found: dict[str, Any] = {"rules": size, "million_additions_s": round(_additions_s(clock), 3)}
    whole = Rule("all", "limit", {"value": Selector(quantity="methane")}, _limits(0.0))
    for name, rules in (
        ("one", [whole]),
        ("equal", _rules(size, 0.0)),
        ("different", _rules(size, _STEP)),
    ):
        began = clock()
        loaded = RuleSet(rules, kinds, table)
        found[f"{name}_s"] = round(clock() - began, 3)
        found[f"{name}_instances"] = len(loaded.instances)
    saved = loaded.save()
    edited = _rules(size, _STEP)  # a file that was read again: nothing in it is the same object
    for number in range(0, size, -(-size // EDITED)):
        edited[number] = replace(edited[number], parameters=_limits(0.5))
    began = clock()
    again = RuleSet(edited, kinds, table)
    built_s = clock() - began
    again.load(saved)
    found["restart_s"] = round(clock() - began, 3)
    found["restart_state_s"] = round(clock() - began - built_s, 3)
    del again
    began = clock()
    assert loaded.exchange(edited), "in place"
    found["reload_s"] = round(clock() - began, 3)
    return found


def _rules(size: int, step: float) -> list[Rule]:
    return [
        Rule(
            f"r{number}", "limit", {"value": Selector(ids=(f"p{number}",))},
            _limits(step * number), on_delay_s=2.0, off_delay_s=5.0,
        )
        for number in range(size)
    ]  # fmt: skip


def _limits(more: float) -> dict[str, Any]:
    return {
        "levels": {
            "L": -more,
            "H": {"limit": 1.0 + more, "reset": 0.9 + more},
            "HH": {"limit": 1.5 + more, "reset": 1.0 + more},
        }
    }


def _additions_s(clock: Clock) -> float:
    began, total = clock(), 0
    for number in range(_ADDITIONS):
        total += number
    return clock() - began


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """The figures for a person."""
    yield ""
    yield (
        f"load of {figures['rules']:,} points, three levels each: by one rule "
        f"{figures['one_s']:.2f} s, by a rule a point {figures['equal_s']:.2f} s where all state "
        f"the same, {figures['different_s']:.2f} s where none does"
    )
    yield (
        f"  {EDITED} of them edited: exchanged in place {figures['reload_s']:.2f} s, as a new set "
        f"{figures['restart_s']:.2f} s, of it state {figures['restart_state_s']:.2f} s"
    )
    yield (f"  (a million additions of Python's: {figures['million_additions_s']:.3f} s)")
