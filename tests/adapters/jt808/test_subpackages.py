"""Joining sub-packages: shuffled, doubled, missing, interleaved, nonsensical, too much."""

from __future__ import annotations

import random
import sys
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.jt808.codec import (
    Frame,
    FrameReader,
    Package,
    PackageBudget,
    PackageLimits,
    Reassembler,
    ResendRequest,
    encode_frame,
    encode_packages,
    header_for,
)
from gateway.model.errors import RemoteProtocolError

S = 1_000_000_000


def packets(
    body: bytes, serial: int = 100, size: int = 10, message_id: int = 0x0900
) -> list[Frame]:
    wires = encode_packages(header_for(message_id, "13800001234", serial), body, size)
    frames = [FrameReader().feed(wire)[0] for wire in wires]
    assert all(isinstance(frame, Frame) for frame in frames)
    return frames  # type: ignore[return-value]


def packet(serial: int, total: int, number: int, body: bytes = b"x") -> Frame:
    header = header_for(0x0900, "13800001234", serial)._replace(package=Package(total, number))
    frame = FrameReader().feed(encode_frame(header, body))[0]
    assert isinstance(frame, Frame)
    return frame


def feed(joiner: Reassembler, frames: list[Frame]) -> list[bytes]:
    wholes = [joiner.add(frame, 0) for frame in frames]
    return [whole.body for whole in wholes if whole is not None]


@given(st.binary(min_size=11, max_size=90), st.integers(0, 0xFFFF), st.randoms())
def test_packets_in_any_order_and_doubled_give_the_message_once(
    body: bytes, serial: int, rng: random.Random
) -> None:
    frames = packets(body, serial)
    shuffled = frames.copy()
    rng.shuffle(shuffled)
    doubled = [frame for frame in shuffled[:-1] for _ in range(rng.randint(1, 3))] + shuffled[-1:]
    joiner = Reassembler(PackageLimits())
    assert feed(joiner, doubled) == [body]
    assert len(joiner) == 0


@given(st.integers(2, 6), st.integers(0, 0xFFFF), st.randoms())
def test_two_messages_in_order_but_mixed_are_not_mixed_up(
    total: int, serial: int, rng: random.Random
) -> None:
    first, second = b"a" * 10 * total, b"b" * 10 * total
    queues = [packets(first, serial), packets(second, (serial + total) % 0x10000)]
    mixed = []
    while any(queues):
        queue = rng.choice([queue for queue in queues if queue])
        mixed.append(queue.pop(0))
    assert sorted(feed(Reassembler(PackageLimits()), mixed)) == [first, second]


@given(st.integers(3, 6), st.randoms())
def test_two_messages_of_three_or_more_packets_survive_any_order(
    total: int, rng: random.Random
) -> None:
    """Only the first packet of each is kept in front of its own."""
    first, second = b"a" * 10 * total, b"b" * 10 * total
    a, b = packets(first, 500), packets(second, 500 + total)
    rest = a[1:] + b[1:]
    rng.shuffle(rest)
    assert sorted(feed(Reassembler(PackageLimits()), [a[0], b[0], *rest])) == [first, second]


def test_serials_that_do_not_follow_are_joined_all_the_same() -> None:
    """Met in the field: packets 1 and 2 of one 0104 with serials 1233 and 1250."""
    frames = [packet(1233, 3, 1, b"1"), packet(1250, 3, 2, b"2"), packet(1271, 3, 3, b"3")]
    assert feed(Reassembler(PackageLimits()), frames) == [b"123"]


def test_a_guess_is_taken_back_when_the_right_packet_comes() -> None:
    joiner = Reassembler(PackageLimits())
    a, b = packets(b"a" * 40, 100), packets(b"b" * 40, 200)
    order = [a[0], b[1], a[1], a[2], b[0], a[3], b[2], b[3]]
    assert feed(joiner, order) == [b"a" * 40, b"b" * 40]
    assert len(joiner) == 0


NONSENSE = [(2, 0), (2, 3), (0, 0), (0, 1), (1, 2), (0, 65535)]


@pytest.mark.parametrize(("total", "number"), NONSENSE)
def test_a_packet_that_can_be_part_of_nothing_is_refused(total: int, number: int) -> None:
    joiner = Reassembler(PackageLimits())
    with pytest.raises(RemoteProtocolError) as caught:
        joiner.add(packet(1, total, number), 0)
    assert caught.value.code == "package"
    assert len(joiner) == 0


def test_one_packet_of_one_is_a_message() -> None:
    assert feed(Reassembler(PackageLimits()), [packet(1, 1, 1, b"all")]) == [b"all"]


def test_a_total_that_changes_midway_is_refused_and_the_message_still_completes() -> None:
    joiner = Reassembler(PackageLimits())
    a = packets(b"a" * 30, 100)
    joiner.add(a[0], 0)
    with pytest.raises(RemoteProtocolError):
        joiner.add(packet(101, 4, 2), 0)
    assert feed(joiner, a[1:]) == [b"a" * 30]


def test_two_contents_of_one_packet_are_refused_and_the_first_is_kept() -> None:
    joiner = Reassembler(PackageLimits())
    a = packets(b"a" * 30, 100)
    joiner.add(a[0], 0)
    with pytest.raises(RemoteProtocolError):
        joiner.add(packet(100, 3, 1, b"other"), 0)
    assert feed(joiner, a[1:]) == [b"a" * 30]


def test_a_message_that_grows_too_large_is_given_up() -> None:
    joiner = Reassembler(PackageLimits(message_bytes_max=25))
    a = packets(b"a" * 30, 100)
    joiner.add(a[0], 0)
    joiner.add(a[1], 0)
    with pytest.raises(RemoteProtocolError):
        joiner.add(a[2], 0)
    assert len(joiner) == 0


def test_the_oldest_message_gives_way_when_too_many_are_open() -> None:
    joiner = Reassembler(PackageLimits(messages_max=2))
    a, b, c = (packets(b"x" * 30, serial) for serial in (100, 200, 300))
    for frames in (a, b, c):
        joiner.add(frames[0], 0)
    assert joiner.take_dropped() == ["package_count"]
    assert joiner.take_dropped() == []
    assert feed(joiner, b[1:]) == [b"x" * 30]


def test_missing_packets_are_asked_for_with_the_serial_of_the_first_packet() -> None:
    joiner = Reassembler(PackageLimits(ask_after_s=5, ask_count_max=2, age_max_s=60))
    a = packets(b"a" * 40, 100)
    joiner.add(a[0], 0)
    joiner.add(a[2], 1 * S)
    asked = {t: list(joiner.overdue(t * S)) for t in (5, 6, 10, 11, 30, 59)}
    assert asked == {
        5: [],
        6: [ResendRequest(100, (2, 4))],
        10: [],
        11: [ResendRequest(100, (2, 4))],  # growing: 5 s, then 10 s after the last packet
        30: [],
        59: [],
    }
    assert feed(joiner, [a[1], a[3]]) == [b"a" * 40]


def test_the_first_serial_is_computed_while_the_first_packet_is_missing() -> None:
    joiner = Reassembler(PackageLimits())
    joiner.add(packets(b"a" * 30, 0xFFFF)[2], 0)
    assert list(joiner.overdue(5 * S)) == [ResendRequest(0xFFFF, (1, 2))]


def test_a_repeat_is_asked_for_with_the_odd_serial_a_device_gave_it() -> None:
    joiner = Reassembler(PackageLimits())
    joiner.add(packet(1233, 3, 1), 0)
    joiner.add(packet(1250, 3, 2), 0)
    assert list(joiner.overdue(5 * S)) == [ResendRequest(1233, (3,))]


def test_a_message_that_grew_too_old_is_given_up() -> None:
    joiner = Reassembler(PackageLimits(age_max_s=60))
    joiner.add(packets(b"a" * 30, 100)[0], 0)
    assert list(joiner.overdue(60 * S)) == []
    assert joiner.take_dropped() == ["package_age"]
    assert len(joiner) == 0


def test_a_request_names_no_more_packets_than_a_byte_counts() -> None:
    joiner = Reassembler(PackageLimits(parts_max=65535))
    joiner.add(packet(1, 65535, 1), 0)
    (request,) = joiner.overdue(5 * S)
    assert len(request.indices) == 255


@given(
    st.lists(
        st.tuples(
            st.integers(95, 110), st.integers(0, 4), st.integers(0, 5), st.binary(max_size=3)
        ),
        max_size=40,
    )
)
def test_any_packets_are_joined_or_refused_and_the_limits_hold(
    drawn: list[tuple[int, int, int, bytes]],
) -> None:
    joiner = Reassembler(PackageLimits(messages_max=3, message_bytes_max=8))
    for serial, total, number, body in drawn:
        whole, code = None, ""
        try:
            whole = joiner.add(packet(serial, total, number, body), 0)
        except RemoteProtocolError as error:
            code = error.code
        assert code in {"", "package"}
        if whole is not None:
            assert [f.header.package.number for f in whole.frames] == list(range(1, total + 1))
        assert len(joiner) <= 3


def test_guesses_that_agree_with_each_other_are_a_message_of_their_own() -> None:
    a, b = packets(b"a" * 40, 100), packets(b"b" * 40, 200)
    order = [a[0], b[1], b[2], b[3], b[0], a[3], a[2], a[1]]
    assert feed(Reassembler(PackageLimits()), order) == [b"b" * 40, b"a" * 40]


# --- what an attacker may hold


def calls_of_last_packet(count: int) -> int:
    """Python calls made for the last of `count` packets whose serials follow no rule at all."""
    joiner = Reassembler(PackageLimits(parts_max=65_535))
    for number in range(1, count):
        assert joiner.add(packet(0, count + 1, number), 0) is None
    last, calls = packet(0, count + 1, count), 0

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        joiner.add(last, 0)
    finally:
        sys.setprofile(None)
    return calls


def test_a_packet_costs_the_same_however_many_are_there() -> None:
    assert calls_of_last_packet(800) == calls_of_last_packet(20)


def test_a_message_of_too_many_parts_is_refused_however_small_they_are() -> None:
    joiner = Reassembler(PackageLimits(parts_max=100))
    with pytest.raises(RemoteProtocolError):
        joiner.add(packet(1, 101, 1, b""), 0)
    assert len(joiner) == 0


def test_all_connections_share_one_budget_and_a_neighbour_is_never_the_one_to_pay() -> None:
    budget = PackageBudget(10_000)
    patient, greedy = (Reassembler(PackageLimits(), budget) for _ in range(2))
    body = bytes(100)
    held, last = packets(bytes(200), size=100)
    assert patient.add(held, 0) is None
    refused = 0
    for number in range(200):
        try:
            greedy.add(packet(number * 300, 250, 1 + number % 7, body), 0)
        except RemoteProtocolError:
            refused += 1
        assert 0 <= budget.bytes_held <= budget.bytes_max
    assert refused or greedy.take_dropped()
    whole = patient.add(last, 0)
    assert whole is not None
    assert whole.body == bytes(200)
    greedy.clear()
    assert budget.bytes_held == 0


def test_empty_parts_are_not_free() -> None:
    budget = PackageBudget(100_000)
    joiner = Reassembler(PackageLimits(), budget)
    with pytest.raises(RemoteProtocolError):
        for number in range(1, 8000):
            joiner.add(packet(number, 8000, number, b""), 0)
    assert budget.bytes_held == 0


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(0, 4)), max_size=60))
def test_the_budget_is_exactly_what_is_held(said: list[tuple[int, int, int]]) -> None:
    budget = PackageBudget(6_000)
    joiner = Reassembler(PackageLimits(messages_max=3), budget)
    for serial, total, number in said:
        try:
            joiner.add(packet(serial, total, number, bytes(serial)), 0)
        except RemoteProtocolError:
            continue
    assert 0 <= budget.bytes_held <= budget.bytes_max
    joiner.clear()
    assert budget.bytes_held == 0
