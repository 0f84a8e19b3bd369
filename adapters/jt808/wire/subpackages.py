"""Joining the sub-packages of a message. Pure; the caller brings the time.

    serial     100       101       102            base = serial - index + 1 = 100
    index     1 of 3    2 of 3    3 of 3          key  = (message id, base, total)

The packets of one message carry consecutive serials (S808-13 7.12), so the base tells two images
sent at once apart. Real devices break the rule, so a packet whose base nobody has joins the oldest
open message of the same id and total if it is the very next part of it and nothing proved that this
device numbers consecutively. A guess is taken back as soon as it is contradicted.

Surprising: one wrong guess cannot be noticed: two messages of two packets each, the second packet
of the second one arriving between the first packets. TCP keeps order, so it takes a device that
sends out of order *and* numbers oddly. Not here: replies, which wait until the whole is durable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from gateway.model.errors import RemoteProtocolError

from .frames import Frame, Header
from .messages import ResendRequest

NS = 1_000_000_000
ASK_INDICES_MAX = 255  # 8003 of 2013 counts in a byte


@dataclass(frozen=True, slots=True)
class PackageLimits:
    """How much an unfinished message may hold, and for how long."""

    message_bytes_max: int = 8 * 1024 * 1024
    messages_max: int = 8
    age_max_s: float = 60.0  # peers: 45 s, 60 s, 50 s
    ask_after_s: float = 5.0  # without a new packet, before 8003
    ask_count_max: int = 3


@dataclass(frozen=True, slots=True)
class Whole:
    """A message all of whose packets are here."""

    header: Header  # of packet 1, without its package field
    body: bytes
    frames: tuple[Frame, ...]  # in index order


@dataclass(slots=True, eq=False)
class _Open:
    """A message some of whose packets are missing."""

    base: int
    total: int
    message_id: int
    began_ns: int
    moved_ns: int
    parts: dict[int, Frame] = field(default_factory=dict)
    guessed: set[int] = field(default_factory=set)  # indices that came with another base
    size: int = 0
    asked_count: int = 0

    @property
    def is_consecutive(self) -> bool:
        """Whether two packets agree on the base: this device keeps the rule."""
        return len(self.parts) - len(self.guessed) >= 2

    def base_of(self, index: int) -> int:
        """The base that the packet at `index` says it belongs to."""
        return (self.parts[index].header.serial - index + 1) % 0x10000

    def take_out(self, index: int) -> Frame:
        frame = self.parts.pop(index)
        self.guessed.discard(index)
        self.size -= len(frame.body)
        return frame


class Reassembler:
    """Sub-packages in, whole messages out. Limits are `limits`; what they cost is in
    `take_dropped`."""

    def __init__(self, limits: PackageLimits) -> None:
        self._limits = limits
        self._open: list[_Open] = []  # oldest first
        self._dropped: list[str] = []

    def add(self, frame: Frame, now_ns: int) -> Whole | None:
        """The message `frame` completes, if it does.

        Raises RemoteProtocolError("package") for a frame that can be part of nothing.
        """
        package = frame.header.package
        assert package is not None, "only sub-packages are joined"
        if not 1 <= package.number <= package.total:
            raise RemoteProtocolError("package", f"part {package.number} of {package.total}")
        message = self._find(frame, now_ns)
        if (known := message.parts.get(package.number)) is not None:
            if known.body == frame.body:
                return None
            raise RemoteProtocolError("package", f"part {package.number} came with two contents")
        if message.size + len(frame.body) > self._limits.message_bytes_max:
            self._open.remove(message)
            limit = self._limits.message_bytes_max
            raise RemoteProtocolError("package", f"more than {limit} bytes")
        message.parts[package.number] = frame
        message.size += len(frame.body)
        message.moved_ns = now_ns
        self._settle_guesses(message, now_ns)
        return self._finish(message)

    def overdue(self, now_ns: int) -> Iterator[ResendRequest]:
        """What to ask for again now. Messages that grew too old are dropped first."""
        age_max = int(self._limits.age_max_s * NS)
        for message in [m for m in self._open if now_ns - m.began_ns >= age_max]:
            self._open.remove(message)
            self._dropped.append("package_age")
        wait = int(self._limits.ask_after_s * NS)
        for message in self._open:
            waited = now_ns - message.moved_ns >= wait * (message.asked_count + 1)
            if not waited or message.asked_count >= self._limits.ask_count_max:
                continue
            message.asked_count += 1
            first = message.parts.get(1)
            missing = (i for i in range(1, message.total + 1) if i not in message.parts)
            indices = tuple(islice(missing, ASK_INDICES_MAX))
            yield ResendRequest(first.header.serial if first else message.base, indices)

    def take_dropped(self) -> list[str]:
        """Why messages were given up since the last call."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def __len__(self) -> int:
        return len(self._open)

    def _find(self, frame: Frame, now_ns: int) -> _Open:
        header, package = frame.header, frame.header.package
        assert package is not None
        base = (header.serial - package.number + 1) % 0x10000
        of_same_id = [m for m in self._open if m.message_id == header.message_id]
        for message in of_same_id:
            if message.base != base:
                continue
            if message.total != package.total:
                raise RemoteProtocolError(
                    "package", f"{message.total} parts became {package.total}"
                )
            if package.number in message.guessed:  # the slot's owner is here
                self._begin_own(message, package.number, now_ns)
            return message
        for message in of_same_id:
            if message.total == package.total and self._may_join(message, frame):
                message.guessed.add(package.number)
                return message
        return self._begin(base, package.total, header.message_id, now_ns)

    @staticmethod
    def _may_join(message: _Open, frame: Frame) -> bool:
        assert frame.header.package is not None
        index = frame.header.package.number
        if message.is_consecutive:
            return False
        if index in message.parts:  # the very same packet again keeps its place
            return message.parts[index].content == frame.content
        return index == len(message.parts) + 1 and max(message.parts) == len(message.parts)

    def _begin(self, base: int, total: int, message_id: int, now_ns: int) -> _Open:
        """A new open message, which takes its packets back from where they were guessed to be."""
        if len(self._open) >= self._limits.messages_max:
            self._open.pop(0)
            self._dropped.append("package_count")
        message = _Open(base, total, message_id, now_ns, now_ns)
        for other in self._open:
            if other.message_id != message_id or other.total != total:
                continue
            for index in [i for i in other.guessed if other.base_of(i) == base]:
                frame = other.take_out(index)
                message.parts[index] = frame
                message.size += len(frame.body)
        self._open.append(message)
        return message

    def _begin_own(self, message: _Open, index: int, now_ns: int) -> None:
        self._begin(message.base_of(index), message.total, message.message_id, now_ns)

    def _settle_guesses(self, message: _Open, now_ns: int) -> None:
        """Take back guesses that were contradicted: this device does number consecutively, or the
        guessed packets agree with each other and so are a message of their own."""
        bases = {message.base_of(index) for index in message.guessed}
        agree = len(message.guessed) >= 2 and len(bases) == 1
        if message.is_consecutive or agree:
            for base in sorted(bases):
                self._begin(base, message.total, message.message_id, now_ns)

    def _finish(self, message: _Open) -> Whole | None:
        if len(message.parts) < message.total or message not in self._open:
            return None
        self._open.remove(message)
        frames = tuple(message.parts[index] for index in range(1, message.total + 1))
        header = frames[0].header._replace(package=None)
        return Whole(header, b"".join(frame.body for frame in frames), frames)
