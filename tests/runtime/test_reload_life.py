"""Rules are exchanged in the middle of an alarm's life: what people did to it, what escalates it,
what is hidden by a dead device and which of a group came first, all go on as without it."""

from __future__ import annotations

from typing import Any

import pytest
from test_alarm_life import ESCALATION, HEAD, LIMIT, PLUGINS, POINTS, SILENT, T0, S, driven
from test_reloading import at_work

from gateway.alarms.commands import Action, Command, Role, token_of
from gateway.runtime.checking import load_site

GROUP = """
[[alarm_group]]
name = "gas"
rules = ["methane"]
mode = "suppress"
"""
OTHER = """
[[rule]]
id = "other"
kind = "limit"
value = { quantity = "methane" }
parameters = { levels = { H = { limit = 9.0 } } }
"""
COUNTED = """
[[rule]]
id = "ppm"
kind = "calculation"
inputs = { a = { quantity = "methane" } }
group_by = "point"
parameters = { expression = "a * 10000", id = "{group}.ppm", quantity = "ppm" }
"""
SITE = HEAD + POINTS + LIMIT + SILENT + ESCALATION + GROUP
CALLED = LIMIT + 'action = { en = "call the control room" }\n'

DEEDS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "acknowledge": {},
    "comment": {"text": "seen"},
    "shelve": {"text": "sensor is moved", "until_ns": T0 + 50 * S},
    "shelve_once": {"text": "until it is over", "until_ns": T0 + 3_600 * S},
    "suppress": {"text": "pump is off", "source": "plant.off"},
    "out_of_service": {"permit": "W-7", "text": "replaced", "until_ns": T0 + 50 * S},
    "disable": {"text": "wrong place", "approved_by": "wang", "until_ns": T0 + 50 * S},
}
WAYS = {
    "the same": SITE,
    "another rule comes": SITE + OTHER,
    "its action is another": SITE.replace(LIMIT, CALLED),
    "a calculation comes: a new set": SITE + COUNTED,
}


async def take(house, folder, text: str) -> bool:
    """The site file is another from now on."""
    path = folder / "other.toml"
    path.write_text(text, encoding="utf-8")
    async with at_work(house.core.judge):
        return await house.core.take_rules(load_site(path, PLUGINS))


async def do(house, deed: str) -> None:
    if deed == "nothing":
        return
    row = house.core.judge.book.get("g0:methane")
    command = Command(
        action=Action(deed),
        alarm_key=row.alarm_key,
        actor="li",
        role=Role.ENGINEER if deed == "disable" else Role.SHIFT_LEAD,
        token=token_of(row),
        **DEEDS[deed],
    )
    result = await house.core.judge.command(command)
    assert result.accepted, result.reason


async def life(folder, deed: str, after: int | None, other: str) -> list[tuple[Any, ...]]:
    """Everything that is said of g0 and g1, without what is said of the edit itself. `after`: the
    step after which rules are exchanged."""
    folder.mkdir()
    steps: list[tuple[float, dict[str, float]]] = [
        (0, {f"g{n}": 0.5 for n in range(8)}),
        (5, {"g0": 1.5}),
        (10, {"g0": 1.5, "g1": 1.6}),
        (30, {"g0": 1.7}),
        (40, {"g0": 0.5, "g1": 1.6}),
        (45, {"g0": 1.5}),
        (60, {"g0": 1.5}),
        (61, {}),
        (75, {"g0": 0.5}),
        (90, {"g0": 1.5, "g1": 1.6, "g2": 0.5}),
        (130, {"g0": 0.5, "g1": 0.5}),
        (200, {}),
    ]
    async with driven(folder, SITE) as house:
        for number, (second, values) in enumerate(steps):
            await house.at(second, **values)
            await house.at(second + 0.001)  # whoever was hidden is called by the next tick
            if number == 2:
                await do(house, deed)
            if number == after:
                await take(house, folder, other)
        events = house.core.journal.read(0, 10_000)
        return [
            (
                *(event.transition.value, event.alarm.alarm_key, event.alarm.occ_no),
                *((event.time_ns - T0) / S, event.alarm.level, event.alarm.state.value),
                *(event.annunciate, event.value, event.step, event.actor),
            )
            for event in events
            if event.transition.value != "EDT" and event.alarm.target in {"g0", "g1", "s1"}
        ]


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, list[tuple[Any, ...]]]:
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("other", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("deed", DEEDS)
async def test_an_alarms_life_goes_on_as_if_no_rules_had_been_exchanged(
    tmp_path, undisturbed, deed, other
) -> None:
    if deed not in undisturbed:
        undisturbed[deed] = await life(tmp_path / "undisturbed", deed, None, "")
    assert len(undisturbed[deed]) > 5, "there is a life to compare"
    for number in (3, 6):
        found = await life(tmp_path / str(number), deed, number, other)
        assert found == undisturbed[deed], f"exchanged after step {number}"
