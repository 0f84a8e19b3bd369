"""The book of the door: places, strangers, pace; and the door itself on real sockets."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.jt808 import door as door_module
from adapters.jt808.admission import Admission, AdmissionLimits, address_key
from adapters.jt808.client import Jt808Server
from adapters.jt808.codec import Heartbeat, PlatformReply
from gateway.model.rate import TokenBucket

S = 1_000_000_000


def admission(**changes: float) -> Admission:
    limits: dict[str, Any] = {
        "connections_max": 10,
        "connections_per_address_max": 6,
        "strangers_max": 4,
        "accepts_per_s_max": 1000,
    }
    return Admission(AdmissionLimits(**{**limits, **changes}), 0)


def test_a_bucket_gives_its_burst_at_once_and_its_rate_from_then_on() -> None:
    bucket = TokenBucket(10, 2, 0)
    assert [bucket.take(1, 0) for _ in range(4)] == [0, 0, 0.1, 0.2]
    assert bucket.wait_s(0) == pytest.approx(0.3)
    assert bucket.wait_s(S) == 0
    assert bucket.take(3, 100 * S) == pytest.approx(0.1)  # never more than the burst


@pytest.mark.parametrize("step_s", [-3600, -1])
def test_a_clock_that_steps_back_gives_nothing_and_takes_nothing(step_s: int) -> None:
    bucket = TokenBucket(1, 1, 3600 * S)
    assert bucket.take(1, 3600 * S) == 0
    assert bucket.take(1, (3600 + step_s) * S) == 1
    assert bucket.wait_s(3602 * S) == 0


REFUSALS = [
    ("all places taken", {"connections_max": 2}, ["a", "b"], "c", "connections"),
    ("the address has its share", {"connections_per_address_max": 2}, ["a", "a"], "a", "address"),
    ("another address has not", {"connections_per_address_max": 2}, ["a", "a"], "b", ""),
    ("a crowd of its own", {}, ["a", "a", "a", "b"], "a", "strangers"),
    ("somebody else's crowd", {}, ["a", "a", "a", "b"], "b", ""),
    ("room for strangers", {}, ["a", "a", "a"], "a", ""),
]


@pytest.mark.parametrize(("why", "limits", "inside", "newcomer", "reason"), REFUSALS)
def test_a_newcomer_is_refused_for_this_reason(
    why: str, limits: dict[str, float], inside: list[str], newcomer: str, reason: str
) -> None:
    book = admission(**limits)
    for number, address in enumerate(inside):
        assert book.refusal(address, 0) == ""
        assert book.enter(number, address) is None
    assert book.refusal(newcomer, 0) == reason, why


def test_the_most_crowded_address_gives_up_its_oldest_stranger() -> None:
    book = admission()
    for name, address in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")):
        book.enter(name, address)
    assert book.refusal("c", 0) == ""
    assert book.enter("c1", "c") == "a1"
    assert (len(book), book.stranger_count) == (4, 4)


def test_one_that_has_logged_in_never_goes_for_a_newcomer() -> None:
    book = admission()
    for number in range(6):
        book.enter(number, "a")
        book.logged_in(number)
    for number in range(6, 10):
        book.enter(number, "b")
    assert book.refusal("c", 0) == "connections"
    book.leave(9)
    book.enter(10, "c")
    assert book.enter(11, "d") == 6  # of b, which had the most strangers
    assert all(book.refusal("a", 0) for _ in range(3))
    book.logged_out(0)
    assert book.stranger_count == 5


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["come", "in", "out", "leave"]), st.integers(0, 15), st.integers(0, 3)
        ),
        max_size=200,
    )
)
def test_the_book_is_never_beyond_its_limits_and_forgets_whoever_left(
    moves: list[tuple[str, int, int]],
) -> None:
    book, inside, strangers = admission(), dict[int, str](), set[int]()
    for move, who, where in moves:
        if move == "come" and who not in inside and not book.refusal(str(where), 10**15):
            gone = book.enter(who, str(where))
            if gone is not None:
                assert gone in strangers
                strangers.discard(gone)
                inside.pop(gone)
            inside[who] = str(where)
            strangers.add(who)
        elif move == "in":
            book.logged_in(who)
            strangers.discard(who)
        elif move == "leave":
            book.leave(who)
            inside.pop(who, None)
            strangers.discard(who)
        assert (len(book), book.stranger_count) == (len(inside), len(strangers))
        assert len(book) <= 10
        assert book.stranger_count <= 4
        assert max(Counter(inside.values()).values(), default=0) <= 6


ADDRESSES = [
    ("192.0.2.7", "192.0.2.7"),
    ("::ffff:192.0.2.7", "192.0.2.7"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
    ("fe80::1%eth0", "fe80::/64"),
    ("a name", "a name"),
]


@pytest.mark.parametrize(("host", "key"), ADDRESSES)
def test_an_address_counts_as_what_one_subscriber_has(host: str, key: str) -> None:
    assert address_key(host) == key


# --- on real sockets


@pytest.mark.system
async def test_newcomers_beyond_the_pace_wait_and_none_is_lost(site: Any) -> None:
    await site.start(accepts_per_s_max=20)
    callers = [await site.call() for _ in range(30)]
    for number, caller in enumerate(callers):
        caller.send(Heartbeat(), str(number))
    for caller in callers:
        assert await caller.hear() == PlatformReply(0, 0x0002, 0)
    assert site.house.counts["paced"] >= 1
    assert site.house.counts["rejected connections"] == 0


@pytest.mark.system
async def test_a_crowd_of_strangers_keeps_nobody_from_another_address_out(site: Any) -> None:
    await site.start(strangers_max=5)
    crowd = [await site.call() for _ in range(8)]
    await site.until(lambda: site.house.counts["rejected strangers"] == 3)
    device = await site.call(local_address="127.0.0.2")
    await device.login("13900000001")
    assert site.house.counts["closed crowded"] == 1
    assert await crowd[0].hear() is None


@pytest.mark.system
async def test_one_address_has_no_more_than_its_share(site: Any) -> None:
    await site.start(connections_per_address_max=2)
    kept = [await site.call() for _ in range(2)]
    for number, caller in enumerate(kept):
        await caller.login(str(1000 + number))
    assert await (await site.call()).hear() is None
    assert site.house.counts["rejected address"] == 1
    await (await site.call(local_address="127.0.0.2")).login("1002")


@pytest.mark.system
async def test_without_descriptors_the_door_rests_and_those_inside_are_served(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "PAUSE_S", 0.01)
    await site.start()
    inside = await site.call()
    await inside.login("13900000001")
    real, failures = socket.socket.accept, [OSError(errno.EMFILE, "too many open files")] * 3

    def accept(listening: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return real(listening)

    monkeypatch.setattr(socket.socket, "accept", accept)
    newcomer = await site.call()
    inside.send(Heartbeat(), "13900000001")
    assert await inside.hear() == PlatformReply(2, 0x0002, 0)
    await newcomer.login("13900000002")
    assert site.house.counts["paused descriptors"] == 3


@pytest.mark.system
async def test_the_last_descriptors_are_kept_for_the_house(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "DESCRIPTORS_KEPT", 10**9)
    await site.start()
    assert await (await site.call()).hear() is None
    assert site.house.counts["rejected descriptors"] == 1


@pytest.mark.system
async def test_a_peer_that_reads_nothing_is_closed_and_keeps_no_place(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.jt808.client.TICK_S", 0.01)
    await site.start(write_buffer_max=4096, frames_per_s_max=1e6, bytes_per_s_max=1e9)
    deaf = await site.call()
    deaf.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.reader._limit = 1
    wire = deaf.send(Heartbeat(), "7") * 500
    await site.until(lambda: _send_until_closed(deaf, wire, site))
    assert site.house.states[-1][1].endswith("0 connections")


def _send_until_closed(deaf: Any, wire: bytes, site: Any) -> bool:
    if not deaf.writer.is_closing():
        deaf.writer.write(wire)
    return bool(site.server.buffer) and not site.server._connections


@pytest.mark.system
async def test_what_one_connection_breaks_costs_no_other(
    site: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await site.start()
    good, bad = await site.call(), await site.call()
    await good.login("1000")
    usual = Jt808Server._take

    def take(server: Jt808Server, connection: Any, data: bytes) -> None:
        if b"\x66\x66" in data:
            raise ZeroDivisionError
        usual(server, connection, data)

    monkeypatch.setattr(Jt808Server, "_take", take)
    bad.send(Heartbeat(), "6666")
    assert await bad.hear() is None
    good.send(Heartbeat(), "1000")
    assert await good.hear() == PlatformReply(2, 0x0002, 0)
    assert site.house.counts["closed internal"] == 1
    assert "a connection failed" in caplog.text
