"""One simulated terminal: what it sends when, what it repeats, what it records. Sans-IO.

    down --connected--> registering --8100--> authenticating --8001 ok--> ready --lost--> down
              `------- has a code ----------------^   ^--- code refused: register again

    ready      a position is sent as 0200 at once, and kept until its reply comes
    otherwise  (no link, or too many unanswered) it is recorded, and goes out as 0704 type 1
    unanswered: repeated byte for byte after T, 2T, 6T, … (T(n+1) = T(n)*(n+1), S808-13 6.1), then
                the link is taken for dead; whatever is unanswered goes out again after the next
                authentication, first

The ledger hears `sent` once for each sample and `acknowledged` when the reply with result 0 came.
`source_time_ns` 0 stands for "the gateway's own time" of a link sample. Surprising: an unanswered
authentication is repeated with its own bytes after a reconnect, as every other message is; and
however fast scenario time passes, positions bear the wall clock's time, each a second of its own.

Not here: sockets (fleet.py), where the vehicle is (drive.py).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from adapters.jt808.codec import (
    BODY_MAX,
    BULK_BLIND_ZONE,
    EDITION_2013,
    EDITION_2019,
    RESULT_FAILED,
    RESULT_OK,
    Authentication,
    BulkLocation,
    Frame,
    FrameReader,
    Heartbeat,
    Location,
    Message,
    PlatformReply,
    Registration,
    RegistrationReply,
    RemoteProtocolError,
    decode_message,
    encode_message,
)
from gateway.contract.simulator import Ledger, SentSample

from .config import Jt808FleetConfig, SimulatedVehicle
from .drive import Drive, samples_of

NS = 1_000_000_000
_BULK_ITEM_MAX = 96  # length word, basic part and this simulator's items, with room
BULK_MAX = BODY_MAX // _BULK_ITEM_MAX


@dataclass(slots=True)
class Unanswered:
    """A message on its way: the very bytes, and when to send them again."""

    message_id: int
    wire: bytes
    samples: tuple[SentSample, ...]
    due_ns: int
    timeout_s: float
    sent_count: int = 1


@dataclass(slots=True)
class Outside:
    """What a terminal is given of the world."""

    ledger: Ledger
    seed: int
    start_ns: int
    log: Callable[[str], None] = field(default=lambda _line: None)


class Terminal:
    """The terminal of one vehicle."""

    def __init__(
        self, vehicle: SimulatedVehicle, config: Jt808FleetConfig, outside: Outside
    ) -> None:
        self.device = f"{config.device_prefix}{vehicle.phone}"
        self._vehicle = vehicle
        self._config = config
        self._outside = outside
        self._edition = EDITION_2019 if config.edition == "2019" else EDITION_2013
        self._drive = Drive(
            vehicle, seed=outside.seed, edition=self._edition, limit=config.speed_limit_km_h
        )
        self._state = "down"
        self._code = ""
        self._serial = 0
        self._reader = FrameReader()
        self._output = bytearray()
        self._unanswered: dict[int, Unanswered] = {}  # by serial, oldest first
        self._recorded: deque[tuple[Location, tuple[SentSample, ...]]] = deque()
        self._report_count = 0
        # the device's time is the wall clock's in whole seconds: one report a second at most
        self._report_step_s = max(config.report_interval_s, config.speed)
        self._heartbeat_due_s = config.heartbeat_interval_s
        self._device_s = 0  # of the last position: each gets a second of its own
        self._is_draining = False
        self._is_link_dead = False

    # --- what the shell asks

    def is_done(self, now_ns: int) -> bool:
        """Whether the scenario is over and everything in it was acknowledged."""
        return self._is_over(now_ns) and not self._unanswered and not self._recorded

    def wants_link(self, now_ns: int) -> bool:
        """Whether to be, or stay, connected."""
        if self._is_link_dead:
            return False
        t_s = self._scenario_s(now_ns)
        lost = any(loss.at_s <= t_s < loss.at_s + loss.for_s for loss in self._vehicle.link_loss)
        return self._is_draining or not lost

    def pause_s(self, now_ns: int) -> float:
        """How long nothing is due, at most a fifth of a second."""
        t_s = self._scenario_s(now_ns)
        next_s = min(self._report_due_s(), self._heartbeat_due_s)
        wall_s = (next_s - t_s) / self._config.speed
        return min(max(wall_s, 0.001), 0.2)

    def take_output(self) -> bytes:
        output = bytes(self._output)
        self._output.clear()
        return output

    # --- what the shell tells

    def drain(self) -> None:
        """Nothing new from now on; losses of the link are over."""
        self._is_draining = True

    def connected(self, now_ns: int) -> None:
        self._reader = FrameReader()
        self._output.clear()
        self._is_link_dead = False
        if self._code:
            self._authenticate(now_ns)
        else:
            self._register(now_ns)

    def lost(self) -> None:
        self._state = "down"
        self._is_link_dead = False

    def receive(self, data: bytes, now_ns: int) -> None:
        for item in self._reader.feed(data):
            if not isinstance(item, Frame):
                self._outside.log(f"{self.device}: {item.code}: {item.detail}")
                continue
            try:
                message = decode_message(item.header, item.body)
            except RemoteProtocolError as error:
                self._outside.log(f"{self.device}: {error}")
                continue
            if isinstance(message, RegistrationReply):
                self._on_registered(message, now_ns)
            elif isinstance(message, PlatformReply):
                self._on_reply(message, now_ns)
        self._send_recorded(now_ns)

    def tick(self, now_ns: int) -> None:
        """Take what is due: positions, heartbeats, repeats."""
        t_s = self._scenario_s(now_ns)
        while not self._is_over_at(due_s := self._report_due_s()) and due_s <= t_s:
            self._report_count += 1
            self._report(due_s, now_ns)
        if self._heartbeat_due_s <= t_s and not self._is_over_at(self._heartbeat_due_s):
            interval_s = self._config.heartbeat_interval_s
            self._heartbeat_due_s = (math.floor(t_s / interval_s) + 1) * interval_s
            if self._state == "ready" and not self._drive.signal.is_silent(t_s):
                self._send(Heartbeat(), (self._link_sample(),), now_ns)
        self._repeat(now_ns)
        self._send_recorded(now_ns)

    # --- logging in

    def _register(self, now_ns: int) -> None:
        self._state = "registering"
        vehicle = self._vehicle
        message = Registration(
            edition=self._edition,
            province=50,
            city=100,
            maker="SIMUL",
            model="SIM-808",
            terminal_id=vehicle.terminal_id,
            plate_colour=vehicle.plate_colour,
            plate=vehicle.plate,
        )
        for serial, sent in list(self._unanswered.items()):  # one registration at a time
            if sent.message_id == Registration.message_id:
                del self._unanswered[serial]
        self._send(message, (), now_ns)

    def _authenticate(self, now_ns: int) -> None:
        self._state = "authenticating"
        for sent in self._unanswered.values():
            if sent.message_id == Authentication.message_id:
                self._again(sent, now_ns)
                return
        message = Authentication(self._code, imei="000000000000000", software_version="SIM 1")
        self._send(message, (self._link_sample(),), now_ns)

    def _on_registered(self, reply: RegistrationReply, now_ns: int) -> None:
        sent = self._unanswered.get(reply.reply_serial)
        if sent is None or sent.message_id != Registration.message_id:
            return
        del self._unanswered[reply.reply_serial]
        if reply.result == RESULT_OK:
            self._code = reply.code
            self._authenticate(now_ns)
        else:
            self._outside.log(f"{self.device}: registration refused with {reply.result}")
            self._is_link_dead = True

    def _on_reply(self, reply: PlatformReply, now_ns: int) -> None:
        sent = self._unanswered.get(reply.reply_serial)
        if sent is None or sent.message_id != reply.reply_id:
            return
        is_login = sent.message_id == Authentication.message_id
        if reply.result == RESULT_FAILED and not is_login:
            self._outside.log(f"{self.device}: {sent.message_id:04X} failed; logging in again")
            self._is_link_dead = True  # the message is kept, and goes out after the next login
            return
        del self._unanswered[reply.reply_serial]
        if reply.result == RESULT_OK:
            if sent.samples:
                self._outside.ledger.acknowledged(sent.samples)
            if is_login:
                self._state = "ready"
                for waiting in self._unanswered.values():
                    self._again(waiting, now_ns)
        elif is_login:  # the gateway does not know the code (any more)
            self._code = ""
            self._register(now_ns)
        else:
            self._outside.log(f"{self.device}: {sent.message_id:04X} refused with {reply.result}")

    # --- sending

    def _report(self, t_s: float, now_ns: int) -> None:
        device_s = (self._outside.start_ns + int(t_s / self._config.speed * NS)) // NS
        device_s = self._device_s = max(device_s, self._device_s + 1)
        location = self._drive.position(t_s, device_s)
        if self._drive.signal.is_silent(t_s):
            return
        samples = samples_of(location, self.device, device_s)
        ready = self._state == "ready" and not self._recorded
        if ready and len(self._unanswered) < self._config.unanswered_max:
            self._send(location, samples, now_ns)
        elif len(self._recorded) < self._config.recorded_max:
            self._recorded.append((location, samples))
        else:
            self._outside.log(f"{self.device}: the memory is full, a position is not recorded")

    def _send_recorded(self, now_ns: int) -> None:
        while (
            self._state == "ready"
            and self._recorded
            and len(self._unanswered) < self._config.unanswered_max
        ):
            count = min(BULK_MAX, len(self._recorded))
            taken = [self._recorded.popleft() for _ in range(count)]
            locations = tuple(location for location, _ in taken)
            samples = tuple(sample for _, said in taken for sample in said)
            self._send(BulkLocation(BULK_BLIND_ZONE, locations), samples, now_ns)

    def _send(self, message: Message, samples: tuple[SentSample, ...], now_ns: int) -> None:
        wire = encode_message(message, self._vehicle.phone, self._serial, self._edition)
        timeout_s = self._config.reply_timeout_s
        due_ns = now_ns + int(timeout_s * NS)
        self._unanswered[self._serial] = Unanswered(
            message.message_id, wire, samples, due_ns, timeout_s
        )
        self._serial = (self._serial + 1) % 0x10000
        self._output += wire
        if samples:
            self._outside.ledger.sent(samples)

    def _again(self, sent: Unanswered, now_ns: int) -> None:
        """The first repeat of a new connection: the waiting starts over."""
        sent.timeout_s = self._config.reply_timeout_s
        sent.due_ns = now_ns + int(sent.timeout_s * NS)
        sent.sent_count = 1
        self._output += sent.wire

    def _repeat(self, now_ns: int) -> None:
        if self._state == "down":
            return
        login_ids = (Registration.message_id, Authentication.message_id)
        for sent in self._unanswered.values():
            if sent.due_ns > now_ns:
                continue
            if self._state != "ready" and sent.message_id not in login_ids:
                continue
            if sent.sent_count > self._config.resend_count_max:
                self._is_link_dead = True
                return
            sent.timeout_s = min(
                sent.timeout_s * (sent.sent_count + 1), self._config.reply_timeout_max_s
            )
            sent.sent_count += 1
            sent.due_ns = now_ns + int(sent.timeout_s * NS)
            self._output += sent.wire

    # --- time

    def _scenario_s(self, now_ns: int) -> float:
        return (now_ns - self._outside.start_ns) / NS * self._config.speed

    def _report_due_s(self) -> float:
        return self._report_count * self._report_step_s

    def _is_over_at(self, t_s: float) -> bool:
        return self._is_draining or 0 < self._config.duration_s <= t_s

    def _is_over(self, now_ns: int) -> bool:
        return self._is_over_at(self._scenario_s(now_ns))

    def _link_sample(self) -> SentSample:
        return SentSample(f"{self.device}.link", 0, 1.0)
