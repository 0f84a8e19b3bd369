"""Making room on a disk that takes nothing: nobody gives up rows for it, and the guard lives on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.model.errors import StorageFault
from gateway.model.point import PointTable
from gateway.runtime.counters import CounterTable
from gateway.runtime.room import RoomMaker, WhenFull


class TightSpool:
    """A spool that always wants room."""

    def is_tight(self, _share_max: float) -> bool:
        return True


class Laggard:
    """A sink that is behind, and is asked to give up nothing here."""

    behind = 100

    def forget(self, _offset: int) -> None:
        raise AssertionError("rows given up for a disk that takes no cursor")


@pytest.mark.parametrize("when_full", list(WhenFull))
async def test_a_disk_that_takes_no_cursor_costs_no_rows_and_raises_nothing(when_full) -> None:
    counters = CounterTable()

    async def refuses() -> None:
        raise StorageFault("read-only file system")

    room = RoomMaker(
        TightSpool(),  # type: ignore[arg-type]  one question is all that is asked of it
        when_full,
        {"store": Laggard()},  # type: ignore[dict-item]
        lambda: 0,
        refuses,
        PointTable(),
        counters.component("spool"),
    )
    await room.make_room()
    await room.stop()
    assert counters.of("spool") == {"cannot_let_go": 1}


class ThinnedSpool(TightSpool):
    """Of what may be touched, nothing is left to thin."""

    head = 1000

    def thin(self, *_arguments: object) -> None:
        return None


@pytest.mark.parametrize(("read_by", "forgets"), [(1000, [30]), (980, [30]), (970, []), (0, [])])
async def test_rows_are_dropped_only_when_nearly_all_was_judged_and_thinned(
    read_by, forgets
) -> None:
    """The sink is 100 rows behind and would give up a fifth of them: rather wait for a reader that
    is further behind than that."""
    asked: list[int] = []

    class Sink:
        behind = 100
        cursor = SimpleNamespace(committed=10)
        forget = staticmethod(asked.append)

    async def lets_go() -> None:
        return None

    room = RoomMaker(
        ThinnedSpool(),  # type: ignore[arg-type]
        WhenFull.THIN,
        {"store": Sink()},  # type: ignore[dict-item]
        lambda: read_by,
        lets_go,
        PointTable(),
        CounterTable().component("spool"),
    )
    await room.make_room()
    await room.stop()
    assert asked == forgets
