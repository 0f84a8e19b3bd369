"""Joining the sub-packages of a message. Pure; the caller brings the time.

    serial     100       101       102            base = serial - index + 1 = 100
    index     1 of 3    2 of 3    3 of 3          key  = (message id, base, total)

The packets of one message carry consecutive serials (S808-13 7.12), so the base tells two images
sent at once apart. Real devices break the rule, so a packet whose base nobody has joins the oldest
open message of the same id and total if it is the very next part of it and nothing proved that this
device numbers consecutively. A guess is taken back as soon as it is contradicted.

Surprising: one wrong guess cannot be noticed: two messages of two packets each, the second packet
of the second one arriving between the first packets. TCP keeps order, so it takes a device that
sends out of order *and* numbers oddly.

What an unfinished message holds is bounded in parts, in bytes, in time, and with all messages of
all connections together by `PackageBudget`; a part counts with what it costs in memory, because
65,535 empty parts are no bytes and many megabytes. Every step takes the same time however many
parts are there. Not here: replies, which wait until the whole is durable.
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
PART_OVERHEAD_BYTES = 600  # of a Frame beside its content, which it holds twice (measured)


@dataclass(frozen=True, slots=True)
class PackageLimits:
    """How much an unfinished message may hold, and for how long."""

    message_bytes_max: int = 8 * 1024 * 1024
    parts_max: int = 8192
    messages_max: int = 8
    age_max_s: float = 60.0  # peers: 45 s, 60 s, 50 s
    ask_after_s: float = 5.0  # without a new packet, before 8003
    ask_count_max: int = 3


@dataclass(slots=True)
class PackageBudget:
    """Bytes that the unfinished messages of all connections hold together."""

    bytes_max: int
    bytes_held: int = 0


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
    guesses: dict[int, set[int]] = field(default_factory=dict)  # another base -> indices with it
    guessed_count: int = 0
    last_index: int = 0  # the highest there is
    size: int = 0
    asked_count: int = 0

    @property
    def is_consecutive(self) -> bool:
        """Whether two packets agree on the base: this device keeps the rule."""
        return len(self.parts) - self.guessed_count >= 2

    @property
    def has_no_gap(self) -> bool:
        return self.last_index == len(self.parts)

    def base_of(self, index: int) -> int:
        """The base that the packet at `index` says it belongs to."""
        return (self.parts[index].header.serial - index + 1) % 0x10000

    def is_guessed(self, index: int) -> bool:
        return index in self.parts and index in self.guesses.get(self.base_of(index), ())

    def put(self, index: int, frame: Frame) -> None:
        self.parts[index] = frame
        self.last_index = max(self.last_index, index)
        self.size += len(frame.body)
        base = self.base_of(index)
        if base != self.base:
            self.guesses.setdefault(base, set()).add(index)
            self.guessed_count += 1

    def take_out(self, base: int) -> dict[int, Frame]:
        """The packets that were guessed to be ours and say they are of `base`."""
        indices = self.guesses.pop(base, set())
        self.guessed_count -= len(indices)
        taken = {index: self.parts.pop(index) for index in sorted(indices)}
        self.size -= sum(len(frame.body) for frame in taken.values())
        while self.last_index and self.last_index not in self.parts:
            self.last_index -= 1  # no further than guesses, which come one by one, had raised it
        return taken


class Reassembler:
    """Sub-packages in, whole messages out. Limits are `limits`; what they cost is in
    `take_dropped`."""

    def __init__(self, limits: PackageLimits, budget: PackageBudget | None = None) -> None:
        self._limits = limits
        self._budget = budget or PackageBudget(2**63)
        self._open: list[_Open] = []  # oldest first
        self._dropped: list[str] = []

    def add(self, frame: Frame, now_ns: int) -> Whole | None:
        """The message `frame` completes, if it does.

        Raises RemoteProtocolError("package") for a frame that can be part of nothing, or for which
        there is no room.
        """
        package = frame.header.package
        assert package is not None, "only sub-packages are joined"
        if not 1 <= package.number <= package.total:
            raise RemoteProtocolError("package", f"part {package.number} of {package.total}")
        if package.total > self._limits.parts_max:
            raise RemoteProtocolError("package", f"{package.total} parts")
        message = self._find(frame, now_ns)
        if (known := message.parts.get(package.number)) is not None:
            if known.body == frame.body:
                return None
            raise RemoteProtocolError("package", f"part {package.number} came with two contents")
        if message.size + len(frame.body) > self._limits.message_bytes_max:
            self._forget(message)
            limit = self._limits.message_bytes_max
            raise RemoteProtocolError("package", f"more than {limit} bytes")
        self._make_room(message, _cost(frame))
        message.put(package.number, frame)
        message.moved_ns = now_ns
        self._settle_guesses(message, now_ns)
        return self._finish(message)

    def clear(self) -> None:
        """Forget everything: the connection is gone."""
        for message in list(self._open):
            self._forget(message)

    def _make_room(self, message: _Open, cost: int) -> None:
        """Of the common budget: this connection's other messages go first, oldest first.

        Raises RemoteProtocolError("package") when that is not enough; then its own goes as well,
        because it can no longer be finished.
        """
        budget = self._budget
        while budget.bytes_held + cost > budget.bytes_max:
            oldest = self._open[0]
            self._forget(oldest)
            self._dropped.append("package_budget")
            if oldest is message:
                raise RemoteProtocolError("package", f"more than {budget.bytes_max} bytes in all")
        budget.bytes_held += cost

    def _forget(self, message: _Open) -> None:
        self._open.remove(message)
        self._budget.bytes_held -= sum(map(_cost, message.parts.values()))

    def overdue(self, now_ns: int) -> Iterator[ResendRequest]:
        """What to ask for again now. Messages that grew too old are dropped first."""
        age_max = int(self._limits.age_max_s * NS)
        for message in [m for m in self._open if now_ns - m.began_ns >= age_max]:
            self._forget(message)
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
            if message.is_guessed(package.number):  # the slot's owner is here
                self._begin_own(message, package.number, now_ns)
            return message
        for message in of_same_id:
            if message.total == package.total and self._may_join(message, frame):
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
        return index == len(message.parts) + 1 and message.has_no_gap

    def _begin(self, base: int, total: int, message_id: int, now_ns: int) -> _Open:
        """A new open message, which takes its packets back from where they were guessed to be."""
        if len(self._open) >= self._limits.messages_max:
            self._forget(self._open[0])
            self._dropped.append("package_count")
        message = _Open(base, total, message_id, now_ns, now_ns)
        for other in self._open:
            if other.message_id != message_id or other.total != total:
                continue
            for index, frame in other.take_out(base).items():
                message.put(index, frame)
        self._open.append(message)
        return message

    def _begin_own(self, message: _Open, index: int, now_ns: int) -> None:
        self._begin(message.base_of(index), message.total, message.message_id, now_ns)

    def _settle_guesses(self, message: _Open, now_ns: int) -> None:
        """Take back guesses that were contradicted: this device does number consecutively, or the
        guessed packets agree with each other and so are a message of their own."""
        agree = message.guessed_count >= 2 and len(message.guesses) == 1
        if message.guessed_count and (message.is_consecutive or agree):
            for base in sorted(message.guesses):
                self._begin(base, message.total, message.message_id, now_ns)

    def _finish(self, message: _Open) -> Whole | None:
        if len(message.parts) < message.total or message not in self._open:
            return None
        self._forget(message)
        frames = tuple(message.parts[index] for index in range(1, message.total + 1))
        header = frames[0].header._replace(package=None)
        return Whole(header, b"".join(frame.body for frame in frames), frames)


def _cost(frame: Frame) -> int:
    """What a waiting part costs in memory: its content twice, whole and as body."""
    return PART_OVERHEAD_BYTES + 2 * len(frame.content)
