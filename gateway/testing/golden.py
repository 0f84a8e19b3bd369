"""Data folders as a program of today leaves them, for the programs of tomorrow to take over.

    python -m gateway.testing.golden FOLDER     makes FOLDER/NAME.tar.xz and FOLDER/NAME.json

NAME says the formats: spool1-journal2-state2. A format that changes gets a folder of its own beside
the ones there are; a folder that is kept is never made again, or it would no longer be what an old
program wrote. tests/system/test_golden.py opens every one of them with the program of the day.

The story in it, by a clock of its own: an alarm that a person acknowledged, one that stands and
nobody has, one that is shelved, one that came and went, one whose delay has half run, a window of
a rate half full, a combination that counts two of them; a checkpoint, then rows judged after it,
then rows that nobody has judged, all of them still to be delivered; and no orderly end: the files
are copied while the program holds them, as a kill would leave them. The key in it signs nothing
else.

Not here: damaged files (tests/spool, tests/alarms).
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import shutil
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from alarm_rules.state import STATE_VERSION
from gateway.alarms.commands import Action, Command, Role, token_of
from gateway.alarms.database import SCHEMA_VERSION
from gateway.alarms.record import encode_event
from gateway.config import SiteConfig
from gateway.model.batch import Batch
from gateway.runtime.checking import load_site
from gateway.runtime.core import Core, Ports, open_core
from gateway.runtime.plugins import load_plugins
from gateway.spool.segment import FORMAT

NAME: Final = f"spool{FORMAT}-journal{SCHEMA_VERSION}-state{STATE_VERSION}"
S: Final = 1_000_000_000
START_NS: Final = 1_790_000_000 * S
STOPPED_NS: Final = START_NS + 100 * S
"""When the story breaks off."""
DELAYED: Final = "g5:slow"
DELAYED_FROM_NS: Final = START_NS + 90 * S
DELAY_NS: Final = 30 * S
SHELVED_TO_NS: Final = START_NS + 3_600 * S
UNJUDGED: Final = 150
"""Rows that nobody has judged."""

SITE: Final = """
[site]
tenant = "t"
id = "golden"
data_dir = "data"
[spool]
segment_rows_max = 100
[alarms]
journal_reserve_mb = 0
[ledger]
[[sink]]
name = "store"
kind = "influxdb"
url = "http://127.0.0.1:1"
bucket = "b"
org = "o"
token = "t"
[[rule]]
id = "methane"
kind = "limit"
value = { quantity = "methane" }
level = "yellow"
parameters = { levels = { H = { limit = 1.0, reset = 0.9 }, HH = { limit = 1.5, reset = 1.0 } } }
[[rule]]
id = "slow"
kind = "limit"
value = { quantity = "methane" }
on_delay_s = 30.0
parameters = { levels = { H = { limit = 0.8 } } }
[[rule]]
id = "rise"
kind = "rate"
value = { quantity = "level" }
parameters = { window_s = 60.0, absolute = false, levels = { H = { limit = 0.1 } } }
[[rule]]
id = "silent"
kind = "offline"
value = { quantity = "methane" }
parameters = { max_age_s = 300.0 }
[[rule]]
id = "two"
kind = "combination"
group_by = "site"
value = {}
[rule.parameters]
rules = ["methane"]
colours = ["yellow", "red"]
steps = [{ of = "yellow", count = 2, makes = "red" }]
"""
METHANE: Final = ("g0", "g1", "g2", "g3", "g4", "g5")
LEVEL: Final = "l0"


@dataclass
class Clock:
    """Stands where it is put."""

    now_ns: int = START_NS

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class Story:
    """The site from the start to the break."""

    core: Core
    clock: Clock
    rows: list[tuple[str, int, float]] = field(default_factory=list)

    async def say(self, at_s: float, values: dict[str, float], *, judged: bool = True) -> None:
        """One sample of each of these points, received as it was taken."""
        at_ns = START_NS + round(at_s * S)
        self.clock.now_ns = at_ns
        points = [self.core.points.index(point) for point in values]
        times = np.full(len(points), at_ns)
        batch = Batch.of(points, list(values.values()), times, received_time_ns=at_ns)
        await self.core.intake.emit(batch)
        self.rows += [(point, at_ns, value) for point, value in values.items()]
        if judged:
            await self.core.judge.judge_all(at_ns)

    async def ask(self, action: Action, alarm_key: str, **more: Any) -> None:
        alarm = self.core.judge.book.get(alarm_key)
        assert alarm is not None, alarm_key
        command = Command(
            action=action,
            alarm_key=alarm_key,
            actor="op1",
            role=Role.SHIFT_LEAD,
            token=token_of(alarm),
            **more,
        )
        result = await self.core.judge.command(command)
        assert result.accepted, result.reason


async def _tell(story: Story) -> None:
    story.core.journal.sign(START_NS, occasion="start")
    quiet = dict.fromkeys(METHANE, 0.3) | {LEVEL: 10.0}
    await story.say(0, quiet)
    await story.say(10, {**quiet, "g0": 1.2, "g1": 1.3, "g2": 1.4, "g3": 1.6})
    await story.ask(Action.ACKNOWLEDGE, "g0:methane")
    await story.ask(Action.SHELVE, "g2:methane", text="dust", until_ns=SHELVED_TO_NS)
    await story.say(20, {"g3": 0.2, "g4": 0.2, LEVEL: 10.1})
    await story.say(60, {LEVEL: 13.0, "g0": 1.21, "g1": 1.31, "g2": 1.41})
    await story.say(70, {LEVEL: 13.0})
    await story.core.judge.checkpoint()
    story.core.journal.sign(story.clock.now_ns)
    await story.say(80, {"g1": 1.7, LEVEL: 13.0})
    await story.say(90, {"g5": 0.85})
    for row in range(UNJUDGED):
        await story.say(90.5 + row * 0.05, {"g4": 0.2 + row * 0.0001}, judged=False)
    story.clock.now_ns = STOPPED_NS


def load(folder: Path) -> SiteConfig:
    """The site, with its data in this folder."""
    path = folder / "site.toml"
    points = [f'[[point]]\nid = "{p}"\nquantity = "methane"\n' for p in METHANE]
    points.append(f'[[point]]\nid = "{LEVEL}"\nquantity = "level"\n')
    path.write_text(SITE + "".join(points), encoding="utf-8")
    return load_site(path, load_plugins())


async def make(folder: Path) -> None:
    """Tell the story and keep what it leaves."""
    with tempfile.TemporaryDirectory() as text:
        work, clock = Path(text), Clock()
        (work / "live").mkdir()
        async with open_core(load(work / "live"), load_plugins(), ports=Ports(clock)) as core:
            story = Story(core, clock)
            await _tell(story)
            shutil.copytree(work / "live" / "data", work / "data")
            events = [json.loads(encode_event(event)) for event in core.journal.read(0, 1_000)]
        said = {"rows": story.rows, "events": events}
        (folder / f"{NAME}.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        with tarfile.open(folder / f"{NAME}.tar.xz", "w:xz", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted((work / "data").rglob("*")):
                if path.is_file():
                    info = tarfile.TarInfo(str(path.relative_to(work)))
                    content = path.read_bytes()
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))


def main(arguments: list[str] | None = None) -> int:
    """Refuses to make again what is there."""
    parser = argparse.ArgumentParser(prog="golden", description="Keep a data folder of today.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    if (folder / f"{NAME}.tar.xz").exists():
        print(f"{NAME} is kept already: a folder of these formats is never made again")  # noqa: T201
        return 1
    asyncio.run(make(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
