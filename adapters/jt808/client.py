"""The TCP server: connections and their limits. With door.py and intake.py all that awaits.

    door -> Connection --bytes--> session.receive -> intake.offer
                ^----------- replies ----------------- intake: durable <--'
    every second: 8003 for missing sub-packages; silent, unknown and closing connections ended

Limits and what happens at them: newcomers (admission.py), frames and bytes a second for each
connection (reading pauses, TCP holds the terminal back), unread replies (closed), messages not yet
durable (reading pauses everywhere). A storage failure closes the connections concerned without a
reply and shows `faulty` until a commit succeeds.

Surprising: a connection has no task and no buffer of its own. The event loop reads into one buffer
of the server, which is handed on before the next connection is read; so ten thousand connections
that say little cost little. Time-outs and rates go by the loop's clock, which never steps.

Not here: what is answered (session.py), who may log in (roster.py), accepting (door.py).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gateway.contract.adapter import AdapterContext, Declare, Emit
from gateway.model.errors import ConfigError, Fault
from gateway.model.rate import TokenBucket

from .admission import Admission, AdmissionLimits, RateLimit
from .codec import PackageBudget, PackageLimits
from .config import Jt808Config, VehicleEntry
from .door import Door, backlog_for
from .files import RegistrationLog, read_vehicles
from .intake import House, Intake
from .roster import Roster, Vehicle
from .session import Delivery, Logins, Session, SessionLimits

log = logging.getLogger(__name__)

NS = 1_000_000_000
READ_BYTES = 4096  # two of the longest frames; what one connection may say in its turn
TICK_S = 1.0
TICKED_PER_TURN = 32  # looked after before the other tasks have a turn: under a millisecond
SHOWN_ONE_BY_ONE_MAX = 500  # connections; beyond, their number is told once a second
RESUMED_PER_TURN = 256


class Connection(asyncio.BufferedProtocol):
    """One accepted socket and its session."""

    __slots__ = (
        "_pauses",
        "_server",
        "_transport",
        "held",
        "is_ending",
        "phone",
        "rate",
        "session",
    )

    def __init__(self, server: Jt808Server, session: Session, rate: RateLimit) -> None:
        self.session = session
        self.rate = rate
        self.phone = ""  # as last seen by the server
        self.held = b""  # read, and not looked at while the house is full
        self.is_ending = False
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._pauses = 0

    # --- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self.is_ending:  # given up while it was on its way
            transport.abort()

    def get_buffer(self, _size_hint: int) -> bytearray:
        return self._server.buffer

    def buffer_updated(self, size: int) -> None:
        self._server.heard(self, bytes(memoryview(self._server.buffer)[:size]))

    def connection_lost(self, error: Exception | None) -> None:
        self._server.lost(self, error)

    # --- what the server calls

    def flush(self, buffer_max: int) -> None:
        """Write what the session has to say, unless the terminal leaves too much unread."""
        output = self.session.take_output()
        if not output or self._transport is None or self._transport.is_closing():
            return
        self._transport.write(output)
        if self._transport.get_write_buffer_size() > buffer_max:
            self.abort()

    def pause(self) -> None:
        """Stop reading until `resume`; each pause has its own."""
        self._pauses += 1
        if self._transport is not None and self._pauses == 1:
            self._transport.pause_reading()

    def resume(self) -> None:
        self._pauses -= 1
        if self._transport is not None and self._pauses == 0:
            self._transport.resume_reading()

    def close(self) -> None:
        """End it after its last replies; the next tick does not wait for them any longer."""
        self.is_ending = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it at once."""
        self.is_ending = True
        if self._transport is not None:
            self._transport.abort()


class Jt808Server:
    """The adapter. `port` is the real one once it listens."""

    def __init__(self, config: Jt808Config, context: AdapterContext) -> None:
        self.port = 0
        self.buffer = bytearray(READ_BYTES)
        self._config = config
        self._context = context
        self._connections: dict[Session, Connection] = {}
        self._no_room: dict[Connection, None] = {}  # paused while the house is full, oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._logins = Logins()
        self._budget = PackageBudget(config.package_bytes_total_max)
        self._limits = _session_limits(config)
        self._admission = Admission(_admission_limits(config), 0)
        self._roster: Roster | None = None
        self._intake: Intake | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state = ""

    async def run(self, emit: Emit, declare: Declare) -> None:
        """Serve until cancelled.

        Raises ConfigError (vehicle list), StorageFault (registrations), Unavailable (port taken),
        Refused (port not allowed).
        """
        config, context = self._config, self._context
        self._loop = asyncio.get_running_loop()
        registrations = RegistrationLog(context.state_dir)
        self._roster = await asyncio.to_thread(self._load_roster, registrations)
        house = House(context.name, emit, declare, context.counters, registrations)
        self._intake = Intake(
            config,
            house,
            self._roster,
            on_stored=self._stored,
            on_failed=self._failed,
            on_room=self._room,
        )
        self._admission = Admission(_admission_limits(config), self._steady_ns())
        door = Door(
            self._admission, context.counters, welcome=self._welcome, steady_ns=self._steady_ns
        )
        # no TaskGroup: the supervisor judges an error by its type, not inside a group
        work: list[asyncio.Task[None]] = []
        try:
            backlog = backlog_for(config.accepts_per_s_max)
            self.port = await door.open(config.host, config.port, backlog=backlog)
            self._show("listening")
            work += [
                asyncio.create_task(self._intake.run()),
                asyncio.create_task(self._keep_house()),
            ]
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in work:
                if task.done():
                    task.result()
        finally:
            door.close()
            await self._hang_up([*work, *self._tasks])

    def _load_roster(self, registrations: RegistrationLog) -> Roster:
        config = self._config
        entries = list(config.vehicles)
        if config.vehicles_file:
            entries += read_vehicles(Path(config.vehicles_file))
        where = config.vehicles_file or "vehicles"
        phones = Counter(entry.phone for entry in entries)
        twice = sorted(phone for phone, count in phones.items() if count > 1)
        if twice:
            raise ConfigError([Fault(where, 0, "phone", f"each phone once; twice: {twice}")])
        return Roster(
            [_vehicle(entry) for entry in entries],
            known_only=config.registration == "known",
            vehicles_max=config.vehicles_max,
            new_code=lambda: secrets.token_hex(16),
            records=registrations.load(),
            utc_offset_s=round(config.utc_offset_h * 3600),
            pace=TokenBucket(
                config.registrations_per_s_max, config.registrations_per_s_max, self._steady_ns()
            ),
        )

    def _steady_ns(self) -> int:
        """A clock that never steps: time-outs must outlive the setting of the other one."""
        assert self._loop is not None, "the clock is the running loop's"
        return int(self._loop.time() * NS)

    # --- connections

    def _welcome(self, accepted: socket.socket, address: str) -> None:
        assert self._loop is not None
        task = self._loop.create_task(self._connect(accepted, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, accepted: socket.socket, address: str) -> None:
        config, steady_ns = self._config, self._steady_ns()
        assert self._roster is not None
        assert self._loop is not None
        session = Session(
            self._roster, self._context.counters, self._limits, steady_ns, budget=self._budget
        )
        rate = RateLimit(
            config.frames_per_s_max,
            config.bytes_per_s_max,
            burst_s=config.burst_s,
            now_ns=steady_ns,
        )
        connection = self._connections[session] = Connection(self, session, rate)
        gone = self._admission.enter(connection, address)
        if isinstance(gone, Connection):
            self._context.counters.count("closed", reason="crowded")
            gone.abort()
        self._show("")
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
        except BaseException as error:
            accepted.close()
            self.lost(connection, error if isinstance(error, Exception) else None)
            if not isinstance(error, OSError):
                raise

    def lost(self, connection: Connection, error: Exception | None) -> None:
        """The connection is no more: everything it held is given back."""
        if error is not None:
            self._context.counters.count("link_lost")
        self._connections.pop(connection.session, None)
        self._no_room.pop(connection, None)
        self._admission.leave(connection)
        self._logins.logout(connection.session, connection.phone)
        connection.session.close()
        self._show("")

    def heard(self, connection: Connection, data: bytes) -> None:
        """Bytes came. While the house is full they are kept, unread, and no more are taken."""
        assert self._intake is not None
        if connection.is_ending:
            return
        if self._intake.is_full:
            connection.held += data
            self._no_room[connection] = None
            connection.pause()
            self._context.counters.count("held_back")
            return
        try:
            self._take(connection, data)
        except Exception:  # ours; it may cost this terminal its connection, and no other's
            log.exception("a connection failed and is closed")
            self._context.counters.count("closed", reason="internal")
            connection.abort()

    def _take(self, connection: Connection, data: bytes) -> None:
        session, steady_ns = connection.session, self._steady_ns()
        assert self._intake is not None
        before_count = session.received_count
        deliveries = session.receive(data, self._context.now_ns(), steady_ns)
        self._note_login(connection)
        connection.flush(self._config.write_buffer_max)
        if reason := session.close_reason(steady_ns):
            self._context.counters.count("closed", reason=reason)
            connection.close()
            return
        if deliveries:
            self._intake.offer(deliveries)
        frame_count = session.received_count - before_count
        pause_s = connection.rate.pause_s(frame_count, len(data), steady_ns)
        if pause_s > 0:
            assert self._loop is not None
            self._context.counters.count("throttled")
            connection.pause()
            self._loop.call_later(pause_s, connection.resume)

    def _room(self) -> None:
        """The house has room again: those held back go on, oldest first, some at a time."""
        assert self._intake is not None
        assert self._loop is not None
        for connection in list(self._no_room)[:RESUMED_PER_TURN]:
            if self._intake.is_full:
                return
            del self._no_room[connection]
            held, connection.held = connection.held, b""
            connection.resume()
            self.heard(connection, held)
        if self._no_room:
            self._loop.call_soon(self._room)

    def _note_login(self, connection: Connection) -> None:
        """Keep the table of logins; the connection a new login replaces is dead and is closed."""
        session = connection.session
        if session.phone == connection.phone:
            return
        self._logins.logout(session, connection.phone)
        connection.phone = session.phone
        if not session.phone:
            self._admission.logged_out(connection)
        else:
            self._admission.logged_in(connection)
            if (replaced := self._logins.login(session)) is not None:
                self._context.counters.count("closed", reason="replaced")
                self._connections[replaced].abort()
        self._show("")

    async def _keep_house(self) -> None:
        """A few connections at a time, spread over the second: ten thousand at a stretch, even with
        turns for others in between, cost everybody fifty milliseconds once a second."""
        while True:
            connections = list(self._connections.values())
            turns = range(0, len(connections) or 1, TICKED_PER_TURN)
            for start in turns:
                await asyncio.sleep(TICK_S / len(turns))
                for connection in connections[start : start + TICKED_PER_TURN]:
                    if connection.session in self._connections:
                        self._look_after(connection)
            self._tell()

    def _look_after(self, connection: Connection) -> None:
        steady_ns = self._steady_ns()
        if connection.is_ending:  # a peer that does not read its last reply keeps no place
            connection.abort()
            return
        connection.session.tick(steady_ns)
        connection.flush(self._config.write_buffer_max)
        if reason := connection.session.close_reason(steady_ns):
            self._context.counters.count("closed", reason=reason)
            connection.abort()

    async def _hang_up(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self._connections.values()):
            connection.abort()
        await asyncio.sleep(0)  # the event loop tells the connections that they are lost
        self._connections.clear()
        self._no_room.clear()

    # --- what the intake reports

    def _stored(self, deliveries: Sequence[Delivery]) -> None:
        spoken = dict.fromkeys(delivery.session for delivery in deliveries)
        for delivery in deliveries:
            delivery.session.release(delivery)
        for session in spoken:
            if (connection := self._connections.get(session)) is not None:
                connection.flush(self._config.write_buffer_max)
        if self._state == "faulty":
            self._show("listening")

    def _failed(self, deliveries: Sequence[Delivery], reason: str) -> None:
        """Not durable, so not answered: the terminals repeat it when they are back."""
        for session in dict.fromkeys(delivery.session for delivery in deliveries):
            if (connection := self._connections.get(session)) is not None:
                connection.abort()
        self._state = "faulty"
        self._context.status("faulty", reason)

    def _show(self, state: str) -> None:
        """Tell the operator; an empty state keeps the present one, and a fault stands. In a storm
        the numbers are told once a second."""
        if state:
            self._state = state
        if state or len(self._connections) < SHOWN_ONE_BY_ONE_MAX:
            self._tell()

    def _tell(self) -> None:
        if self._state == "faulty":
            return
        assert self._roster is not None
        counts = f"{len(self._logins)} terminals, {len(self._connections)} connections"
        full = f", vehicles_max {self._config.vehicles_max} is reached" * self._roster.is_full
        detail = f"{self._config.host}:{self.port}, {counts}{full}"
        self._context.status(self._state, detail)


def _session_limits(config: Jt808Config) -> SessionLimits:
    return SessionLimits(
        login_timeout_s=config.login_timeout_s,
        silence_timeout_s=config.silence_timeout_s,
        auth_failures_max=config.auth_failures_max,
        registrations_max=config.registrations_per_connection_max,
        packages=PackageLimits(
            message_bytes_max=config.package_bytes_max,
            parts_max=config.package_parts_max,
            messages_max=config.package_messages_max,
            age_max_s=config.package_age_max_s,
            ask_after_s=config.package_ask_after_s,
            ask_count_max=config.package_ask_count_max,
        ),
    )


def _admission_limits(config: Jt808Config) -> AdmissionLimits:
    return AdmissionLimits(
        connections_max=config.connections_max,
        connections_per_address_max=config.connections_per_address_max,
        strangers_max=config.strangers_max,
        accepts_per_s_max=config.accepts_per_s_max,
    )


def _vehicle(entry: VehicleEntry) -> Vehicle:
    offset_h = entry.utc_offset_h
    return Vehicle(
        phone=entry.phone,
        plate=entry.plate.replace(" ", ""),
        plate_colour=entry.plate_colour,
        terminal_id=entry.terminal_id,
        vehicle_class=entry.vehicle_class,
        name=entry.name,
        utc_offset_s=None if offset_h is None else round(offset_h * 3600),
    )
