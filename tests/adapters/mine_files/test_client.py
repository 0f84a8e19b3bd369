"""The watched folder against a recording house: what is taken, refused, kept, and when removed."""

from __future__ import annotations

import json
import math
import os

import pytest

from adapters.mine_files import folder as module_folder
from gateway.model.errors import SpoolFull, Unavailable
from gateway.model.quality import Quality


async def test_a_file_is_removed_only_after_emit_returned(site, mine) -> None:
    site.house.gate.clear()
    path = site.file("CDSS", [mine.reading()])
    async with site.running():
        await mine.until(lambda: site.house.waiting)
        assert path.exists()
        assert not (site.state_dir / "state.json").exists()
        site.house.gate.set()
        await mine.until(lambda: not path.exists())
        assert site.house.of(mine.reading()["code"]) == [(0.32, 0, mine.t0)]
        assert sorted(p.name for p in site.state_dir.iterdir()) == ["devices.json", "state.json"]


@pytest.mark.parametrize("error", [SpoolFull("full"), RuntimeError("bug"), OSError(28, "no space")])
async def test_a_file_the_house_did_not_take_stays_and_comes_again_the_same(
    site, mine, error
) -> None:
    path = site.file("RYSS", [mine.person(1), mine.person(2)])
    await site.run_until_taken()
    before = list(site.house.samples)
    path = site.file("RYSS", [mine.person(1)], at_s=30)
    site.house.fails = error
    expected = Unavailable if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        await site.run_until_taken()
    assert path.exists()
    site.house.fails = None
    site.restart()
    await site.run_until_taken()
    fresh = site.house.samples[len(before) :]
    assert (f"{mine.card(2)}.area", -1.0, 0, mine.t0 + 30 * mine.second) in fresh


async def test_a_crash_between_emit_and_note_repeats_the_same_samples(
    site, mine, monkeypatch
) -> None:
    site.file("RYSS", [mine.person(1), mine.person(2)])
    await site.run_until_taken()
    site.file("RYSS", [mine.person(1)], at_s=30)
    done = len(site.house.samples)

    def broken(*_args, **_options):
        raise OSError(5, "crash")

    monkeypatch.setattr("adapters.mine_files.client.save_note", broken)
    with pytest.raises(Unavailable):
        await site.run_until_taken()
    first = site.house.samples[done:]
    monkeypatch.undo()
    site.restart()
    await site.run_until_taken()
    assert site.house.samples[done + len(first) :] == first
    assert (f"{mine.card(2)}.area", -1.0, 0, mine.t0 + 30 * mine.second) in first


async def test_a_crash_between_note_and_removal_removes_without_repeating(
    site, mine, monkeypatch
) -> None:
    site.file("CDSS", [mine.reading()])

    def broken(*_args, **_options):
        raise RuntimeError("crash")

    monkeypatch.setattr("adapters.mine_files.folder.Folder.finish", broken)
    with pytest.raises(RuntimeError):
        await site.run_until_taken()
    done = len(site.house.samples)
    monkeypatch.undo()
    site.restart()
    await site.run_until_taken()
    assert len(site.house.samples) == done
    assert site.house.counts["duplicate"] == 1


async def test_who_left_while_the_gateway_was_down_is_found_missing_after_it(site, mine) -> None:
    site.file("RYSS", [mine.person(1), mine.person(2)])
    await site.run_until_taken()
    site.restart()
    site.file("RYSS", [mine.person(1)], at_s=30)
    await site.run_until_taken()
    assert site.house.area_names(f"{mine.card(2)}.area") == [f"{mine.code}0007", "out"]


async def test_a_restart_keeps_the_attributes_of_declared_devices(site, mine) -> None:
    site.file(
        "RYXX",
        [{"card": mine.card(1), "name": "测试甲", "job": "电工"}],
        header={"capacity": "500"},
    )
    area = f"{mine.code}0007"
    site.file("RYQY", [{"area_type": "重点区域", "code": area, "capacity": "30", "name": "面"}])
    await site.run_until_taken()
    site.restart()
    site.file("RYSS", [mine.person(1)], at_s=30)
    await site.run_until_taken()
    table = site.house.table
    assert table.device(mine.card(1)).attributes["job"] == "电工"
    assert table.device(area).attributes["capacity"] == "30"
    assert table.device(mine.code).attributes["capacity"] == "500"


@pytest.mark.parametrize("note", ["state.json", "devices.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"newest_ns": 3}', b"\xff"])
async def test_a_note_nobody_can_read_never_stops_the_start(site, mine, note, content) -> None:
    (site.state_dir / note).write_bytes(content)
    site.file("RYSS", [mine.person(1)])
    await site.run_until_taken()
    assert site.house.area_names(f"{mine.card(1)}.area") == [f"{mine.code}0007"]


# ------------------------------------------------------------------------------- order, duplicates


async def test_declarations_come_first_then_the_older_then_by_name(site, mine) -> None:
    site.file("RYSS", [mine.person(1, area="0009")], at_s=40, folder="rydw")
    site.file("RYSS", [mine.person(1)], at_s=10, folder="rydw")
    site.file("CDSS", [mine.reading(value="2", at_s=20)], at_s=20, folder="aqjk/999901000123")
    site.file("CDSS", [mine.reading(value="1", at_s=5)], at_s=5, folder="aqjk/999901000123")
    site.file("CDDY", [mine.definition()], at_s=30, folder="aqjk")
    site.house.clock_ns += 60 * mine.second
    await site.run_until_taken()
    assert [value for value, _, _ in site.house.of(mine.reading()["code"])] == [1.0, 2.0]
    assert site.house.area_names(f"{mine.card(1)}.area") == [f"{mine.code}0007", f"{mine.code}0009"]
    assert site.house.counts["points_provisional"] == 0
    assert site.house.counts["old_snapshot"] == 0


async def test_the_order_is_the_headers_and_not_the_names(site, mine) -> None:
    late = mine.content("RYSS", [mine.person(1, area="0009")], at_s=5)
    site.put(mine.name_at("RYSS", 0), late)
    site.put(mine.name_at("RYSS", 9), mine.content("RYSS", [mine.person(1)], at_s=1))
    await site.run_until_taken()
    assert site.house.area_names(f"{mine.card(1)}.area") == [f"{mine.code}0007", f"{mine.code}0009"]


async def test_the_same_file_again_is_removed_and_not_taken_again(site, mine) -> None:
    for _ in range(2):
        site.file("CDSS", [mine.reading()])
        await site.run_until_taken()
    assert len(site.house.of(mine.reading()["code"])) == 1
    assert site.house.counts["duplicate"] == 1


async def test_the_same_name_with_another_content_is_taken(site, mine) -> None:
    for value in ("1", "2"):
        site.file("CDSS", [mine.reading(value=value)])
        await site.run_until_taken()
    assert [value for value, _, _ in site.house.of(mine.reading()["code"])] == [1.0, 2.0]


async def test_taken_files_are_remembered_up_to_a_limit(site, mine) -> None:
    site.restart(taken_history_count=3)
    for second in range(5):
        site.file("CDSS", [mine.reading(at_s=second)], at_s=second)
    await site.run_until_taken()
    note = json.loads((site.state_dir / "state.json").read_bytes())
    assert [key.split("_")[2][12:14] for key in note["taken"]] == ["02", "03", "04"]


async def test_a_file_overwritten_while_it_was_taken_is_taken_again(site, mine) -> None:
    site.house.gate.clear()
    path = site.file("CDSS", [mine.reading(value="1")])
    async with site.running():
        await mine.until(lambda: site.house.waiting)
        fresh = path.with_name(".new")
        fresh.write_bytes(mine.content("CDSS", [mine.reading(value="2")]))
        fresh.replace(path)
        site.house.gate.set()
        await mine.until(lambda: not path.exists())
        assert [value for value, _, _ in site.house.of(mine.reading()["code"])] == [1.0, 2.0]


async def test_batches_are_bounded(site, mine) -> None:
    site.restart(batch_rows_max=7)
    site.file("CDSS", [mine.reading(f"MN0001{n:06d}") for n in range(10)])
    await site.run_until_taken()
    assert site.house.batch_sizes == [7, 7, 6]


# ------------------------------------------------------------------------------------- unfinished


async def test_half_a_file_waits_and_is_taken_when_it_is_whole(site, mine) -> None:
    data = mine.content("CDSS", [mine.reading()])
    path = site.put(mine.name_at("CDSS"), data[: len(data) // 2])
    await site.run_rounds()
    assert path.exists()
    assert not site.house.samples
    path.write_bytes(data)
    await site.run_until_taken()
    assert site.house.of(mine.reading()["code"]) == [(0.32, 0, mine.t0)]
    assert not site.side("quarantine")


async def test_half_a_file_goes_to_quarantine_after_the_time_out_with_its_reason(
    site, mine
) -> None:
    data = mine.content("CDSS", [mine.reading()])
    path = site.put(mine.name_at("CDSS"), data[:-1])
    async with site.running():
        await mine.until(lambda: site.adapter._waiting)
        site.house.clock_ns += 599 * mine.second
        marker = site.file("FZSS", [])
        await mine.until(lambda: not marker.exists())
        assert path.exists()
        site.house.clock_ns += mine.second
        await mine.until(lambda: not path.exists())
    assert site.side("quarantine") == [path.name, f"{path.name}.reason.txt"]
    assert "no end mark" in (site.state_dir / "quarantine" / f"{path.name}.reason.txt").read_text()
    assert (site.state_dir / "quarantine" / path.name).read_bytes() == data[:-1]
    assert site.house.counts["rejected.incomplete"] == 1


async def test_a_file_that_still_grows_is_given_its_time(site, mine) -> None:
    data = mine.content("CDSS", [mine.reading()])
    path = site.put(mine.name_at("CDSS"), data[:10])
    async with site.running():
        for size in (20, 30, 40):
            await mine.until(lambda: path in site.adapter._waiting)
            site.house.clock_ns += 400 * mine.second
            seen = site.adapter._waiting[path]
            path.write_bytes(data[:size])
            await mine.until(lambda seen=seen: site.adapter._waiting.get(path) not in (None, seen))
        assert path.exists()
        path.write_bytes(data)
        await mine.until(lambda: not path.exists())
    assert len(site.house.samples) == 2


@pytest.mark.parametrize(("settle", "look"), [("end_mark", 1), ("end_mark_and_unchanged", 2)])
async def test_with_the_stricter_rule_a_finished_file_is_opened_at_the_second_look(
    site, mine, settle, look
) -> None:
    site.restart(settle=settle)
    opened_at = []
    load = site.adapter._folder.load
    site.adapter._folder.load = lambda found: opened_at.append(site.scans) or load(found)
    site.file("CDSS", [mine.reading()])
    await site.run_until_taken()
    assert opened_at == [look]
    assert len(site.house.samples) == 2


# --------------------------------------------------------------------------------------- refused


def whole_file_faults(mine):
    good = mine.content("CDSS", [mine.reading(f"MN0001{n:06d}") for n in range(4)])
    text = good.decode()
    return {
        "encoding": text.encode("gb18030"),
        "header": text.replace(mine.code, "999902000999", 1).encode(),
        "future_time": text.replace("08:00:00~", "08:05:11~", 1).encode(),
        "bad_records": text.replace("||", "x~y~||").encode(),
        "too_many_records": text.replace("||", "~" * 100_002 + "||").encode(),
    }


@pytest.mark.parametrize(
    "reason", ["encoding", "header", "future_time", "bad_records", "too_many_records"]
)
async def test_a_whole_file_fault_goes_to_quarantine_with_its_reason(site, mine, reason) -> None:
    data = whole_file_faults(mine)[reason]
    path = site.put(mine.name_at("CDSS"), data)
    await site.run_until_taken()
    assert site.house.counts[f"rejected.{reason}"] == 1
    assert not site.house.samples
    assert site.side("quarantine") == [path.name, f"{path.name}.reason.txt"]
    assert (site.state_dir / "quarantine" / path.name).read_bytes() == data
    note = (site.state_dir / "quarantine" / f"{path.name}.reason.txt").read_text()
    assert len(note.splitlines()) == (3 if reason == "bad_records" else 1)


async def test_a_header_five_minutes_ahead_is_taken(site, mine) -> None:
    site.file("CDSS", [mine.reading()], at_s=310)
    await site.run_until_taken()
    assert site.house.counts["accepted.CDSS"] == 1


async def test_a_partly_bad_file_is_taken_and_its_bad_records_are_kept(site, mine) -> None:
    data = mine.content("CDSS", [mine.reading(f"MN0001{n:06d}") for n in range(8)])
    data = data.replace(b"||", b"first;bad~" + b"||")
    data = data.replace(b"~||", b"~ZZ;x;x;1;;0;2026-01-15 08:00:00~||")
    path = site.put(mine.name_at("CDSS"), data)
    await site.run_until_taken()
    assert len(site.house.samples) == 16
    assert site.side("quarantine") == [f"{path.name}.rejected.txt"]
    lines = (site.state_dir / "quarantine" / f"{path.name}.rejected.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["record 9", "record 10"]
    assert site.house.counts["records_rejected.layout"] == 1
    assert site.house.counts["records_rejected.unknown_point"] == 1


async def test_a_file_of_another_mine_is_refused_where_one_is_configured(site, mine) -> None:
    site.restart(mine_code="999901000999")
    path = site.file("CDSS", [mine.reading()])
    await site.run_until_taken()
    assert site.house.counts["rejected.other_mine"] == 1
    assert path.name in site.side("quarantine")


async def test_the_quarantine_is_bounded_and_drops_the_oldest(site, mine) -> None:
    site.restart(quarantine_files_max=6)
    for second in range(5):
        site.put(mine.name_at("CDSS", second), whole_file_faults(mine)["encoding"])
        await site.run_until_taken()
    names = site.side("quarantine")
    assert len(names) <= 6
    assert mine.name_at("CDSS", 4) in names
    assert mine.name_at("CDSS", 0) not in names
    assert site.house.counts["dropped.quarantine_full"] >= 4


async def test_two_refused_files_of_one_name_both_stay(site, mine) -> None:
    for data in (b"\xff||", b"\xfe||"):
        site.put(mine.name_at("CDSS"), data)
        await site.run_until_taken()
    name = mine.name_at("CDSS")
    assert site.side("quarantine") == sorted(
        [name, f"{name}.reason.txt", f"{name}.1", f"{name}.1.reason.txt"]
    )


async def test_a_later_good_file_of_the_same_name_is_taken(site, mine) -> None:
    site.put(mine.name_at("CDSS"), b"\xff||")
    await site.run_until_taken()
    site.file("CDSS", [mine.reading()])
    await site.run_until_taken()
    assert site.house.counts["accepted.CDSS"] == 1


# ----------------------------------------------------------------------------------- other kinds


@pytest.mark.parametrize("kind", ["YCBJ", "FZDY", "RYCS", "NCDDY", "SBCDSS", "NEVERSEEN"])
async def test_other_kinds_are_kept_aside_and_counted(site, mine, kind) -> None:
    path = site.put(mine.name_at(kind), b"anything||")
    await site.run_until_taken()
    assert site.side("unhandled") == [path.name]
    assert (site.state_dir / "unhandled" / path.name).read_bytes() == b"anything||"
    word = "unknown_kind" if kind == "NEVERSEEN" else kind  # a sender's word is no reason of ours
    assert site.house.counts[f"unhandled.{word}"] == 1


async def test_a_snapshot_of_the_other_family_is_kept_aside(site, mine) -> None:
    name = "999901B0012000200001_RYSS_20260115080000.txt"
    site.put(name, b"2026-01-15 08:00:00;309;x/y;~||")
    await site.run_until_taken()
    assert site.side("unhandled") == [name]


async def test_other_kinds_without_an_end_mark_wait_for_the_time_out(site, mine) -> None:
    path = site.put("999901B0012000200001_RTDATA_20260115080000.txt", b"2026-01-15 08:00:00~\n")
    await site.run_rounds()
    assert path.exists()
    async with site.running():
        await mine.until(lambda: site.adapter._waiting)
        site.house.clock_ns += 600 * mine.second
        await mine.until(lambda: not path.exists())
    assert path.name in site.side("unhandled")


async def test_a_full_folder_for_other_kinds_leaves_further_files_where_they_are(
    site, mine
) -> None:
    site.restart(unhandled_bytes_max=15)
    site.put(mine.name_at("YCBJ", 0), b"0123456789||")
    second = site.put(mine.name_at("YCBJ", 1), b"0123456789||")
    await site.run_until(lambda: site.house.counts["unhandled_left.YCBJ"])
    assert second.exists()
    assert site.side("unhandled") == [mine.name_at("YCBJ", 0)]


# ------------------------------------------------------------------------------------- not files


async def test_what_is_no_file_of_ours_is_left_and_counted_once(site, mine, tmp_path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_bytes(mine.content("CDSS", [mine.reading()]))
    (site.folder / mine.name_at("CDSS", 1)).symlink_to(outside)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / mine.name_at("CDSS", 2)).write_bytes(outside.read_bytes())
    (site.folder / "linked").symlink_to(tmp_path / "elsewhere")
    site.put(f".{mine.name_at('CDSS', 3)}", outside.read_bytes())
    site.put(f"{mine.name_at('CDSS', 4)}.tmp", outside.read_bytes())
    site.put("readme.txt", b"hello")
    site.put(mine.name_at("CDSS", 5), outside.read_bytes(), folder="a/b/c")
    os.mkfifo(site.folder / mine.name_at("CDSS", 6))
    before = site.left()
    await site.run_rounds()
    await site.run_rounds()
    assert site.left() == before
    assert not site.house.samples
    got = {key: n for key, n in site.house.counts.items() if key.startswith("ignored")}
    assert got == {
        "ignored.symlink": 2,
        "ignored.dot_file": 1,
        "ignored.name": 2,
        "ignored.too_deep": 1,
        "ignored.not_a_file": 1,
    }


async def test_any_number_of_strange_files_hides_none_of_ours(site, mine, monkeypatch) -> None:
    monkeypatch.setattr("adapters.mine_files.folder.SCAN_FILES_MAX", 3)
    for number in range(100):
        site.put(f"junk{number}.dat", b"")
    site.file("CDSS", [mine.reading()], folder="a")
    site.file("CDSS", [mine.reading(at_s=1)], at_s=1)
    await site.run_until(lambda: site.house.counts["accepted.CDSS"] == 2)
    assert site.house.counts["ignored.name"] == 3  # what is remembered is bounded


async def test_any_number_of_files_that_wait_hides_none_that_is_whole(
    site, mine, monkeypatch
) -> None:
    monkeypatch.setattr("adapters.mine_files.folder.SCAN_FILES_MAX", 3)
    for second in range(20):  # unfinished, each for ten minutes: they came first
        site.put(mine.name_at("CDSS", second), b"not finished")
    async with site.running():
        await mine.until(lambda: len(site.adapter._waiting) == 20)
        site.file("CDSS", [mine.reading(at_s=60)], at_s=60)
        await mine.until(lambda: site.house.counts["accepted.CDSS"] == 1)
    assert len(site.left()) == 20


async def test_more_waiting_files_than_are_remembered_is_told(site, mine, monkeypatch) -> None:
    for module in ("client", "folder"):
        monkeypatch.setattr(f"adapters.mine_files.{module}.HELD_FILES_MAX", 3)
    for second in range(6):
        site.put(mine.name_at("CDSS", second), b"not finished")
    await site.run_until(lambda: site.house.counts["crowded"])
    assert ("faulty", "more than 3 files wait unfinished") in site.house.says


@pytest.mark.parametrize("thing", ["pipe", "folder", "link", "nothing"])
async def test_what_takes_a_files_place_after_it_was_listed_holds_nobody_up(
    site, mine, thing
) -> None:
    path = site.file("CDSS", [mine.reading()])
    folder = site.adapter._folder
    (found,) = folder.scan().found
    path.unlink()
    if thing == "pipe":
        os.mkfifo(path)
    elif thing == "folder":
        path.mkdir()
    elif thing == "link":
        path.symlink_to("/dev/zero")
    assert folder.load(found) is None
    assert folder.tail(found) == b""
    assert module_folder._order_time(found) is not None  # by its name


async def test_a_backlog_is_opened_once_for_its_order_however_often_it_is_listed(
    site, mine, monkeypatch
) -> None:
    for second in range(5):
        site.file("CDSS", [mine.reading()], at_s=second)
    opened = []
    real = module_folder._order_time
    monkeypatch.setattr(
        module_folder, "_order_time", lambda found: opened.append(found.path) or real(found)
    )
    first = [found.path for found in site.adapter._folder.scan().found]
    assert [found.path for found in site.adapter._folder.scan().found] == first
    assert sorted(opened) == sorted(first)


def test_a_name_sent_again_and_again_is_numbered_without_a_search(tmp_path, monkeypatch) -> None:
    shelf = module_folder.Shelf(tmp_path / "shelf", files_max=10_000, bytes_max=10_000)
    looked = []
    real = module_folder.Path.exists
    monkeypatch.setattr(
        module_folder.Path, "exists", lambda path, **k: looked.append(path) or real(path, **k)
    )
    for _ in range(50):
        (tmp_path / "x").write_bytes(b"")
        shelf.put(tmp_path / "x", "x")
    assert sorted(p.name for p in shelf.path.iterdir()) == sorted(
        ["x", *(f"x.{n}" for n in range(1, 50))]
    )
    assert len(looked) <= 110


async def test_a_sub_folder_that_may_not_be_read_costs_only_itself(site, mine, monkeypatch) -> None:
    closed = site.file("CDSS", [mine.reading()], folder="closed").parent
    site.file("CDSS", [mine.reading(at_s=1)], at_s=1, folder="open")
    real = os.scandir

    def scandir(path):
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr("adapters.mine_files.folder.os.scandir", scandir)
    await site.run_until(lambda: site.house.counts["accepted.CDSS"])
    assert site.house.counts["ignored.permission"] == 1


async def test_a_file_that_vanishes_or_becomes_a_link_before_it_is_opened_is_left(
    site, mine, tmp_path
) -> None:
    gone = site.file("CDSS", [mine.reading()])
    link = site.file("CDSS", [mine.reading(at_s=1)], at_s=1)
    scan = site.adapter._folder.scan()
    gone.unlink()
    link.rename(tmp_path / "target")
    link.symlink_to(tmp_path / "target")
    assert [site.adapter._folder.load(found) for found in scan.found] == [None, None]


async def test_a_file_that_grew_beyond_the_limit_since_it_was_seen_is_not_loaded(
    site, mine
) -> None:
    data = mine.content("CDSS", [mine.reading()])
    site.restart(file_size_max_bytes=len(data))
    path = site.file("CDSS", [mine.reading()])
    scan = site.adapter._folder.scan()
    path.write_bytes(data + b"x")
    assert site.adapter._folder.load(scan.found[0]) is None


async def test_files_two_folders_down_are_found(site, mine) -> None:
    site.file("CDSS", [mine.reading()], folder="aqjk/999901000123")
    await site.run_until_taken()
    assert site.house.counts["accepted.CDSS"] == 1


async def test_side_folders_inside_the_watched_one_are_not_watched(site, mine) -> None:
    site.restart(
        quarantine_folder=str(site.folder / "bad"),
        unhandled_folder=str(site.folder / "other"),
        archive_folder=str(site.folder / "done"),
        done="archive",
    )
    for name, data in [
        (mine.name_at("CDSS", 0), b"\xff||"),
        (mine.name_at("YCBJ", 0), b"x||"),
        (mine.name_at("CDSS", 1), mine.content("CDSS", [mine.reading()])),
    ]:
        site.put(name, data)
    await site.run_until(lambda: not [p for p in site.folder.iterdir() if p.is_file()])
    await site.run_rounds()
    assert (site.folder / "bad" / mine.name_at("CDSS", 0)).exists()
    assert (site.folder / "other" / mine.name_at("YCBJ", 0)).exists()
    assert (site.folder / "done" / mine.name_at("CDSS", 1)).exists()
    assert site.house.counts["accepted.CDSS"] == 1


# ----------------------------------------------------------------------------------------- limits


async def test_a_file_over_the_size_limit_is_quarantined_unopened(site, mine) -> None:
    data = mine.content("CDSS", [mine.reading()])
    site.restart(file_size_max_bytes=len(data))
    site.file("CDSS", [mine.reading()])
    larger = site.put(mine.name_at("CDSS", 1), data + b"\n")
    async with site.running():
        await mine.until(lambda: larger in site.adapter._waiting and len(site.left()) == 1)
        site.house.clock_ns += 600 * mine.second
        await mine.until(lambda: not larger.exists())
    assert site.house.counts["rejected.size"] == 1
    assert site.house.counts["accepted.CDSS"] == 1
    assert larger.name in site.side("quarantine")


@pytest.mark.slow
async def test_a_file_of_just_under_twenty_megabytes_is_taken(site, mine) -> None:
    records = [mine.reading(f"MN0001{n:06d}", location="x" * 9_800) for n in range(2_000)]
    data = mine.content("CDSS", records)
    assert 19_000_000 < len(data) <= 20_000_000
    site.put(mine.name_at("CDSS"), data)
    await site.run_until(lambda: not site.left(), timeout_s=30)
    assert len(site.house.samples) == 4_000


async def test_a_file_too_large_even_for_the_quarantine_stays(site, mine) -> None:
    site.restart(file_size_max_bytes=10, quarantine_bytes_max=30, incomplete_timeout_s=0.001)
    path = site.put(mine.name_at("CDSS"), b"x" * 20)
    async with site.running():
        await mine.until(lambda: site.adapter._waiting)
        site.house.clock_ns += mine.second
        await mine.until(lambda: site.house.counts["rejected.size"])
    assert path.exists()
    assert site.house.says[-1][0] == "faulty"


async def test_taken_files_are_archived_within_bounds_when_asked(site, mine) -> None:
    site.restart(done="archive", archive_files_max=10)
    for second in range(11):
        site.file("CDSS", [mine.reading(at_s=second)], at_s=second)
    await site.run_until_taken()
    names = site.side("archive")
    assert len(names) == 9
    assert mine.name_at("CDSS", 10) in names
    assert mine.name_at("CDSS", 0) not in names
    assert site.house.counts["dropped.archive_full"] == 2


# ---------------------------------------------------------------------------------------- trouble


async def test_a_missing_folder_is_unavailable(site) -> None:
    site.folder.rmdir()
    with pytest.raises(Unavailable, match="folder"):
        await site.run_until(lambda: False)


async def test_a_file_that_cannot_be_removed_holds_nobody_up_and_is_not_repeated(
    site, mine, monkeypatch
) -> None:
    first = site.file("CDSS", [mine.reading(value="1")])
    real = type(site.adapter._folder).finish

    def stubborn(self, found, *, keep):
        if found.path == first:
            raise PermissionError(13, "Permission denied")
        return real(self, found, keep=keep)

    monkeypatch.setattr("adapters.mine_files.folder.Folder.finish", stubborn)
    second = site.file("CDSS", [mine.reading(value="2", at_s=1)], at_s=1)
    await site.run_until(lambda: not second.exists())
    await site.run_rounds()
    assert [value for value, _, _ in site.house.of(mine.reading()["code"])] == [1.0, 2.0]
    assert site.house.counts["stuck.PermissionError"] >= 1
    assert ("faulty", f"{first.name}: Permission denied") in site.house.says


async def test_bad_records_that_cannot_be_noted_cost_only_the_note(site, mine, monkeypatch) -> None:
    def broken(*_args):
        raise OSError(28, "No space left")

    monkeypatch.setattr("adapters.mine_files.folder.Shelf.note", broken)
    data = mine.content("CDSS", [mine.reading(f"MN0001{n:06d}") for n in range(8)])
    site.put(mine.name_at("CDSS"), data.replace(b"||", b"bad~||"))
    await site.run_until_taken()
    assert len(site.house.samples) == 16
    assert site.house.counts["note_failed.OSError"] == 1


async def test_a_move_to_another_file_system_copies_first(site, mine, monkeypatch) -> None:
    from pathlib import Path

    real = Path.rename

    def other_device(self, target):
        if Path(target).parent != self.parent:
            raise OSError(18, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", other_device)
    site.put(mine.name_at("CDSS"), b"\xff||")
    await site.run_until_taken()
    assert (site.state_dir / "quarantine" / mine.name_at("CDSS")).read_bytes() == b"\xff||"


async def test_the_status_tells_waiting_connected_and_faulty(site, mine) -> None:
    site.file("CDSS", [mine.reading()])
    await site.run_until_taken()
    site.put(mine.name_at("CDSS", 1), b"\xff||")
    await site.run_until_taken()
    assert [state for state, _ in site.house.says] == ["waiting", "connected", "waiting", "faulty"]


async def test_quality_reaches_the_batch(site, mine) -> None:
    site.file("CDSS", [mine.reading(value="-9999", state="128")])
    await site.run_until_taken()
    ((value, quality, _),) = site.house.of(mine.reading()["code"])
    assert math.isnan(value)
    assert quality == Quality.BAD_SENSOR_FAULT
