"""The registry: indices that never change, whatever happens to either of its files."""

import asyncio
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model.errors import StorageFault
from gateway.model.point import Device, Point, PointKind
from gateway.spool.disk import Disk
from gateway.spool.registry import Registry
from gateway.testing.spool import FailingDisk

A = Point(id="a", unit="%", quantity="methane", range_low=0, attributes={"k": "v"})
B = Point(id="b", kind=PointKind.DISCRETE, states={0: "停", 1: "开"})
C = Point(id="c", interval_s=5.0, name="丙")
CAR = Device(id="car-1", kind="vehicle", name="甲A00001", attributes={"driver": "某"})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "points.sqlite"


def declared(path, *points, configured=(), devices=()):
    registry = Registry.open(path, configured)
    registry.declare_now(points, devices)
    return registry


def ids(registry):
    return [point.id for point in registry.table]


async def test_an_index_is_given_once_and_found_again_after_a_restart(path):
    registry = Registry.open(path)
    assert await registry.points([A, B, A]) == [0, 1, 0]
    assert await registry.devices([CAR]) == [0]
    assert await registry.points([C, B]) == [2, 1]
    registry.close()
    registry = Registry.open(path)
    assert list(registry.table) == [A, B, C]
    assert list(registry.table.devices) == [CAR]
    assert await registry.points([B, Point(id="d"), A]) == [1, 3, 0]
    registry.close()


async def test_declaring_what_is_known_touches_no_file(path):
    registry = declared(path, A, B, devices=[CAR])
    registry.close()  # any write would now fail
    assert await registry.points([B, A]) == [1, 0]
    assert await registry.devices([CAR]) == [0]


async def test_an_adapters_declarations_carry_its_name(path):
    registry = Registry.open(path)
    declare = registry.for_adapter("gas")
    assert await declare.points([A]) == [0]
    assert await declare.devices([CAR]) == [0]
    assert registry.table[0].adapter == "gas"
    assert registry.table.device("car-1").adapter == "gas"
    registry.close()


async def test_the_sites_table_is_laid_over_what_is_declared_and_leaves_when_it_is_taken_out(path):
    configured = [Point(id="a", name="回风", unit="%CH4"), Point(id="own", quantity="rain")]
    registry = Registry.open(path, configured)
    assert ids(registry) == ["a", "own"], "configured points are declared at open"
    assert await registry.points([A]) == [0]
    assert registry.table[0].name == "回风"
    assert (registry.table[0].unit, registry.table[0].quantity) == ("%CH4", "methane")
    registry.close()
    registry = Registry.open(path)
    assert registry.table[0] == A
    assert registry.table[1] == Point(id="own")
    registry.close()


async def test_changes_are_told_once_each_and_only_when_something_changed(path):
    registry, versions = Registry.open(path), []
    registry.on_change = lambda table: versions.append(len(table))
    await registry.points([A, B])
    await registry.points([A])
    await registry.points([Point(id="a", unit="ppm")])
    await registry.devices([CAR])
    assert versions == [2, 2, 2]
    registry.close()


async def test_concurrent_declarations_never_share_an_index(path):
    registry = Registry.open(path)
    points = [Point(id=f"p{i}") for i in range(40)]
    lists = await asyncio.gather(*(registry.points(points[i : i + 5]) for i in range(36)))
    for i, indices in enumerate(lists):
        assert indices == [registry.table.index(p.id) for p in points[i : i + 5]]
    registry.close()
    again = Registry.open(path)
    assert ids(again) == ids(registry)
    again.close()


async def test_a_cancelled_declaration_leaves_no_index_behind_that_could_be_given_twice(path):
    registry = Registry.open(path)
    task = asyncio.create_task(registry.points([A]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await registry.points([B]) == [registry.table.index("b")]
    registry.close()
    again = Registry.open(path)
    assert ids(again) == ids(registry)
    again.close()


async def test_declaring_at_once_while_another_declaration_is_being_written_shares_no_index(path):
    registry = Registry.open(path)
    tasks = [asyncio.create_task(registry.points([p])) for p in (A, B)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert registry.declare_now([C, A]) == [registry.table.index("c"), registry.table.index("a")]
    await asyncio.gather(*tasks)
    registry.close()
    again = Registry.open(path)
    assert ids(again) == ids(registry)
    assert sorted(ids(again)) == ["a", "b", "c"]
    again.close()


async def test_a_listener_may_declare_points_of_its_own(path):
    registry = Registry.open(path)
    registry.on_change = lambda _table: registry.declare_now([Point(id="derived")])
    assert await registry.points([A]) == [0]
    assert ids(registry) == ["a", "derived"]
    assert await registry.points([B]) == [2]
    registry.close()


def destroy(path):
    path.write_bytes(b"\xff" * path.stat().st_size)


def flip_middle(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 3] ^= 0x10
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("victim", ["points.sqlite", "points.journal"])
@pytest.mark.parametrize("damage", ["missing", "destroyed", "flipped", "cut"])
def test_either_file_may_be_damaged_or_gone_and_indices_stay(path, victim, damage):
    declared(path, *(Point(id=f"p{i}", name="名" * i) for i in range(30)), devices=[CAR]).close()
    target = path.parent / victim
    if damage == "missing":
        target.unlink()
    elif damage == "destroyed":
        destroy(target)
    elif damage == "flipped":
        flip_middle(target)
    else:
        target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    for _ in range(2):  # the second time from the repaired files
        registry = Registry.open(path)
        assert ids(registry) == [f"p{i}" for i in range(30)]
        assert [p.name for p in registry.table] == ["名" * i for i in range(30)]
        assert list(registry.table.devices) == [CAR]
        registry.close()
    assert Registry.open(path).recovered == []


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b'"id": "car-1"', b'"ie": "car-1"'),  # the name of the field
        (b'"id": "car-1"', b'"id": "caz-1"'),  # the id in the body
        (b"point (idx INTEGER PRIMARY KEY", b"point (idx INTEGER 0RIMARY KEY"),  # idx reads as NULL
    ],
)
def test_one_bit_of_the_database_that_sqlite_does_not_notice_is_damage(path, good, bad):
    declared(path, A, B, devices=[CAR]).close()
    data = path.read_bytes()
    assert data.count(good) == 1
    path.write_bytes(data.replace(good, bad))
    registry = Registry.open(path)
    assert list(registry.table) == [A, B]
    assert list(registry.table.devices) == [CAR]
    assert path.with_name("points.sqlite.damaged").exists()
    registry.close()


def test_a_damaged_file_is_kept_beside_the_repaired_one(path):
    declared(path, A, B).close()
    destroy(path)
    registry = Registry.open(path)
    assert registry.recovered == ["points.sqlite"]
    assert (path.parent / "points.sqlite.damaged").read_bytes().startswith(b"\xff\xff")
    registry.close()


def test_an_index_that_is_in_neither_copy_is_refused(path):
    declared(path, A, B, C).close()
    path.unlink()
    journal = path.with_suffix(".journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[2])
    with pytest.raises(StorageFault, match="point 1 is in neither"):
        Registry.open(path)


def test_two_copies_that_disagree_are_refused(path):
    declared(path, A, B).close()
    db = sqlite3.connect(path)
    db.execute("UPDATE point SET id = 'z', body = '{\"id\": \"z\"}' WHERE idx = 1")
    db.commit()
    db.close()
    with pytest.raises(StorageFault, match="z here and b in the journal"):
        Registry.open(path)


def test_a_torn_last_line_was_never_acknowledged_and_is_dropped(path):
    declared(path, A).close()
    with path.with_suffix(".journal").open("ab") as file:
        file.write(b'0badc0de ["point", 1, ')
    registry = declared(path, B)
    assert (ids(registry), registry.recovered) == (["a", "b"], [])
    registry.close()
    registry = Registry.open(path)
    assert ids(registry) == ["a", "b"]
    registry.close()


def test_the_journal_is_written_anew_when_it_grows_and_a_generation_is_kept(path):
    registry = Registry.open(path)
    for i in range(200):
        registry.declare_now([Point(id="a", name=str(i))])
    registry.close()
    journal = path.with_suffix(".journal")
    assert journal.read_bytes().count(b"\n") == 200
    registry = Registry.open(path)
    registry.declare_now([B])
    registry.close()
    assert journal.read_bytes().count(b"\n") == 2
    assert (path.parent / "points.journal.1").read_bytes().count(b"\n") == 200
    registry = Registry.open(path)
    assert [p.name for p in registry.table] == ["199", ""]
    registry.close()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_whichever_write_fails_an_index_means_the_same_afterwards(tmp_path, when):
    counting = FailingDisk(10**9)
    live(tmp_path / "count" / "points.sqlite", counting)
    assert counting.count > 6
    for n in range(1, counting.count + 1):
        path = tmp_path / str(n) / "points.sqlite"
        told = live(path, FailingDisk(n, when))
        registry = Registry.open(path)
        for point_id, index in told.items():
            assert registry.table.index(point_id) == index
        registry.declare_now([Point(id="after")])
        registry.close()


def live(path, disk):
    """Declare one after the other until the disk gives out; the indices that were told."""
    told = {}
    try:
        registry = Registry.open(path, disk=disk)
    except StorageFault:
        return told
    for i in range(4):
        try:
            (told[f"p{i}"],) = registry.declare_now([Point(id=f"p{i}")])
        except StorageFault:
            with pytest.raises(StorageFault):
                registry.declare_now([Point(id="more")])
            assert "more" not in registry.table
            break
    registry.close()
    return told


texts = st.text(st.characters(codec="utf-8"), max_size=8)


@pytest.mark.slow
@settings(max_examples=30)
@given(
    names=st.lists(texts, min_size=1, max_size=5),
    numbers=st.lists(
        st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=5, max_size=5
    ),
    states=st.dictionaries(st.integers(-5, 1 << 40), texts, max_size=3),
)
def test_every_point_reads_back_as_it_was_declared(fast_root, names, numbers, states):
    path = Path(tempfile.mkdtemp(dir=fast_root)) / "points.sqlite"
    low, high, interval, *_ = numbers
    points = [
        Point(id=f"{i}", name=name, area=name, range_low=low, range_high=high, interval_s=interval,
              states=states, attributes={name: name}, kind=list(PointKind)[i])
        for i, name in enumerate(names)
    ]  # fmt: skip
    registry = Registry.open(path)
    registry.declare_now(points)
    registry.close()
    again = Registry.open(path)
    assert list(again.table) == points
    again.close()


def test_a_registry_that_cannot_be_opened_is_a_storage_fault(tmp_path):
    class Broken(Disk):
        def connect(self, path, *, read_only=False, immutable=False):
            raise sqlite3.OperationalError("unable to open database file")

    with pytest.raises(StorageFault, match="unable to open"):
        Registry.open(tmp_path / "points.sqlite", disk=Broken())
