"""Anchors and keys as files: what is written, what is found again, what trouble costs."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from gateway.alarms.anchors import ANCHORS, AnchorPointer, parse_anchor
from gateway.alarms.database import DATABASE
from gateway.alarms.journal import Journal
from gateway.alarms.signing import (
    KEY,
    PUBLIC_KEY,
    PublicKey,
    SigningKey,
    read_public_keys,
)
from gateway.alarms.verify import verify_journal
from gateway.model.errors import ConfigError, StorageFault
from gateway.testing.alarms import S, make_event


@pytest.fixture
def journal(tmp_path: Path):
    opened = Journal.open(tmp_path / "j", reserve_bytes=0)
    yield opened
    opened.close()


def reopen(journal: Journal, **more) -> Journal:
    journal.close()
    return Journal.open(journal.directory, reserve_bytes=0, **more)


def add(journal: Journal, count: int = 1) -> None:
    first = journal.head + 1
    journal.append([make_event(gseq, time_ns=gseq * S) for gseq in range(first, first + count)])


def lines(journal: Journal) -> list[bytes]:
    return (journal.directory / ANCHORS).read_bytes().splitlines(keepends=True)


# --- what an anchor says


def test_an_anchor_names_the_place_of_the_chain_and_is_signed_by_the_key_it_names(
    journal: Journal,
) -> None:
    add(journal, 3)
    anchor = journal.sign(7 * S)
    assert (anchor.no, anchor.epoch, anchor.gseq, anchor.time_ns) == (1, 1, 3, 7 * S)
    assert anchor.head == journal.anchor.hash
    assert anchor.is_signed()
    assert journal.newest_anchor == anchor
    assert lines(journal) == [anchor.line]
    assert set(anchor.as_json()) == {
        *("algorithm", "epoch", "gseq", "head", "key", "no", "occasion", "prev", "signature"),
        *("time_ns", "v"),
    }
    assert anchor.as_json()["algorithm"] == "ed25519-sha256"


def test_an_anchor_read_back_is_the_anchor_however_it_travelled(journal: Journal) -> None:
    anchor = journal.sign(7 * S, occasion="start")
    body = anchor.as_json()
    assert parse_anchor(anchor.line) == anchor
    assert parse_anchor(orjson.dumps(dict(reversed(body.items())))) == anchor
    assert parse_anchor(orjson.dumps({"head_gseq": 0, "anchor": body})) == anchor


CHANGES = [
    {"no": 2}, {"epoch": 9}, {"gseq": 9}, {"time_ns": 9}, {"occasion": "stop"},
    {"head": bytes(32)}, {"prev": b"\1" * 32}, {"signature": bytes(64)}, {"signature": b""},
    {"key": PublicKey("ed25519-sha256", bytes(32))}, {"key": PublicKey("sm2-sm3", bytes(32))},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_nothing_in_an_anchor_can_be_changed(journal: Journal, change) -> None:
    anchor = journal.sign(7 * S, occasion="start")
    assert not replace(anchor, **change).is_signed()


NO_ANCHORS = [
    b"", b"null", b"[]", b"{}", b"{", b'"x"', b"\xff\xfe", b'{"anchor":{}}', b'{"anchor":5}',
]  # fmt: skip
WRONG_VALUES = [
    ("v", 2), ("v", "1"), ("no", -1), ("no", 1.0), ("no", True), ("no", 2**63), ("gseq", None),
    ("head", "00"), ("head", 5), ("head", "zz"), ("prev", ""), ("key", None), ("signature", 1),
    ("algorithm", 5), ("occasion", None), ("more", 1),
]  # fmt: skip


@pytest.mark.parametrize("data", NO_ANCHORS)
def test_what_is_no_anchor_is_none_and_no_exception(data: bytes) -> None:
    assert parse_anchor(data) is None


@pytest.mark.parametrize(("name", "value"), WRONG_VALUES)
def test_an_anchor_with_a_wrong_or_further_field_is_none(journal: Journal, name, value) -> None:
    body = journal.sign(7 * S, occasion="start").as_json() | {name: value}
    assert parse_anchor(orjson.dumps(body)) is None
    del body[name]
    assert parse_anchor(orjson.dumps(body)) is None or name == "more"


def test_a_pointer_survives_packing_and_nonsense_is_the_one_before_the_first() -> None:
    pointer = AnchorPointer(7, bytes(range(32)))
    assert AnchorPointer.unpack(pointer.pack()) == pointer
    for nonsense in (None, b"", "text", 5, pointer.pack()[1:]):
        assert AnchorPointer.unpack(nonsense).no == 0


# --- when one is made


def test_an_anchor_is_made_only_when_there_is_something_new_or_an_occasion(
    journal: Journal,
) -> None:
    assert journal.sign(1 * S, occasion="start").gseq == 0
    assert journal.sign(2 * S) is None
    add(journal)
    assert journal.sign(3 * S).gseq == 1
    assert journal.sign(4 * S) is None
    assert journal.sign(5 * S, occasion="stop").gseq == 1
    journal = reopen(journal)
    assert journal.newest_anchor is None, "nothing was read that was not asked for"
    assert journal.sign(6 * S).epoch == 2, "a new epoch is something new"
    assert [parse_anchor(line).no for line in lines(journal)] == [1, 2, 3, 4]
    assert verify_journal(journal.directory).ok
    journal.close()


# --- the file in trouble


def test_the_end_of_a_write_that_never_ended_is_cut_off_and_kept(journal: Journal) -> None:
    journal.sign(1 * S, occasion="start")
    with (journal.directory / ANCHORS).open("ab") as file:
        file.write(b'{"algorithm":"ed2')
    journal = reopen(journal)
    journal.sign(2 * S, occasion="start")
    assert [parse_anchor(line).no for line in lines(journal)] == [1, 2]
    (kept,) = (journal.directory / "quarantine").iterdir()
    assert kept.read_bytes() == b'{"algorithm":"ed2'
    assert verify_journal(journal.directory).ok
    journal.close()


LOSSES = [
    ("the file", lambda path: path.unlink()),
    ("all of it", lambda path: path.write_bytes(b"")),
    ("its end", lambda path: path.write_bytes(path.read_bytes().splitlines(True)[0])),
    ("its last line", lambda path: path.write_bytes(path.read_bytes()[:-40] + b"x" * 39 + b"\n")),
    ("everything to noise", lambda path: path.write_bytes(b"\xff" * 10_000)),
]


@pytest.mark.parametrize(("name", "lose"), LOSSES, ids=[row[0] for row in LOSSES])
def test_lost_anchors_are_told_never_numbered_again_and_the_gap_stays_to_be_seen(
    journal: Journal, name, lose
) -> None:
    for at in range(1, 4):
        add(journal)
        journal.sign(at * S)
    lose(journal.directory / ANCHORS)
    journal = reopen(journal)
    assert journal.sign(9 * S, occasion="start").no == 4
    assert journal.damage.files == 1
    assert "3 were signed" in journal.damage.details[0]
    add(journal)
    assert journal.sign(10 * S).no == 5
    assert not verify_journal(journal.directory).ok
    journal.close()


def test_a_disk_that_takes_no_anchor_is_a_fault_and_the_next_one_vouches_for_all(
    journal: Journal,
) -> None:
    journal.sign(1 * S, occasion="start")
    path = journal.directory / ANCHORS
    aside = path.rename(path.with_name("aside"))
    path.mkdir()
    add(journal, 2)
    for _ in range(2):
        with pytest.raises(StorageFault):
            journal.sign(2 * S)
    add(journal)
    path.rmdir()
    aside.rename(path)
    assert journal.sign(3 * S).gseq == 3
    assert verify_journal(journal.directory).ok


# --- keys


def test_the_key_is_made_once_and_for_its_owner_only(journal: Journal) -> None:
    old = os.umask(0)
    try:
        first = journal.sign(1 * S, occasion="start")
    finally:
        os.umask(old)
    mode = stat.S_IMODE((journal.directory / KEY).stat().st_mode)
    assert oct(mode) == "0o600"
    assert read_public_keys(journal.directory / PUBLIC_KEY) == [first.key]
    journal = reopen(journal)
    assert journal.sign(2 * S, occasion="start").key == first.key
    journal.close()


def test_a_key_of_another_place_is_used_and_none_is_left_in_the_folder(
    journal: Journal, tmp_path: Path
) -> None:
    path = tmp_path / "secrets" / "anchor.pem"
    journal = reopen(journal, key_path=path)
    anchor = journal.sign(1 * S, occasion="start")
    assert SigningKey.load(path).public == anchor.key
    assert not (journal.directory / KEY).exists()
    journal.close()


def test_a_key_that_is_none_is_kept_aside_and_a_new_one_made_in_our_own_folder_only(
    journal: Journal, tmp_path: Path
) -> None:
    first = journal.sign(1 * S, occasion="start")
    (journal.directory / KEY).write_text("nonsense")
    journal = reopen(journal)
    second = journal.sign(2 * S, occasion="start")
    assert second.key != first.key
    assert (journal.damage.files, journal.damage.quarantined[0].read_text()) == (1, "nonsense")
    elsewhere = tmp_path / "anchor.pem"
    elsewhere.write_text("nonsense")
    journal = reopen(journal, key_path=elsewhere)
    with pytest.raises(StorageFault):
        journal.sign(3 * S, occasion="start")
    assert elsewhere.read_text() == "nonsense"
    add(journal)
    assert journal.head == 1
    journal.close()


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    SigningKey.create(tmp_path / "key")
    before = (tmp_path / "key").read_bytes()
    with pytest.raises(StorageFault, match="exists"):
        SigningKey.create(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == before


BAD_FILES = [
    ("ed25519-sha256 00", ":1: "),
    ("# ours\nsm2-sm3 " + "00" * 32, ":2: "),
    ("ed25519-sha256 " + "zz" * 32, ":1: "),
    ("ed25519-sha256", ":1: "),
    ("", "at least one"),
]


@pytest.mark.parametrize(("text", "said"), BAD_FILES)
def test_a_file_of_public_keys_is_refused_with_the_line_at_fault(tmp_path, text, said) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_public_keys(tmp_path / "keys")


def test_a_salvaged_journal_still_knows_its_newest_anchor(journal: Journal) -> None:
    add(journal, 5)
    journal.sign(1 * S, occasion="start")
    journal.close()
    with (journal.directory / DATABASE).open("r+b") as file:
        file.write(bytes(100))
    (journal.directory / ANCHORS).unlink()
    journal = Journal.open(journal.directory, reserve_bytes=0)
    assert journal.sign(2 * S).no == 2
    journal.close()
