"""One connection: who is answered what, and what waits until it is durable."""

from __future__ import annotations

from collections import Counter
from itertools import count

import pytest

from adapters.jt808.codec import (
    EDITION_2011,
    EDITION_2013,
    EDITION_2019,
    Authentication,
    BulkLocation,
    Frame,
    FrameReader,
    Heartbeat,
    Location,
    LogOut,
    Message,
    Package,
    PackageLimits,
    PlatformReply,
    RawMessage,
    Registration,
    RegistrationReply,
    ResendRequest,
    TerminalReply,
    TimeReply,
    TimeRequest,
    checksum,
    decode_message,
    encode_frame,
    encode_message,
    encode_packages,
    header_for,
)
from adapters.jt808.roster import Roster
from adapters.jt808.session import ANSWERS_MAX, Delivery, Logins, Session, SessionLimits

S = 1_000_000_000
NOW = 1_785_513_600 * S
PHONE = "13900000001"
REGISTRATION = Registration(EDITION_2013, 50, 100, "SIMUL", "M", "T000001", 2, "测A00001")


class Counts:
    """Counts by name and reason."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def count(self, name: str, n: int = 1, *, reason: str = "") -> None:
        self.seen[f"{name} {reason}".strip()] += n


class Line:
    """A session with a hand on both of its ends: the terminal's and the shell's."""

    def __init__(self, roster: Roster | None = None, limits: SessionLimits | None = None) -> None:
        numbers = count()
        self.roster = roster or Roster(
            [], known_only=False, vehicles_max=10, new_code=lambda: f"code-{next(numbers)}"
        )
        self.counts = Counts()
        self.session = Session(self.roster, self.counts, limits or SessionLimits(), NOW)
        self.held: list[Delivery] = []
        self.edition = EDITION_2013
        self.serial = count()
        self._reader = FrameReader()
        self.headers: list[tuple[int, int]] = []  # edition, serial of each reply

    def wire(self, message: Message, serial: int | None = None, phone: str = PHONE) -> bytes:
        number = next(self.serial) if serial is None else serial
        return encode_message(message, phone, number % 0x10000, self.edition)

    def send(self, wire: bytes, at_s: float = 0.0) -> list[Message]:
        self.held += self.session.receive(wire, NOW + int(at_s * S))
        return self.said()

    def say(self, message: Message, at_s: float = 0.0) -> list[Message]:
        return self.send(self.wire(message), at_s)

    def said(self) -> list[Message]:
        frames = self._reader.feed(self.session.take_output())
        assert all(isinstance(frame, Frame) for frame in frames)
        self.headers += [(f.header.edition, f.header.serial) for f in frames]  # type: ignore[union-attr]
        return [decode_message(f.header, f.body) for f in frames]  # type: ignore[union-attr]

    def durable(self) -> list[Message]:
        held, self.held = self.held, []
        for delivery in held:
            self.session.release(delivery)
        return self.said()

    def stored(self) -> list[Message]:
        return [delivery.message for delivery in self.held]

    def login(self) -> str:
        """Register and authenticate; serials 0 and 1 of both sides are used up."""
        self.say(REGISTRATION)
        (reply,) = self.durable()
        assert isinstance(reply, RegistrationReply)
        self.say(Authentication(reply.code))
        assert self.durable() == [PlatformReply(1, 0x0102, 0)]
        self.counts.seen.clear()
        return reply.code


def position(second: int = 0) -> Location:
    return Location(
        0, 3, 29_500_000, 106_500_000, 240, 555, 90, bytes.fromhex(f"2607312359{second:02d}")
    )


REPLIES = [
    (Heartbeat(), [PlatformReply(2, 0x0002, 0)], True),
    (position(), [PlatformReply(2, 0x0200, 0)], True),
    (BulkLocation(1, (position(), position(1))), [PlatformReply(2, 0x0704, 0)], True),
    (LogOut(), [PlatformReply(2, 0x0003, 0)], False),
    (TimeRequest(), [TimeReply(bytes.fromhex("260731160000"))], False),
    (RawMessage(0x0900, b"x"), [PlatformReply(2, 0x0900, 3)], False),
    (RawMessage(0x0107, b"x"), [PlatformReply(2, 0x0107, 3)], False),
    (RawMessage(0xF001, b""), [PlatformReply(2, 0xF001, 3)], False),
    (RawMessage(0x0200, bytes(27)), [PlatformReply(2, 0x0200, 2)], False),
    (RawMessage(0x0704, b"\0\1\0\0\5xx"), [PlatformReply(2, 0x0704, 2)], False),
    (RawMessage(0x8001, b""), [PlatformReply(2, 0x8001, 2)], False),
    (TerminalReply(0, 0x8003, 0), [], False),
    (RawMessage(0x0001, b""), [], False),
]


@pytest.mark.parametrize(("message", "replies", "is_held"), REPLIES, ids=lambda v: str(v)[:40])
def test_after_login_a_message_is_answered_by_its_own_reply(
    message: Message, replies: list[Message], is_held: bool
) -> None:
    line = Line()
    line.login()
    at_once = line.say(message)
    assert at_once == ([] if is_held else replies)
    assert line.stored() == ([message] if is_held else [])
    assert line.durable() == (replies if is_held else [])


BEFORE = [
    (Heartbeat(), [PlatformReply(0, 0x0002, 0)]),
    (LogOut(), [PlatformReply(0, 0x0003, 0)]),
    (TimeRequest(), [TimeReply(bytes.fromhex("260731160000"))]),
    (Authentication("wrong"), [PlatformReply(0, 0x0102, 1)]),
    (position(), [PlatformReply(0, 0x0200, 1)]),
    (BulkLocation(1, (position(),)), [PlatformReply(0, 0x0704, 1)]),
    (RawMessage(0x0900, b"x"), [PlatformReply(0, 0x0900, 1)]),
    (TerminalReply(0, 0x8001, 0), []),
]


@pytest.mark.parametrize(("message", "replies"), BEFORE, ids=lambda v: str(v)[:40])
def test_before_login_nothing_is_stored_and_only_five_ids_are_accepted(
    message: Message, replies: list[Message]
) -> None:
    line = Line()
    assert line.say(message) == replies
    assert line.stored() == []
    refused = message.message_id not in {0x0002, 0x0003, 0x0004}
    assert line.counts.seen["rejected auth"] == refused


def test_a_position_is_not_answered_before_it_is_durable() -> None:
    line = Line()
    line.login()
    for at_s in range(30):
        assert line.say(position(at_s), at_s) == []
        line.session.tick(NOW + at_s * S)
        assert line.said() == []
    assert line.durable() == [PlatformReply(2 + n, 0x0200, 0) for n in range(30)]
    assert line.counts.seen["accepted"] == 30


def test_a_code_is_told_only_after_it_is_durable_and_only_that_code_opens() -> None:
    line = Line()
    assert line.say(REGISTRATION) == []
    assert [record.phone for record in line.roster.take_changed()] == [PHONE]
    (reply,) = line.durable()
    assert reply == RegistrationReply(0, 0, "code-0")
    assert line.say(Authentication(PHONE)) == [PlatformReply(1, 0x0102, 1)]
    assert line.say(position()) == [PlatformReply(2, 0x0200, 1)]
    line.say(Authentication("code-0"))
    assert line.durable() == [PlatformReply(3, 0x0102, 0)]
    assert line.session.phone == PHONE


def test_messages_right_behind_an_authentication_are_accepted() -> None:
    first = Line()
    code = first.login()
    line = Line(first.roster)
    line.send(line.wire(Authentication(code)) + line.wire(position()))
    assert line.durable() == [PlatformReply(0, 0x0102, 0), PlatformReply(1, 0x0200, 0)]


def test_a_session_speaks_for_one_phone() -> None:
    line = Line()
    line.login()
    assert line.send(line.wire(position(), 9, phone="13900000002")) == [PlatformReply(9, 0x0200, 1)]
    assert line.send(line.wire(REGISTRATION, 10, phone="13900000002")) == [
        PlatformReply(10, 0x0100, 1)
    ]
    assert line.stored() == []


def test_after_log_out_a_login_is_needed_again() -> None:
    line = Line()
    code = line.login()
    line.say(LogOut())
    assert line.say(position()) == [PlatformReply(3, 0x0200, 1)]
    line.say(Authentication(code))
    assert line.durable() == [PlatformReply(4, 0x0102, 0)]


def test_replies_bear_serials_of_our_own_that_grow_and_wrap() -> None:
    line = Line()
    line.login()
    line.session._serial = 0xFFFE
    line.headers.clear()
    for second in range(4):
        line.say(position(second))
        line.durable()
    assert [serial for _, serial in line.headers] == [0xFFFE, 0xFFFF, 0, 1]


def test_a_terminals_serial_wraps_without_anything_being_lost() -> None:
    line = Line()
    line.login()
    for number in range(0xFFFE, 0x10003):
        line.send(line.wire(position(number % 60), number))
    assert len(line.stored()) == 5
    assert [reply.reply_serial for reply in line.durable()] == [0xFFFE, 0xFFFF, 0, 1, 2]  # type: ignore[union-attr]


# --- repeats


def test_a_repeat_of_a_durable_position_is_answered_again_and_not_stored_again() -> None:
    line = Line()
    line.login()
    wire = line.wire(position())
    line.send(wire)
    line.durable()
    assert line.send(wire) == [PlatformReply(2, 0x0200, 0)]
    assert line.stored() == []
    assert line.counts.seen["duplicate"] == 1


def test_a_repeat_while_the_first_is_pending_is_answered_when_that_is_durable() -> None:
    line = Line()
    line.login()
    wire = line.wire(position())
    assert line.send(wire + wire) == []
    assert len(line.stored()) == 1
    assert line.durable() == [PlatformReply(2, 0x0200, 0)] * 2


def test_repeats_without_end_while_the_first_is_pending_cost_no_memory_without_end() -> None:
    line = Line()
    line.login()
    wire = line.wire(position())
    for _ in range(1000):
        assert line.send(wire) == []
    assert line.counts.seen["duplicate"] == 999
    assert len(line.durable()) == ANSWERS_MAX


def test_the_same_serial_with_other_bytes_is_another_message() -> None:
    line = Line()
    line.login()
    line.send(line.wire(position(1), 7) + line.wire(position(2), 7))
    assert len(line.stored()) == 2


def test_a_repeat_on_a_new_connection_is_stored_once_if_durable_and_again_if_not() -> None:
    first = Line()
    code = first.login()
    durable, pending = first.wire(position(1)), first.wire(position(2))
    first.send(durable)
    first.durable()
    first.send(pending)  # the connection dies before it is durable
    second = Line(first.roster)
    second.send(second.wire(Authentication(code)))
    second.durable()
    assert second.send(durable) == [PlatformReply(2, 0x0200, 0)]
    second.send(pending)
    assert second.stored() == [position(2)]


def test_a_heartbeat_with_the_serial_of_the_last_one_is_a_new_fact() -> None:
    """Some terminals send every heartbeat with serial 0: each says that they live now."""
    line = Line()
    line.login()
    for _ in range(3):
        line.send(line.wire(Heartbeat(), 0))
        assert len(line.stored()) == 1
        assert line.durable() == [PlatformReply(0, 0x0002, 0)]


# --- editions


@pytest.mark.parametrize(
    ("edition", "header", "end"),
    [(EDITION_2011, 2013, b"\0"), (EDITION_2013, 2013, b""), (EDITION_2019, 2019, b"")],
)
def test_replies_speak_the_terminals_edition(edition: int, header: int, end: bytes) -> None:
    line = Line()
    line.edition = edition
    line.say(Registration(edition, 0, 0, "M", "M", "T000001", 1, "测A00001"))
    for delivery in line.held:
        line.session.release(delivery)
    frame = FrameReader().feed(line.session.take_output())[0]
    assert isinstance(frame, Frame)
    assert frame.header.edition == header
    assert frame.body == b"\0\0\0" + b"code-0" + end


def test_the_edition_of_the_login_is_kept_when_a_later_frame_looks_different() -> None:
    line = Line()
    line.login()
    line.edition = EDITION_2019  # same phone, other header
    line.headers.clear()
    line.say(position())
    line.durable()
    assert [edition for edition, _ in line.headers] == [EDITION_2013]
    assert line.counts.seen["flagged edition"] == 1


def test_an_encrypted_message_is_answered_flagged_and_not_decoded() -> None:
    line = Line()
    line.login()
    for bits in (1, 2, 4, 7):
        header = header_for(0x0200, PHONE, bits)._replace(encryption=bits)
        assert line.send(encode_frame(header, bytes(28))) == [PlatformReply(bits, 0x0200, 3)]
    assert line.stored() == []
    assert line.counts.seen["rejected encrypted"] == 4


def test_damage_is_counted_by_its_reason_and_answered_with_nothing() -> None:
    line = Line()
    line.login()
    wire = line.wire(position())
    damage = [
        (b"noise\x7e", "framing"),
        (wire[:-2] + bytes((wire[-2] ^ 1,)) + b"\x7e", "checksum"),
        (wire[:20] + wire[21:], "length"),
        (wire[:20] + b"\x7d\x7d" + wire[22:], "escape"),
        (b"\x7e\x01\x02\x7e", "header"),
    ]
    for data, reason in damage:
        fresh = Line(line.roster)
        assert fresh.send(data) == []
        assert fresh.counts.seen[f"rejected {reason}"] == 1, reason
        assert fresh.counts.seen["received"] == 1


# --- sub-packages


def packages(line: Line, message: Message, size: int = 20) -> list[bytes]:
    body = message.encode(EDITION_2013)
    wires = encode_packages(header_for(message.message_id, PHONE, 50), body, size)
    assert len(wires) > 2
    return wires


def test_packets_of_a_position_are_all_answered_when_the_whole_is_durable() -> None:
    line = Line()
    line.login()
    bulk = BulkLocation(1, (position(), position(1)))
    wires = packages(line, bulk)
    for wire in (*wires[1:], wires[1], wires[0]):  # out of order, one doubled
        assert line.send(wire) == []
    assert line.stored() == [bulk]
    replies = line.durable()
    assert replies == [PlatformReply(50 + n, 0x0704, 0) for n in range(len(wires))]
    assert line.send(wires[1]) == [PlatformReply(51, 0x0704, 0)]
    assert line.stored() == []


def test_missing_packets_are_asked_for_and_given_up_with_a_count() -> None:
    line = Line(limits=SessionLimits(packages=PackageLimits(ask_after_s=5, age_max_s=60)))
    line.login()
    wires = packages(line, BulkLocation(1, (position(), position(1))))
    line.send(wires[0])
    line.session.tick(NOW + 5 * S)
    assert line.said() == [ResendRequest(50, tuple(range(2, len(wires) + 1)))]
    line.session.tick(NOW + 60 * S)
    assert line.said() == []
    assert line.counts.seen["dropped package_age"] == 1


def test_packets_of_what_is_not_stored_are_each_answered_unsupported() -> None:
    line = Line()
    line.login()
    wires = packages(line, RawMessage(0x0801, bytes(60)))
    for number, wire in enumerate(wires):
        assert line.send(wire) == [PlatformReply(50 + number, 0x0801, 3)]


def test_a_nonsensical_packet_is_a_bad_message() -> None:
    line = Line()
    line.login()
    for total, number in ((0, 0), (2, 0), (2, 3)):
        header = header_for(0x0200, PHONE, 9)._replace(package=Package(total, number))
        wire = encode_frame(header, b"x")
        assert line.send(wire) == [PlatformReply(9, 0x0200, 2)]
    assert line.counts.seen["rejected package"] == 3


def test_bulk_that_is_partly_readable_is_stored_and_called_a_bad_message_also_when_repeated() -> (
    None
):
    line = Line()
    line.login()
    body = BulkLocation(1, (position(),)).encode(EDITION_2013) + b"\0\5x"
    wire = line.wire(RawMessage(0x0704, body))
    line.send(wire)
    (stored,) = line.stored()
    assert isinstance(stored, BulkLocation)
    assert stored.locations == (position(),)
    assert line.durable() == [PlatformReply(2, 0x0704, 2)]
    assert line.send(wire) == [PlatformReply(2, 0x0704, 2)]
    assert line.stored() == []


# --- the end of a connection


def test_a_silent_connection_is_to_be_closed() -> None:
    line = Line(limits=SessionLimits(silence_timeout_s=180, login_timeout_s=60))
    line.login()
    assert line.session.close_reason(NOW + 179 * S) == ""
    assert line.session.close_reason(NOW + 180 * S) == "silent"
    line.say(Heartbeat(), 170)
    assert line.session.close_reason(NOW + 349 * S) == ""
    line.send(b"\x7enoise\x7e", 300)  # noise is not life
    assert line.session.close_reason(NOW + 350 * S) == "silent"


def test_a_connection_that_does_not_log_in_is_to_be_closed() -> None:
    line = Line(limits=SessionLimits(silence_timeout_s=180, login_timeout_s=60))
    line.say(Heartbeat(), 59)
    assert line.session.close_reason(NOW + 59 * S) == ""
    assert line.session.close_reason(NOW + 60 * S) == "login"


def test_logging_out_again_and_again_wins_a_stranger_no_time() -> None:
    line = Line(limits=SessionLimits(silence_timeout_s=180, login_timeout_s=60))
    for at_s in (20, 40, 59):
        line.say(LogOut(), at_s)
        assert line.session.close_reason(NOW + at_s * S) == ""
    assert line.session.close_reason(NOW + 60 * S) == "login"
    known = Line(limits=SessionLimits(silence_timeout_s=180, login_timeout_s=60))
    known.login()
    known.say(LogOut(), 100)  # but one that was known may log in anew
    assert known.session.close_reason(NOW + 159 * S) == ""
    assert known.session.close_reason(NOW + 160 * S) == "login"


def test_a_connection_registers_so_often_and_is_then_to_be_closed() -> None:
    line = Line(limits=SessionLimits(registrations_max=3))
    for number in range(3):
        line.send(line.wire(REGISTRATION, phone=str(1000 + number)))
        assert line.session.close_reason(NOW) == ""
    assert line.send(line.wire(REGISTRATION, phone="1003")) == [PlatformReply(3, 0x0100, 1)]
    assert line.session.close_reason(NOW) == "registrations"
    assert line.roster.record("1003") is None


def test_a_step_of_the_system_clock_ends_no_connection() -> None:
    line = Line(limits=SessionLimits(silence_timeout_s=180, login_timeout_s=60))
    year_s = 365 * 86_400
    line.session.receive(line.wire(Heartbeat()), NOW + year_s * S, NOW + 30 * S)
    assert line.session.close_reason(NOW + 59 * S) == ""
    line.session.receive(line.wire(Heartbeat()), NOW - year_s * S, NOW + 50 * S)
    assert line.session.close_reason(NOW + 60 * S) == "login"


def test_a_gateway_whose_clock_was_never_set_tells_no_time() -> None:
    line = Line()
    line.held += line.session.receive(line.wire(TimeRequest()), 0)
    assert line.said() == [PlatformReply(0, 0x0004, 1)]


def test_too_many_wrong_codes_close_the_connection() -> None:
    line = Line(limits=SessionLimits(auth_failures_max=3))
    for number in range(3):
        assert line.session.close_reason(NOW) == ""
        assert line.say(Authentication("guess")) == [PlatformReply(number, 0x0102, 1)]
    assert line.session.close_reason(NOW) == "auth"


def test_the_second_login_of_a_vehicle_replaces_the_first() -> None:
    one, two = Line(), Line()
    one.login()
    two.login()
    logins = Logins()
    assert logins.login(one.session) is None
    assert logins.login(one.session) is None
    assert logins.login(two.session) is one.session
    logins.logout(one.session, PHONE)  # the first one's end must not log the second out
    assert len(logins) == 1
    logins.logout(two.session, PHONE)
    assert len(logins) == 0


def test_what_was_tolerated_in_a_frame_is_counted() -> None:
    line = Line()
    line.login()
    start = bytes.fromhex("00020000013900000001")
    serial = checksum(start) ^ 0x7D
    wire = b"\x7e" + start + bytes((0, serial)) + b"\x7d\x7e"
    line.send(wire)
    assert line.durable() == [PlatformReply(serial, 0x0002, 0)]
    assert line.counts.seen["flagged unescaped_checksum"] == 1
