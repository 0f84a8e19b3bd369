"""Every attack on a journal, done on real files by somebody who knows the format, and found."""

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from gateway.alarms.anchors import ANCHORS, NO_POINTER, SignedAnchor, parse_anchor
from gateway.alarms.chain import GENESIS, link
from gateway.alarms.database import DATABASE
from gateway.alarms.journal import Journal
from gateway.alarms.reader import JournalReader
from gateway.alarms.record import encode
from gateway.alarms.signing import KEY, PUBLIC_KEY, SigningKey, read_public_keys
from gateway.alarms.verify import VerifyReport, verify_journal
from gateway.model.alarm import Transition
from gateway.model.errors import ConfigError
from gateway.testing.alarms import S, make_event

COUNT = 40
CUT = [10, 20, 30, 40]  # an anchor after each of these


def event(gseq: int, **more):
    return make_event(gseq, key=f"p{gseq % 5}:r", time_ns=gseq * S, **more)


def fill(directory: Path, *, make=event, count: int = COUNT) -> list[SignedAnchor]:
    """A journal of COUNT events as a gateway leaves it, and every anchor it handed out."""
    journal = Journal.open(directory, reserve_bytes=0)
    handed_out = [journal.sign(0, occasion="start")]
    for last in range(10, count + 1, 10):
        journal.append([make(gseq) for gseq in range(last - 9, last + 1)])
        handed_out.append(journal.sign(last * S))
    handed_out.append(journal.sign((count + 1) * S, occasion="stop"))
    journal.close()
    return handed_out


@pytest.fixture(scope="module")
def master(tmp_path_factory) -> tuple[Path, list[SignedAnchor]]:
    directory = tmp_path_factory.mktemp("master") / "j"
    return directory, fill(directory)


@pytest.fixture
def where(master, tmp_path: Path) -> Path:
    shutil.copytree(master[0], tmp_path / "j")
    return tmp_path / "j"


@pytest.fixture
def kept(master, tmp_path: Path) -> Path:
    """What the centre kept: the anchors at 10 and 30, as heartbeats under their topic, repeated."""
    path = tmp_path / "kept.jsonl"
    lines = []
    for anchor in (a for a in master[1] if a.gseq in (10, 30)):
        heartbeat = orjson.dumps({"epoch": 1, "head_gseq": 30, "anchor": anchor.as_json()})
        lines += [b"hg/v1/t/s/alarm/heartbeat " + heartbeat + b"\n"] * 3
    path.write_bytes(b"".join(lines))
    return path


def found(report: VerifyReport) -> list[tuple[str, int, int]]:
    return [(f.kind, f.first_gseq, f.last_gseq) for f in report.findings]


# --- what an attacker does


def rows_of(where: Path) -> list[list]:
    with contextlib.closing(sqlite3.connect(where / DATABASE)) as db:
        return [list(row) for row in db.execute("SELECT * FROM event ORDER BY gseq")]


def put_rows(where: Path, rows: list[list]) -> None:
    """The whole event table as `rows`, with the head, and the live table, that belong to it."""
    with contextlib.closing(sqlite3.connect(where / DATABASE)) as db:
        db.execute("DELETE FROM event")
        db.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.execute("UPDATE meta SET value = ? WHERE name = 'head'", (rows[-1][0],))
        db.execute("UPDATE meta SET value = ? WHERE name = 'head_hash'", (rows[-1][8],))
        live = {row[2]: orjson.loads(row[6])["alarm"] for row in rows}
        db.execute("DELETE FROM live")
        for key, alarm in live.items():
            record = orjson.dumps(alarm, option=orjson.OPT_SORT_KEYS)
            db.execute("INSERT INTO live VALUES (?, ?, x'00')", (key, record))
        db.commit()


def row_of(made) -> list:
    record = encode(made)[0]
    return [made.alarm.gseq, made.time_ns, made.alarm.alarm_key, made.transition.value,
            made.alarm.rule_kind, 0, record, b"", b""]  # fmt: skip


def chained(rows: list[list]) -> list[list]:
    """Numbered from 1 and hashed anew throughout: whole to anybody without an anchor."""
    prev, made = GENESIS, []
    for gseq, row in enumerate(rows, 1):
        body = orjson.loads(row[6])
        body["alarm"]["gseq"] = gseq
        record = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        total = link(prev, gseq, record)
        made.append([gseq, *row[1:6], record, prev, total])
        prev = total
    return made


def edited(row: list) -> list:
    return [*row[:6], row[6].replace(b'"value":1.5', b'"value":0.5'), *row[7:]]


def sql(*statements: str) -> Callable[[Path], None]:
    def attack(where: Path) -> None:
        with contextlib.closing(sqlite3.connect(where / DATABASE)) as db:
            for statement in statements:
                db.execute(statement)
            db.commit()

    return attack


def rewrite(change: Callable[[list[list]], list[list]]) -> Callable[[Path], None]:
    return lambda where: put_rows(where, change(rows_of(where)))


def edit_and_hash_one(rows: list[list]) -> list[list]:
    row = edited(rows[19])
    row[8] = link(row[7], 20, row[6])
    return [*rows[:19], row, *rows[20:]]


def put_in_and_renumber(rows: list[list]) -> list[list]:
    forged = row_of(event(15, transition=Transition.ACKNOWLEDGED))
    forged[7] = rows[13][8]
    forged[8] = link(forged[7], 15, forged[6])
    return [*rows[:14], forged, *([row[0] + 1, *row[1:]] for row in rows[14:])]


def put_in_by_chain(rows: list[list]) -> list[list]:
    """Instead of 15 to 17, three of the attacker's own; 18 stays as it was."""
    prev, forged = rows[14][8], []
    for gseq in (16, 17):
        row = row_of(event(gseq, transition=Transition.ACKNOWLEDGED))
        row[7], row[8] = prev, link(prev, gseq, row[6])
        prev = row[8]
        forged.append(row)
    return [*rows[:15], *forged, *rows[17:]]


def append_one(rows: list[list]) -> list[list]:
    row = row_of(event(COUNT + 1))
    row[7], row[8] = rows[-1][8], link(rows[-1][8], COUNT + 1, row[6])
    return [*rows, row]


def append_one_only(where: Path) -> None:
    row = append_one(rows_of(where))[-1]
    with contextlib.closing(sqlite3.connect(where / DATABASE)) as db:
        db.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        db.execute("UPDATE live SET record = ? WHERE alarm_key = ?", (orjson.dumps(orjson.loads(row[6])["alarm"], option=orjson.OPT_SORT_KEYS), row[2]))  # fmt: skip
        db.commit()


def cut_and_append(rows: list[list]) -> list[list]:
    others = [row_of(event(gseq, kind="other")) for gseq in range(26, COUNT + 1)]
    return chained([*rows[:25], *others])


def another_journal(rows: list[list]) -> list[list]:
    return chained([row_of(make_event(gseq, key="harmless:r")) for gseq in range(1, COUNT + 3)])


SWAP = sql(
    "UPDATE event SET gseq = -1 WHERE gseq = 20",
    "UPDATE event SET gseq = 20 WHERE gseq = 21",
    "UPDATE event SET gseq = 21 WHERE gseq = -1",
)
COPY = "INSERT INTO event SELECT {}, time_ns, alarm_key, transition, rule_kind, late, record, prev, hash FROM event WHERE gseq = {}"

# What is done, what is found without anything from outside. The live table is made to fit where
# that is part of the attack, so that nothing is found by it.
ATTACKS = [
    ("edit", sql("UPDATE event SET record = replace(record, 'UNACK', 'ACKED') WHERE gseq = 20"), [("edit", 20, 20)]),
    ("edit three", sql("UPDATE event SET record = replace(record, '1.5', '0.5') WHERE gseq IN (20, 21, 22, 30)"), [("edit", 20, 22), ("edit", 30, 30)]),
    ("edit a column only", sql("UPDATE event SET time_ns = 1 WHERE gseq = 20"), [("edit", 20, 20)]),
    ("put nonsense", sql("UPDATE event SET record = x'00ff' WHERE gseq = 20"), [("edit", 20, 20)]),
    ("edit and hash that one", rewrite(edit_and_hash_one), [("edit", 11, 20)]),
    ("edit and hash all after", rewrite(lambda r: chained([*r[:19], edited(r[19]), *r[20:]])), [("rewritten", 11, 40)]),
    ("edit the last and hash it", rewrite(lambda r: chained([*r[:39], edited(r[39])])), [("rewritten", 31, 40)]),
    ("insert a copy at the end", sql(COPY.format(41, 40)), [("insert", 41, 41)]),
    ("insert an old copy at the end", sql(COPY.format(41, 7)), [("insert", 41, 41)]),
    ("insert a copy before the first", sql(COPY.format(0, 1)), [("insert", 0, 0)]),
    ("insert a number below", sql(COPY.format(-5, 1)), [("insert", -5, -5)]),
    ("insert one and renumber", rewrite(put_in_and_renumber), [("insert", 15, 15)]),
    ("put two in place of two", rewrite(put_in_by_chain), [("edit", 11, 17)]),
    ("insert one and hash all", rewrite(lambda r: chained([*r[:14], row_of(event(99)), *r[14:]])), [("rewritten", 11, 41)]),
    ("append one, chained", append_one_only, [("insert", 41, 41)]),
    ("delete", sql("DELETE FROM event WHERE gseq = 20"), [("delete", 20, 20)]),
    ("delete the middle", sql("DELETE FROM event WHERE gseq BETWEEN 10 AND 30"), [("delete", 10, 30)]),
    ("delete the beginning", sql("DELETE FROM event WHERE gseq <= 10"), [("delete", 1, 10)]),
    ("delete one and renumber", sql("DELETE FROM event WHERE gseq = 20", "UPDATE event SET gseq = gseq - 1 WHERE gseq > 20"), [("delete", 20, 20)]),
    ("delete three and renumber", sql("DELETE FROM event WHERE gseq BETWEEN 18 AND 20", "UPDATE event SET gseq = gseq - 3 WHERE gseq > 20"), [("delete", 18, 20)]),
    ("delete and hash all", rewrite(lambda r: chained([*r[:19], *r[20:]])), [("truncate", 40, 40), ("rewritten", 11, 39)]),
    ("reorder", SWAP, [("reorder", 20, 21)]),
    ("take the first below all", sql("UPDATE event SET gseq = -1 WHERE gseq = 1"), [("reorder", -1, 1)]),
    ("put a later one over an earlier", sql("UPDATE OR REPLACE event SET gseq = 7 WHERE gseq = 32"), [("reorder", 7, 7), ("delete", 7, 7), ("delete", 32, 32)]),
    ("reorder and hash all", rewrite(lambda r: chained([*r[:19], r[20], r[19], *r[21:]])), [("rewritten", 11, 40)]),
    ("cut off the end", rewrite(lambda r: r[:33]), [("truncate", 34, 40)]),
    ("cut off at an anchor", rewrite(lambda r: r[:30]), [("truncate", 31, 40)]),
    ("cut off and append", rewrite(cut_and_append), [("rewritten", 21, 40)]),
    ("cut off and append fewer", rewrite(lambda r: cut_and_append(r)[:28]), [("truncate", 29, 40)]),
    ("another journal", rewrite(another_journal), [("regenesis", 1, 42)]),
    ("another journal, shorter", rewrite(lambda r: another_journal(r)[:25]), [("truncate", 26, 40), ("regenesis", 1, 25)]),
    ("edit the live table", sql("UPDATE live SET record = replace(record, 'UNACK', 'ACKED') WHERE alarm_key = 'p3:r'"), [("live", 38, 38)]),
    ("delete from the live table", sql("DELETE FROM live WHERE alarm_key = 'p4:r'"), [("live", 39, 39)]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "attack", "expected"), ATTACKS, ids=[row[0] for row in ATTACKS])
def test_an_attack_on_the_events_is_found_with_its_kind_and_its_range(
    where: Path, name, attack, expected
) -> None:
    assert verify_journal(where).ok
    attack(where)
    report = verify_journal(where)
    seen = [item for item in found(report) if item[0] != "live" or expected[0][0] == "live"]
    assert seen == expected, report.findings


def test_a_journal_nobody_touched_is_whole_and_says_how_far_that_is_proved(
    where: Path, kept: Path, master
) -> None:
    report = verify_journal(where, outside=kept)
    assert (report.ok, report.event_count, report.head.gseq) == (True, COUNT, COUNT)
    assert report.local == (6, 40, 41 * S)
    assert report.outside == (2, 30, 30 * S)
    assert report.keys == (master[1][0].key.id,)
    assert report.notes == ()
    assert orjson.loads(orjson.dumps(report.as_json()))["outside"]["gseq"] == 30


COLUMNS = [
    "gseq",
    "time_ns",
    "alarm_key",
    "transition",
    "rule_kind",
    "late",
    "record",
    "prev",
    "hash",
]
OTHERS = [0, 7, -1, 10**12, "x", b"x", b"", bytes(32), 1.5]


def test_any_value_of_any_event_changed_to_anything_is_found_at_that_event(
    where: Path, tmp_path: Path
) -> None:
    rng = random.Random(11)
    for case in range(60):
        copy = tmp_path / str(case)
        shutil.copytree(where, copy)
        gseq, column, value = rng.randrange(1, COUNT + 1), rng.choice(COLUMNS), rng.choice(OTHERS)
        with contextlib.closing(sqlite3.connect(copy / DATABASE)) as db:
            question = (
                f"UPDATE OR REPLACE event SET {column} = ? WHERE gseq = ? AND {column} IS NOT ?"
            )
            try:
                changed = db.execute(question, (value, gseq, value)).rowcount
            except sqlite3.IntegrityError:
                continue  # SQLite itself takes no such number
            db.commit()
        report = verify_journal(copy)
        told = f"case {case}: {column} of {gseq} is {value!r}: {report.findings}"
        assert report.ok == (not changed), told
        if changed:
            assert any(f.first_gseq <= gseq <= f.last_gseq for f in report.findings), told
        shutil.rmtree(copy)


def test_any_byte_of_the_anchors_changed_is_found(where: Path) -> None:
    data = (where / ANCHORS).read_bytes()
    rng = random.Random(12)
    for _ in range(60):
        at = rng.randrange(len(data))
        byte = bytes([data[at] ^ (1 << rng.randrange(8))])
        (where / ANCHORS).write_bytes(data[:at] + byte + data[at + 1 :])
        assert not verify_journal(where).ok, f"byte {at}"
        (where / ANCHORS).write_bytes(data[:at] + data[at + 1 :])
        assert not verify_journal(where).ok, f"without byte {at}"


# --- attacks on the anchors


def lines_of(where: Path) -> list[bytes]:
    return (where / ANCHORS).read_bytes().splitlines(keepends=True)


def anchors(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    return lambda where: (where / ANCHORS).write_bytes(b"".join(change(lines_of(where))))


def note_end(where: Path) -> None:
    """The journal's note of its newest anchor made to fit the file."""
    lines = lines_of(where)
    note = (parse_anchor(lines[-1]).pointer if lines else NO_POINTER).pack()
    with contextlib.closing(sqlite3.connect(where / DATABASE)) as db:
        db.execute("UPDATE meta SET value = ? WHERE name = 'anchor'", (note,))
        db.commit()


def sign_anew(where: Path, key: SigningKey) -> None:
    """Every anchor again, for the events as they are now: what somebody with a key can do."""
    rows = {row[0]: row[8] for row in rows_of(where)} | {0: GENESIS}
    last, made, prev = max(rows), [], NO_POINTER
    for line in lines_of(where):
        old = parse_anchor(line)
        gseq = min(old.gseq, last)
        new = replace(
            old, no=prev.no + 1, prev=prev.digest, gseq=gseq, head=rows[gseq], key=key.public
        )
        made.append(new.signed_by(key).line)
        prev = parse_anchor(made[-1]).pointer
    (where / ANCHORS).write_bytes(b"".join(made))
    note_end(where)


def own_key(where: Path) -> SigningKey:
    return SigningKey.load(where / KEY)


def replace_key(where: Path) -> None:
    (where / KEY).unlink()
    key = SigningKey.create(where / KEY)
    (where / PUBLIC_KEY).write_text(key.public.line + "\n")
    sign_anew(where, key)


ANCHOR_ATTACKS = [
    ("edit the time", anchors(lambda ls: [*ls[:2], ls[2].replace(b'"time_ns":20', b'"time_ns":25'), *ls[3:]]), {"anchors_edited"}),
    ("edit the head", anchors(lambda ls: [*ls[:2], ls[2].replace(b'"head":"', b'"head":"00')[:-4] + ls[2][-2:], *ls[3:]]), {"anchors_edited"}),
    ("write a line otherwise", anchors(lambda ls: [*ls[:2], ls[2].replace(b",", b", "), *ls[3:]]), {"anchors_edited"}),
    ("delete one", anchors(lambda ls: [*ls[:2], *ls[3:]]), {"anchors_cut"}),
    ("delete the first", anchors(lambda ls: ls[1:]), {"anchors_cut"}),
    ("swap two", anchors(lambda ls: [ls[0], ls[2], ls[1], *ls[3:]]), {"anchors_cut", "anchors_edited"}),
    ("repeat one", anchors(lambda ls: [*ls[:2], ls[1], *ls[2:]]), {"anchors_edited"}),
    ("cut off the end", anchors(lambda ls: ls[:3]), {"anchors_cut"}),
    ("cut in the middle of a line", anchors(lambda ls: [*ls[:-1], ls[-1][:99]]), {"anchors_cut"}),
    ("empty", anchors(lambda ls: []), {"anchors_missing", "anchors_cut"}),
    ("remove", lambda where: (where / ANCHORS).unlink(), {"anchors_missing", "anchors_cut"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "attack", "kinds"), ANCHOR_ATTACKS, ids=[row[0] for row in ANCHOR_ATTACKS]
)
def test_an_attack_on_the_anchors_is_found(where: Path, name, attack, kinds) -> None:
    attack(where)
    report = verify_journal(where)
    assert {kind for kind, *_ in found(report)} == kinds, report.findings


def test_the_anchors_of_another_gateway_are_found_by_the_note_and_by_the_events(
    where: Path, tmp_path: Path
) -> None:
    fill(tmp_path / "other", make=lambda gseq: make_event(gseq, key="x:r"))
    shutil.copyfile(tmp_path / "other" / ANCHORS, where / ANCHORS)
    kinds = {kind for kind, *_ in found(verify_journal(where))}
    assert kinds == {"anchors_edited", "regenesis"}


def truncate_all(where: Path) -> None:
    put_rows(where, rows_of(where)[:25])


CONSISTENT = [
    ("an edit", rewrite(lambda r: chained([*r[:19], edited(r[19]), *r[20:]])), {"rewritten", "anchors_edited"}),
    ("a cut-off end", truncate_all, {"truncate", "anchors_edited"}),
    ("a journal written anew", rewrite(another_journal), {"regenesis", "anchors_edited"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "attack", "kinds"), CONSISTENT, ids=[row[0] for row in CONSISTENT]
)
def test_who_has_root_and_the_key_leaves_no_trace_here_and_is_found_by_an_anchor_kept_outside(
    where: Path, kept: Path, name, attack, kinds
) -> None:
    attack(where)
    sign_anew(where, own_key(where))
    alone = verify_journal(where)
    assert alone.ok, "if this is found, the docstring of signing.py promises too little"
    report = verify_journal(where, outside=kept)
    assert {kind for kind, *_ in found(report)} == kinds


def test_a_history_rewritten_with_the_key_after_the_kept_anchor_is_what_cannot_be_found(
    where: Path, kept: Path
) -> None:
    rows = rows_of(where)
    put_rows(where, chained([*rows[:34], edited(rows[34]), *rows[35:]]))
    sign_after = own_key(where)
    lines = lines_of(where)
    at_40 = [replace(parse_anchor(line), head=rows_of(where)[-1][8]) for line in lines[4:]]
    prev, made = parse_anchor(lines[3]).pointer, lines[:4]
    for anchor in at_40:
        made.append(replace(anchor, prev=prev.digest).signed_by(sign_after).line)
        prev = parse_anchor(made[-1]).pointer
    (where / ANCHORS).write_bytes(b"".join(made))
    note_end(where)
    report = verify_journal(where, outside=kept)
    assert report.ok
    assert report.outside.gseq == 30, "the report claims no more than that"


def test_a_replaced_key_with_everything_signed_anew_is_found_by_the_public_key_kept_elsewhere(
    where: Path, kept: Path, tmp_path: Path
) -> None:
    public = tmp_path / "auditor.pub"
    shutil.copyfile(where / PUBLIC_KEY, public)
    assert verify_journal(where, public_keys=read_public_keys(public)).ok
    replace_key(where)
    assert verify_journal(where).ok
    report = verify_journal(where, public_keys=read_public_keys(public))
    assert {"key"} <= {kind for kind, *_ in found(report)}
    assert "key" in {kind for kind, *_ in found(verify_journal(where, outside=kept))}


def test_a_key_replaced_from_now_on_is_found_unless_both_are_known(
    where: Path, tmp_path: Path
) -> None:
    old = (where / PUBLIC_KEY).read_text()
    (where / KEY).unlink()
    journal = Journal.open(where, reserve_bytes=0)
    journal.append([event(gseq) for gseq in range(41, 45)])
    journal.sign(50 * S)
    journal.sign(51 * S, occasion="stop")
    journal.close()
    assert found(verify_journal(where)) == [("key", 41, 44)]
    both = tmp_path / "both.pub"
    both.write_text(f"# old, then new\n{old}\n{(where / PUBLIC_KEY).read_text()}")
    assert verify_journal(where, public_keys=read_public_keys(both)).ok


def test_an_anchor_outside_that_nobody_signed_is_told_and_not_believed(
    where: Path, tmp_path: Path, master
) -> None:
    path = tmp_path / "kept.jsonl"
    forged = replace(master[1][2], head=bytes(32))
    path.write_bytes(forged.line + b"not json\n\n")
    report = verify_journal(where, outside=path)
    assert [kind for kind, *_ in found(report)] == ["outside"]
    assert report.notes == ("1 lines of kept.jsonl carry no anchor",)


# --- what is no attack


def test_a_journal_being_written_is_whole_at_every_moment(where: Path) -> None:
    journal = Journal.open(where, reserve_bytes=0)
    for gseq in range(41, 61):
        journal.append([event(gseq)])
        if gseq % 7 == 0:
            journal.sign(gseq * S)
        report = verify_journal(where)
        assert (report.ok, report.head.gseq) == (True, gseq), report.findings
    assert verify_journal(where).notes == ("4 events since the newest anchor: chained only",)
    journal.close()


def test_a_copy_made_while_it_was_written_is_whole_with_its_log_and_without_writing(
    where: Path, tmp_path: Path
) -> None:
    journal = Journal.open(where, reserve_bytes=0)
    journal.append([event(41), event(42)])
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (DATABASE, f"{DATABASE}-wal", ANCHORS):
        shutil.copyfile(where / name, copy / name)
    journal.close()
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    report = verify_journal(copy)
    assert (report.ok, report.head.gseq) == (True, 42)
    assert {name: (copy / name).read_bytes() for name in before} == before


def test_restarts_and_kills_leave_nothing_to_find(where: Path) -> None:
    for epoch in range(2, 6):
        journal = Journal.open(where, reserve_bytes=0)
        journal.sign(journal.head * S, occasion="start")
        journal.append([event(journal.head + 1)])
        if epoch % 2:
            journal.sign(journal.head * S, occasion="stop")
        with (where / ANCHORS).open("ab") as file:
            file.write(b'{"algorithm":"ed25')  # killed in the middle of a write
        journal.close()
    report = verify_journal(where)
    assert report.ok, report.findings
    assert report.notes == ("anchors.jsonl ends in the middle of a line",)


def test_numbers_skipped_after_a_lost_disk_are_told_and_the_lost_events_are_found(
    where: Path,
) -> None:
    (where / DATABASE).unlink()
    journal = Journal.open(where, reserve_bytes=0)
    first = journal.head + 1
    journal.append([event(first)])
    journal.sign(50 * S)
    journal.close()
    report = verify_journal(where)
    assert found(report) == [("delete", 1, first - 1)]


def test_a_journal_of_before_there_were_anchors_is_vouched_for_from_its_first_on(
    tmp_path: Path,
) -> None:
    journal = Journal.open(tmp_path / "j", reserve_bytes=0)
    journal.append([event(gseq) for gseq in range(1, 8)])
    assert [kind for kind, *_ in found(verify_journal(tmp_path / "j"))] == ["anchors_missing"]
    journal.sign(9 * S, occasion="start")
    report = verify_journal(tmp_path / "j")
    assert (report.ok, report.local.gseq) == (True, 7)
    journal.close()


def test_events_over_minutes_without_an_anchor_are_found(where: Path) -> None:
    journal = Journal.open(where, reserve_bytes=0)
    journal.append([make_event(41, time_ns=50 * S), make_event(42, time_ns=229 * S)])
    assert verify_journal(where).ok
    journal.append([make_event(43, time_ns=231 * S)])
    assert found(verify_journal(where)) == [("anchors_missing", 41, 43)]
    journal.close()


def test_a_file_sqlite_cannot_read_is_a_finding_and_where_it_begins(where: Path) -> None:
    with (where / DATABASE).open("r+b") as file:
        file.seek(0)
        file.write(bytes(100))
    assert found(verify_journal(where))[0][0] == "unreadable"


def test_a_directory_without_a_journal_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        verify_journal(tmp_path)
    with pytest.raises(ConfigError), JournalReader.open(tmp_path / "nowhere"):
        pass
