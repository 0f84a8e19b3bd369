"""Making messages durable, many terminals at a time, and only then answering them.

                               .- known: their points are declared -. every few ms:
    connections --offer--> waiting                                  |- await emit(a batch of all)
                               `- fresh: registrations to disk,    -'  session.release -> replies
                                         declare vehicles and points

One `emit`, and so one group commit, serves every terminal that spoke within the flush interval or
while the last commit ran. A vehicle that says something for the first time has points to declare,
and one that registers waits for a disk of its own; such vehicles go by the second lane, some at a
time, so that thousands coming back at once delay nobody who is there. A vehicle is in one lane at a
time, so what it says stays in its order.

Surprising: when `emit` fails nothing is retried here; the connections concerned are closed
unanswered, and their terminals repeat. Limit: `pending_messages_max` messages; at it `is_full` says
so, the connections stop reading until `on_room`, and TCP holds the terminals back.

Not here: sockets (client.py), what the samples are (mapping.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from gateway.contract.adapter import Counters, Declare, Emit
from gateway.model.errors import SpoolFull, StorageFault
from gateway.model.point import Device, Point

from .codec import Registration
from .config import Jt808Config
from .files import RegistrationLog
from .mapping import Sample, samples_of, to_batch, vehicle_device, vehicle_point
from .roster import Record, Roster
from .session import Delivery

COMMIT_MESSAGES_MAX = 1000  # about 13 000 samples: mapping them holds the loop well under 0.1 s
COMMIT_FRESH_MAX = 16  # vehicles; declaring the points of one takes about 0.3 ms of the loop


class Lane(Enum):
    """Which way a vehicle goes."""

    KNOWN = "known"
    FRESH = "fresh"


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
        self._indices: dict[str, dict[str, int]] = {}  # by phone and name
        self._heard: dict[str, set[int]] = {}  # by phone, ids of messages whose points are declared

    def is_fresh(self, delivery: Delivery) -> bool:
        """Whether this kind of message is the first of its vehicle: its points cost time. A
        registration always is: it waits for its own file."""
        if delivery.message.message_id == Registration.message_id:
            return True
        return delivery.message.message_id not in self._heard.get(delivery.phone, ())

    async def indices(self, samples: Sequence[tuple[Delivery, Sample]]) -> list[int]:
        """The point_index of each sample's point."""
        spoken = {delivery.phone: delivery for delivery, _ in samples}
        changed = self._changed_devices(spoken)
        if changed:
            await self._house.declare.devices(list(changed.values()))
            self._devices.update(changed)
            for phone, delivery in spoken.items():
                self._made_from[phone] = (self._roster.record(phone), delivery.header.phone_bcd)
            for phone in changed:
                self._indices.pop(phone, None)
        keys = [(delivery.phone, sample.name) for delivery, sample in samples]
        fresh = [k for k in dict.fromkeys(keys) if k[1] not in self._indices.get(k[0], ())]
        if fresh:
            points = [self._point(phone, name) for phone, name in fresh]
            found = await self._house.declare.points(points)
            for (phone, name), index in zip(fresh, found, strict=True):
                self._indices.setdefault(phone, {})[name] = index
        for delivery, _ in samples:
            self._heard.setdefault(delivery.phone, set()).add(delivery.message.message_id)
        return [self._indices[phone][name] for phone, name in keys]

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
        self._under_way: set[str] = set()  # phones, in one lane or the other
        self._work = {lane: asyncio.Event() for lane in Lane}

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be offered: what is read beyond waits unread."""
        return len(self._waiting) >= self._config.pending_messages_max

    def offer(self, deliveries: Sequence[Delivery]) -> None:
        """Queue them."""
        self._waiting += deliveries
        self._wake()

    async def run(self) -> None:
        """Commit what waits, for ever. Raises what the house raises and no retry here can mend."""
        lanes = [asyncio.create_task(self._drive(lane)) for lane in Lane]
        try:
            await asyncio.wait(lanes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in lanes:
                task.cancel()
            outcomes = await asyncio.gather(*lanes, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def _wake(self) -> None:
        for event in self._work.values():
            event.set()

    async def _drive(self, lane: Lane) -> None:
        while True:
            await self._work[lane].wait()
            await asyncio.sleep(self._config.flush_interval_s)
            deliveries = self._take(lane)
            if not deliveries:
                self._work[lane].clear()
                continue
            if not self.is_full:
                self._on_room()
            phones = {delivery.phone for delivery in deliveries}
            self._under_way |= phones
            try:
                await self._commit(deliveries, lane)
            except (SpoolFull, StorageFault) as error:
                self._house.counters.count("dropped", len(deliveries), reason="not_durable")
                self._on_failed(deliveries, f"{type(error).__name__}: {error}")
            else:
                self._on_stored(deliveries)
            finally:
                self._under_way -= phones
            self._wake()  # the other lane may have passed over one of these

    def _take(self, lane: Lane) -> list[Delivery]:
        """The oldest of what waits and belongs to the lane. Whoever is passed over is passed over
        with all that it said, and whoever is taken with all of it."""
        taken: list[Delivery] = []
        left: list[Delivery] = []
        mine: set[str] = set()
        others = set(self._under_way)
        for at, delivery in enumerate(self._waiting):
            if len(taken) >= COMMIT_MESSAGES_MAX:
                left += self._waiting[at:]
                break
            phone = delivery.phone
            if phone in others or not self._belongs(delivery, lane, mine):
                others.add(phone)
                left.append(delivery)
            else:
                mine.add(phone)
                taken.append(delivery)
        self._waiting = left
        return taken

    def _belongs(self, delivery: Delivery, lane: Lane, mine: set[str]) -> bool:
        is_fresh = self._book.is_fresh(delivery)
        if lane is Lane.KNOWN:
            return not is_fresh
        return delivery.phone in mine or (is_fresh and len(mine) < COMMIT_FRESH_MAX)

    async def _commit(self, deliveries: Sequence[Delivery], lane: Lane) -> None:
        """Returns when everything the deliveries say is durable. One lane alone writes the file of
        registrations, so none of them is told of before its line is there."""
        changed = self._roster.take_changed() if lane is Lane.FRESH else []
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
