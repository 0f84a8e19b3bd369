"""The TCP server: sockets, connections, limits. With intake.py the only part that awaits.

    accept -> Connection(session, writer) --read--> session.receive -> intake.submit
                   ^---------- replies ---------------- intake: durable <--'
    every second: 8003 for missing sub-packages; silent, unknown and replaced connections closed

Limits and what happens at them: connections (closed at once), frames and bytes a second for each
(reading pauses, TCP holds the terminal back), unread replies (closed), messages not yet durable
(reading pauses everywhere). A storage failure closes the connections concerned without a reply and
shows `faulty` until a commit succeeds.

Surprising: nothing here starts a thread or a process; the registration log alone runs in a thread.
Not here: what is answered (session.py), who may (roster.py).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gateway.contract.adapter import AdapterContext, Declare, Emit
from gateway.model.errors import ConfigError, Fault, Refused, Unavailable

from .codec import PackageLimits
from .config import Jt808Config, VehicleEntry
from .files import RegistrationLog, read_vehicles
from .intake import House, Intake
from .roster import Roster, Vehicle
from .session import Delivery, Logins, Session, SessionLimits

NS = 1_000_000_000
READ_BYTES = 16_384
TICK_S = 1.0
BURST_S = 4.0  # a terminal back from a dead zone may send this many seconds' worth at once


class RateLimit:
    """A token bucket for frames and one for bytes; says how long to pause, never drops."""

    def __init__(self, frames_per_s: float, bytes_per_s: float, now_ns: int) -> None:
        self._rates = (frames_per_s, bytes_per_s)
        self._tokens = [frames_per_s * BURST_S, bytes_per_s * BURST_S]
        self._then_ns = now_ns

    def pause_s(self, frame_count: int, byte_count: int, now_ns: int) -> float:
        elapsed_s = max(0, now_ns - self._then_ns) / NS
        self._then_ns = now_ns
        pause = 0.0
        for kind, used in enumerate((frame_count, byte_count)):
            rate = self._rates[kind]
            self._tokens[kind] = min(self._tokens[kind] + elapsed_s * rate, rate * BURST_S) - used
            pause = max(pause, -self._tokens[kind] / rate)
        return pause


class Connection:
    """One accepted socket and its session."""

    def __init__(self, session: Session, writer: asyncio.StreamWriter, rate: RateLimit) -> None:
        self.session = session
        self.rate = rate
        self.phone = ""  # as last seen by the server
        self._writer = writer

    def flush(self, buffer_max: int) -> None:
        """Write what the session has to say, unless the terminal leaves too much unread."""
        output = self.session.take_output()
        if not output or self._writer.is_closing():
            return
        self._writer.write(output)
        if self._writer.transport.get_write_buffer_size() > buffer_max:
            self.abort()

    def abort(self) -> None:
        """End it at once; the reader's loop sees the end of the stream."""
        self._writer.transport.abort()


class Jt808Server:
    """The adapter. `port` is the real one once it listens."""

    def __init__(self, config: Jt808Config, context: AdapterContext) -> None:
        self.port = 0
        self._config = config
        self._context = context
        self._connections: dict[Session, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._logins = Logins()
        self._limits = SessionLimits(
            login_timeout_s=config.login_timeout_s,
            silence_timeout_s=config.silence_timeout_s,
            auth_failures_max=config.auth_failures_max,
            packages=PackageLimits(
                message_bytes_max=config.package_bytes_max,
                messages_max=config.package_messages_max,
                age_max_s=config.package_age_max_s,
                ask_after_s=config.package_ask_after_s,
                ask_count_max=config.package_ask_count_max,
            ),
        )
        self._roster: Roster | None = None
        self._intake: Intake | None = None
        self._state = ""

    async def run(self, emit: Emit, declare: Declare) -> None:
        """Serve until cancelled.

        Raises ConfigError (vehicle list), StorageFault (registrations), Unavailable (port taken),
        Refused (port not allowed).
        """
        log = RegistrationLog(self._context.state_dir)
        self._roster = await asyncio.to_thread(self._load_roster, log)
        context = self._context
        house = House(context.name, emit, declare, context.counters, log)
        self._intake = Intake(
            self._config,
            house,
            self._roster,
            on_stored=self._stored,
            on_failed=self._failed,
        )
        server = await self._listen()
        # no TaskGroup: the supervisor judges an error by its type, not inside a group
        work = [asyncio.create_task(self._intake.run()), asyncio.create_task(self._keep_house())]
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in work:
                if task.done():
                    task.result()
        finally:
            server.close()
            await self._hang_up([*work, *self._tasks])
            await server.wait_closed()

    def _load_roster(self, log: RegistrationLog) -> Roster:
        config = self._config
        entries = list(config.vehicles)
        if config.vehicles_file:
            entries += read_vehicles(Path(config.vehicles_file))
        where = config.vehicles_file or "vehicles"
        phones = [entry.phone for entry in entries]
        twice = sorted({phone for phone in phones if phones.count(phone) > 1})
        if twice:
            raise ConfigError([Fault(where, 0, "phone", f"each phone once; twice: {twice}")])
        return Roster(
            [_vehicle(entry) for entry in entries],
            known_only=config.registration == "known",
            vehicles_max=config.vehicles_max,
            new_code=lambda: secrets.token_hex(16),
            records=log.load(),
            utc_offset_s=round(config.utc_offset_h * 3600),
        )

    async def _listen(self) -> asyncio.Server:
        config = self._config
        try:
            server = await asyncio.start_server(self._accept, config.host, config.port)
        except PermissionError as error:
            raise Refused(f"{config.host}:{config.port}: {error}") from error
        except OSError as error:
            raise Unavailable(f"{config.host}:{config.port}: {error}") from error
        self.port = server.sockets[0].getsockname()[1]
        self._show("listening")
        return server

    # --- connections

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "streams run this callback in a task"
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the server ends; start_server would report it as an error
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        config, context = self._config, self._context
        assert self._roster is not None
        if len(self._connections) >= config.connections_max:
            context.counters.count("rejected", reason="connections")
            writer.transport.abort()
            return
        now_ns = context.now_ns()
        session = Session(self._roster, context.counters, self._limits, now_ns)
        rate = RateLimit(config.frames_per_s_max, config.bytes_per_s_max, now_ns)
        connection = self._connections[session] = Connection(session, writer, rate)
        try:
            await self._read(connection, reader)
        except OSError:
            context.counters.count("link_lost")
        finally:
            del self._connections[session]
            self._logins.logout(session, connection.phone)
            self._show("")
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _read(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        session = connection.session
        assert self._intake is not None
        while data := await reader.read(READ_BYTES):
            now_ns = self._context.now_ns()
            before_count = session.received_count
            deliveries = session.receive(data, now_ns)
            self._note_login(connection)
            connection.flush(self._config.write_buffer_max)
            if reason := session.close_reason(now_ns):
                self._context.counters.count("closed", reason=reason)
                return
            if deliveries:
                await self._intake.submit(deliveries)
            frame_count = session.received_count - before_count
            pause_s = connection.rate.pause_s(frame_count, len(data), now_ns)
            if pause_s > 0:
                self._context.counters.count("throttled")
                await asyncio.sleep(pause_s)

    def _note_login(self, connection: Connection) -> None:
        """Keep the table of logins; the connection a new login replaces is dead and is closed."""
        session = connection.session
        if session.phone == connection.phone:
            return
        self._logins.logout(session, connection.phone)
        connection.phone = session.phone
        if session.phone and (replaced := self._logins.login(session)) is not None:
            self._context.counters.count("closed", reason="replaced")
            self._connections[replaced].abort()
        self._show("")

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now_ns = self._context.now_ns()
            for connection in list(self._connections.values()):
                connection.session.tick(now_ns)
                connection.flush(self._config.write_buffer_max)
                if reason := connection.session.close_reason(now_ns):
                    self._context.counters.count("closed", reason=reason)
                    connection.abort()

    @staticmethod
    async def _hang_up(tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
        """Tell the operator; an empty state keeps the present one, and a fault stands."""
        if state:
            self._state = state
        if self._state != "faulty":
            where = f"{self._config.host}:{self.port}"
            counts = f"{len(self._logins)} terminals, {len(self._connections)} connections"
            self._context.status(self._state, f"{where}, {counts}")


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
