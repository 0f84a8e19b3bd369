"""One terminal's connection: what is answered, what is kept, what waits. Sans-IO.

    bytes -> frames -> who may say it -> sub-packages -> message -> Delivery --shell stores it--.
                `-- immediate answers -> output <-- held replies <-- release(delivery) <--------'

    before 0102 succeeded   0100 0102 0003 0002 0004 only; all else gets result 1
    0100 -> 8100            0102 0002 0003 0200 0704 -> 8001 result 0     0004 -> 8004
    unknown or encrypted -> 8001 result 3      unreadable body -> 8001 result 2      0001 -> nothing

A reply of a stored message is held until the shell says the data is durable (`release`); a
delivery that is never released is never answered, and the terminal repeats it. Sub-packages of a
position wait for the whole; a terminal that waits for each answer is asked for the rest with 8003.

Surprising: a copy of a position already durable is answered and not stored, but a heartbeat or
authentication is stored each time: it carries no time, so receiving it again is a new fact, and
there are terminals whose heartbeats all bear serial 0. A copy that arrives while the first is still
pending is only answered twice, and no more than 64 times. Not here: sockets, batching, files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from gateway.contract.adapter import Counters
from gateway.model.errors import LocalProtocolError, RemoteProtocolError

from .codec import (
    EDITION_2011,
    RESULT_BAD_MESSAGE,
    RESULT_FAILED,
    RESULT_OK,
    RESULT_UNSUPPORTED,
    Authentication,
    BulkLocation,
    Damage,
    Frame,
    FrameReader,
    Header,
    Heartbeat,
    Location,
    LogOut,
    Message,
    PackageBudget,
    PackageLimits,
    PlatformReply,
    Reassembler,
    Registration,
    RegistrationReply,
    TimeReply,
    TimeRequest,
    decode_message,
    encode_frame,
    time_bcd,
)
from .roster import REGISTERED, Recent, Roster

NS = 1_000_000_000
STORED_IDS = frozenset({Location.message_id, BulkLocation.message_id})
TERMINAL_REPLY_ID = 0x0001
ANSWERS_MAX = 64  # of one delivery: a terminal repeats a few times, a hostile one for hours
BEFORE_LOGIN_IDS = frozenset({0x0100, 0x0102, 0x0003, 0x0002, 0x0004})


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a terminal may stay silent or unknown, and how often it may be wrong."""

    login_timeout_s: float = 60.0
    silence_timeout_s: float = 180.0
    auth_failures_max: int = 5
    registrations_max: int = 10  # a terminal repeats a few times, one that fills the list for hours
    packages: PackageLimits = PackageLimits()


@dataclass(slots=True, eq=False)
class Delivery:
    """A message its terminal hears about only after it is durable."""

    session: Session
    header: Header
    message: Message
    received_time_ns: int
    answers: list[Header]  # one reply for each; a repeat adds one
    fingerprints: list[int]
    registration_reply: RegistrationReply | None = None
    result: int = RESULT_OK
    accepted_count: int = field(default=1)

    @property
    def phone(self) -> str:
        return self.header.phone


class Session:
    """The server's side of one connection. `steady_ns` is the time that time-outs go by; it never
    steps, and where there is one clock only it is that one."""

    __slots__ = (
        "_auth_failure_count",
        "_counters",
        "_heard_ns",
        "_limits",
        "_opened_ns",
        "_output",
        "_packages",
        "_pending",
        "_reader",
        "_recent",
        "_registration_count",
        "_roster",
        "_serial",
        "_steady_ns",
        "_template",
        "phone",
        "received_count",
    )

    def __init__(
        self,
        roster: Roster,
        counters: Counters,
        limits: SessionLimits,
        steady_ns: int,
        *,
        budget: PackageBudget | None = None,
    ) -> None:
        self.phone = ""  # authenticated as
        self.received_count = 0  # frames, damaged ones included
        self._roster = roster
        self._counters = counters
        self._limits = limits
        self._reader = FrameReader()
        self._packages = Reassembler(limits.packages, budget)
        self._recent = Recent()  # the vehicle's own after authentication
        self._pending: dict[int, Delivery] = {}
        self._template: Header | None = None  # how this terminal writes its headers
        self._serial = 0
        self._output = bytearray()
        self._opened_ns = self._heard_ns = self._steady_ns = steady_ns
        self._auth_failure_count = 0
        self._registration_count = 0

    # --- what the shell calls

    def receive(self, data: bytes, now_ns: int, steady_ns: int | None = None) -> list[Delivery]:
        """Take in bytes; what must be stored before it may be answered."""
        self._steady_ns = now_ns if steady_ns is None else steady_ns
        deliveries: list[Delivery] = []
        for item in self._reader.feed(data):
            self.received_count += 1
            self._counters.count("received")
            if isinstance(item, Damage):
                self._counters.count("rejected", reason=item.code)
            elif (delivery := self._take(item, now_ns)) is not None:
                deliveries.append(delivery)
        return deliveries

    def release(self, delivery: Delivery) -> None:
        """The delivery is durable: its replies go out, repeats of it are not stored again."""
        for fingerprint in delivery.fingerprints:
            self._pending.pop(fingerprint, None)
            if delivery.message.message_id in STORED_IDS:
                self._recent.add(fingerprint, delivery.result)
        self._counters.count("accepted", delivery.accepted_count)
        for header in delivery.answers:
            if delivery.registration_reply is not None:
                self._send(delivery.registration_reply)
            else:
                self._answer(header, delivery.result)

    def tick(self, steady_ns: int) -> None:
        """Ask again for sub-packages that stay away."""
        for request in self._packages.overdue(steady_ns):
            self._send(request)
            self._counters.count("asked_again")
        self._count_dropped_packages()

    def close_reason(self, steady_ns: int) -> str:
        """Why this connection should end now; empty when it should not."""
        if self._auth_failure_count >= self._limits.auth_failures_max:
            return "auth"
        if self._registration_count > self._limits.registrations_max:
            return "registrations"
        if steady_ns - self._heard_ns >= self._limits.silence_timeout_s * NS:
            return "silent"
        if not self.phone and steady_ns - self._opened_ns >= self._limits.login_timeout_s * NS:
            return "login"
        return ""

    def close(self) -> None:
        """The connection is gone: give back what unfinished messages hold of the common budget."""
        self._packages.clear()

    def take_output(self) -> bytes:
        """What is to be written now."""
        output = bytes(self._output)
        self._output.clear()
        return output

    # --- frames

    def _take(self, frame: Frame, now_ns: int) -> Delivery | None:
        header = frame.header
        self._heard_ns = self._steady_ns
        for note in frame.notes:
            self._counters.count("flagged", reason=note)
        if not self.phone or self._template is None:
            self._template = header
        elif header.edition != self._template.edition:
            self._counters.count("flagged", reason="edition")
        if not self._is_allowed(header):
            self._refuse(header, RESULT_FAILED, "auth")
        elif header.encryption:
            self._refuse(header, RESULT_UNSUPPORTED, "encrypted")
        elif header.message_id == TERMINAL_REPLY_ID:  # a reply is not replied to
            self._counters.count("accepted")
        elif not self._is_repeat(frame):
            return self._understand(frame, now_ns)
        return None

    def _is_allowed(self, header: Header) -> bool:
        """A session speaks for one phone once it is authenticated."""
        if self.phone:
            return header.phone == self.phone
        return header.message_id in BEFORE_LOGIN_IDS

    def _is_repeat(self, frame: Frame) -> bool:
        fingerprint = hash(frame.content)  # 64 bits, keyed for each process
        if (pending := self._pending.get(fingerprint)) is not None:
            if len(pending.answers) < ANSWERS_MAX:
                pending.answers.append(frame.header)
        elif (result := self._recent.result(fingerprint)) is not None:
            self._answer(frame.header, result)
        else:
            return False
        self._counters.count("duplicate")
        return True

    def _understand(self, frame: Frame, now_ns: int) -> Delivery | None:
        header, body, frames = frame.header, frame.body, [frame]
        if header.package is not None and header.message_id not in STORED_IDS:
            self._refuse(header, RESULT_UNSUPPORTED, "unsupported")
            return None
        try:
            if header.package is not None:
                whole = self._packages.add(frame, self._steady_ns)
                self._count_dropped_packages()
                if whole is None:
                    return None
                header, body, frames = whole.header, whole.body, list(whole.frames)
            message = decode_message(header, body)
        except RemoteProtocolError as error:
            self._refuse(header, RESULT_BAD_MESSAGE, error.code)
            return None
        delivery = Delivery(
            session=self,
            header=header,
            message=message,
            received_time_ns=now_ns,
            answers=[part.header for part in frames],
            fingerprints=[hash(part.content) for part in frames],
            accepted_count=len(frames),
        )
        act = self._ACTS.get(type(message), Session._act_unsupported)
        if not act(self, delivery):
            return None
        for fingerprint in delivery.fingerprints:
            self._pending[fingerprint] = delivery
        return delivery

    # --- messages: whether the delivery is to be stored; if not, it is answered already

    def _act_location(self, _delivery: Delivery) -> bool:
        return True

    def _act_bulk(self, delivery: Delivery) -> bool:
        """What can be read is stored; the whole is called understood only when all of it was."""
        message = delivery.message
        assert isinstance(message, BulkLocation)
        if message.damaged_count:
            delivery.result = RESULT_BAD_MESSAGE
        if message.damaged_count and not message.locations:
            for header in delivery.answers:
                self._refuse(header, RESULT_BAD_MESSAGE, "body")
            return False
        return True

    def _act_heartbeat(self, delivery: Delivery) -> bool:
        """Before authentication nobody knows whose heart it is: answered, not stored."""
        if not self.phone:
            self._accept(delivery.header)
        return bool(self.phone)

    def _act_registration(self, delivery: Delivery) -> bool:
        message = delivery.message
        assert isinstance(message, Registration)
        self._registration_count += 1
        if self._registration_count > self._limits.registrations_max:
            self._refuse(delivery.header, RESULT_FAILED, "registrations")
            return False
        result, code = self._roster.register(delivery.phone, message, self._steady_ns)
        reply = RegistrationReply(delivery.header.serial, result, code)
        if result == REGISTERED:  # the code must be on disk before the terminal learns it
            delivery.registration_reply = reply
            return True
        self._counters.count("rejected", reason="registration")
        self._send(reply)
        return False

    def _act_authentication(self, delivery: Delivery) -> bool:
        message = delivery.message
        assert isinstance(message, Authentication)
        if not self._roster.authenticate(delivery.phone, message.code):
            self._auth_failure_count += 1
            self._refuse(delivery.header, RESULT_FAILED, "auth")
            return False
        self.phone = delivery.phone
        self._recent = self._roster.recent(self.phone)
        self._auth_failure_count = self._registration_count = 0
        return True

    def _act_log_out(self, delivery: Delivery) -> bool:
        if self.phone:  # a stranger that logs out and out has no more time than others to log in
            self._opened_ns = self._steady_ns
        self.phone = ""
        self._accept(delivery.header)
        return False

    def _act_time_request(self, delivery: Delivery) -> bool:
        try:
            reply = TimeReply(time_bcd(delivery.received_time_ns, 0))
        except LocalProtocolError:  # our own clock stands before 2000: no time is better than that
            self._refuse(delivery.header, RESULT_FAILED, "clock")
            return False
        self._counters.count("accepted")
        self._send(reply)
        return False

    def _act_unsupported(self, delivery: Delivery) -> bool:
        self._refuse(delivery.header, RESULT_UNSUPPORTED, "unsupported")
        return False

    _ACTS: ClassVar[Mapping[type[Message], Callable[[Session, Delivery], bool]]] = {
        Location: _act_location,
        BulkLocation: _act_bulk,
        Heartbeat: _act_heartbeat,
        Registration: _act_registration,
        Authentication: _act_authentication,
        LogOut: _act_log_out,
        TimeRequest: _act_time_request,
    }

    # --- answers

    def _accept(self, header: Header) -> None:
        self._counters.count("accepted")
        self._answer(header, RESULT_OK)

    def _refuse(self, header: Header, result: int, reason: str) -> None:
        self._counters.count("rejected", reason=reason)
        if header.message_id != TERMINAL_REPLY_ID:  # not even a wrong reply is replied to
            self._answer(header, result)

    def _answer(self, header: Header, result: int) -> None:
        self._send(PlatformReply(header.serial, header.message_id, result))

    def _send(self, message: Message) -> None:
        """Replies look like what the terminal sent first: edition, version byte, phone digits."""
        assert self._template is not None, "nothing is sent before something was received"
        edition = self._template.edition
        record = self._roster.record(self._template.phone)
        if record is not None and record.edition == EDITION_2011:
            edition = EDITION_2011
        header = self._template._replace(
            message_id=message.message_id, serial=self._serial, encryption=0, package=None
        )
        self._serial = (self._serial + 1) % 0x10000
        self._output += encode_frame(header, message.encode(edition))

    def _count_dropped_packages(self) -> None:
        for reason in self._packages.take_dropped():
            self._counters.count("dropped", reason=reason)


class Logins:
    """Which session speaks for a vehicle: the last one that authenticated."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def login(self, session: Session) -> Session | None:
        """Note the session under its phone; the one it replaces, which must be closed."""
        before = self._sessions.get(session.phone)
        self._sessions[session.phone] = session
        return before if before is not session else None

    def logout(self, session: Session, phone: str) -> None:
        """Forget the session, unless another already took its place."""
        if self._sessions.get(phone) is session:
            del self._sessions[phone]

    def __len__(self) -> int:
        return len(self._sessions)
