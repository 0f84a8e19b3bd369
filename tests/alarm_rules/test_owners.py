"""What many rows share is found once, whoever has it, and every row finds its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from alarm_rules.owners import by_width


class Thing:
    """Equal to every other of its width: only the object itself tells it apart."""

    def __init__(self, width: int) -> None:
        self.width = width

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and self.width == other.width

    def __hash__(self) -> int:
        return self.width


WIDTHS = some.lists(some.integers(0, 3), min_size=1, max_size=5)


@given(WIDTHS, some.lists(some.integers(0, 4), max_size=12))
def test_each_row_has_the_very_thing_that_was_given_for_it(
    widths: list[int], chosen: list[int]
) -> None:
    things = [Thing(width) for width in widths]
    given_ = [things[number % len(things)] for number in chosen]
    found = list(by_width(given_, [thing.width for thing in given_]))
    assert [owned.width for owned in found] == sorted({thing.width for thing in given_})
    of_row: dict[int, Thing] = {}
    for owned in found:
        assert owned.rows.tolist() == sorted(owned.rows.tolist()), "a later row is written later"
        assert all(thing.width == owned.width for thing in owned.things)
        for row, owner in zip(owned.rows.tolist(), owned.owner.tolist(), strict=True):
            of_row[row] = owned.things[owner]
    assert sorted(of_row) == list(range(len(given_)))
    assert all(of_row[row] is thing for row, thing in enumerate(given_))


def test_what_is_shared_stands_there_once_in_the_order_it_came() -> None:
    one, other, wide = Thing(2), Thing(2), Thing(3)
    narrow, broad = by_width([other, one, wide, other, one], [2, 2, 3, 2, 2])
    assert [id(thing) for thing in narrow.things] == [id(other), id(one)]
    assert narrow.owner.tolist() == [0, 1, 0, 1]
    assert broad.rows.tolist() == [2]
