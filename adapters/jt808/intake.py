"""Making messages durable, many terminals at a time, and only then answering them.

    connections --offer--> waiting --every few ms--> registrations to disk
                                                      declare vehicles and points (new ones)
                                                      await emit(one batch of all)   durable
                                                      session.release -> replies

One `emit`, and so one group commit, serves every terminal that spoke within the flush interval or
while the last commit ran. Surprising: when `emit` fails nothing is retried here; the connections
concerned are closed unanswered, and their terminals repeat. Limit: `pending_messages_max` messages;
at it `is_full` says so, the connections stop reading until `on_room`, and TCP holds the terminals
back.

Not here: sockets (client.py), what the samples are (mapping.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.contract.adapter import Counters, Declare, Emit
from gateway.model.errors import SpoolFull, StorageFault
from gateway.model.point import Device, Point

from .config import Jt808Config
from .files import RegistrationLog
from .mapping import Sample, samples_of, to_batch, vehicle_device, vehicle_point
from .roster import Record, Roster
from .session import Delivery

COMMIT_MESSAGES_MAX = 1000  # about 13 000 samples: mapping them holds the loop well under 0.1 s


@dataclass(frozen=True)
class House:
    """What the intake is given to work with."""

    name: str  # of the adapter
    emit: Emit
    declare: Declare
    counters: Counters
    log: RegistrationLog


class PointBook:
    """Indices of points already declared; declares what is new or has changed."""

    def __init__(self, config: Jt808Config, house: House, roster: Roster) -> None:
        self._config = config
        self._house = house
        self._roster = roster
        self._devices: dict[str, Device] = {}
        self._made_from: dict[str, tuple[Record | None, bytes]] = {}  # cheap to compare
        self._indices: dict[tuple[str, str], int] = {}

    async def indices(self, samples: Sequence[tuple[Delivery, Sample]]) -> list[int]:
        """The point_index of each sample's point."""
        spoken = {delivery.phone: delivery for delivery, _ in samples}
        changed = self._changed_devices(spoken)
        if changed:
            await self._house.declare.devices(list(changed.values()))
            self._devices.update(changed)
            for phone, delivery in spoken.items():
                self._made_from[phone] = (self._roster.record(phone), delivery.header.phone_bcd)
            self._indices = {k: v for k, v in self._indices.items() if k[0] not in changed}
        keys = [(delivery.phone, sample.name) for delivery, sample in samples]
        fresh = [key for key in dict.fromkeys(keys) if key not in self._indices]
        if fresh:
            points = [self._point(phone, name) for phone, name in fresh]
            found = await self._house.declare.points(points)
            self._indices.update(zip(fresh, found, strict=True))
        return [self._indices[key] for key in keys]

    def _changed_devices(self, deliveries: dict[str, Delivery]) -> dict[str, Device]:
        """A device changes when its terminal registers or comes back with a new firmware."""
        changed = {}
        for phone, delivery in deliveries.items():
            record, phone_bcd = self._roster.record(phone), delivery.header.phone_bcd
            if self._made_from.get(phone) == (record, phone_bcd):
                continue
            changed[phone] = vehicle_device(
                self._roster.vehicle(phone),
                record,
                phone_bcd=phone_bcd,
                prefix=self._config.device_prefix,
                adapter=self._house.name,
            )
        return changed

    def _point(self, phone: str, name: str) -> Point:
        return vehicle_point(
            self._devices[phone],
            name,
            report_interval_s=self._config.report_interval_s,
            heartbeat_interval_s=self._config.heartbeat_interval_s,
        )


class Intake:
    """The waiting room of all connections."""

    def __init__(
        self,
        config: Jt808Config,
        house: House,
        roster: Roster,
        *,
        on_stored: Callable[[Sequence[Delivery]], None],
        on_failed: Callable[[Sequence[Delivery], str], None],
        on_room: Callable[[], None],
    ) -> None:
        self._config = config
        self._house = house
        self._roster = roster
        self._book = PointBook(config, house, roster)
        self._on_stored = on_stored
        self._on_failed = on_failed
        self._on_room = on_room
        self._waiting: list[Delivery] = []
        self._work = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be offered: what is read beyond waits unread."""
        return len(self._waiting) >= self._config.pending_messages_max

    def offer(self, deliveries: Sequence[Delivery]) -> None:
        """Queue them."""
        self._waiting += deliveries
        self._work.set()

    async def run(self) -> None:
        """Commit what waits, for ever."""
        while True:
            await self._work.wait()
            await asyncio.sleep(self._config.flush_interval_s)
            deliveries = self._waiting[:COMMIT_MESSAGES_MAX]
            self._waiting = self._waiting[COMMIT_MESSAGES_MAX:]
            if not self._waiting:
                self._work.clear()
            if not self.is_full:
                self._on_room()
            try:
                await self._commit(deliveries)
            except (SpoolFull, StorageFault) as error:
                self._house.counters.count("dropped", len(deliveries), reason="not_durable")
                self._on_failed(deliveries, f"{type(error).__name__}: {error}")
            else:
                self._on_stored(deliveries)

    async def _commit(self, deliveries: Sequence[Delivery]) -> None:
        """Returns when everything the deliveries say is durable."""
        changed = self._roster.take_changed()
        if changed:
            try:
                await asyncio.to_thread(self._house.log.append, changed)
            except BaseException:
                self._roster.put_back(changed)
                raise
        samples: list[tuple[Delivery, Sample]] = []
        for delivery in deliveries:
            offset_s = self._roster.utc_offset_s(delivery.phone)
            said, notes = samples_of(delivery.message, delivery.received_time_ns, offset_s)
            samples += [(delivery, sample) for sample in said]
            for note in notes:
                self._house.counters.count("flagged", reason=note)
        if samples:
            indices = await self._book.indices(samples)
            received = [delivery.received_time_ns for delivery, _ in samples]
            await self._house.emit(to_batch([sample for _, sample in samples], indices, received))
