"""Who may log in: the list of vehicles, the registrations, the codes. Pure.

    registration   "open": anybody is registered      "known": only what the list says
    answers 0100   0 done · 1 vehicle has another terminal · 2 no such vehicle (plate)
                   3 terminal has another vehicle · 4 no such terminal (phone or terminal id)

A code comes from the injected secret source, never from the phone, and the same terminal
registering again gets the same one: terminals that lost a reply ask again. Codes are compared in
constant time. Identity is the phone with leading zeros removed.

Surprising: `recent` remembers which positions of a vehicle are already durable across connections,
so that what a terminal repeats after reconnecting is stored once.

When `vehicles_max` is reached a registration whose code was never used makes room, the oldest
first; one that was used never does. New phones are taken at a pace. So whoever registers phones by
the thousand under `open` gets as far as the limit and turns out nobody that ever reported; only
`known` keeps it from taking the free places. Not here: the file that lets registrations survive a
restart (files.py).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from gateway.model.rate import TokenBucket

from .codec import EDITION_2013, GMT8_S, Registration

REGISTERED, VEHICLE_TAKEN, NO_VEHICLE, TERMINAL_TAKEN, NO_TERMINAL = range(5)
RECENT_MAX = 64  # frames remembered for each vehicle: more than a terminal keeps unanswered


@dataclass(frozen=True, slots=True)
class Vehicle:
    """One entry of the list; empty fields are not checked."""

    phone: str
    plate: str = ""
    plate_colour: int = 0
    terminal_id: str = ""
    vehicle_class: str = ""
    name: str = ""
    utc_offset_s: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One registration, as it must survive a restart."""

    phone: str
    code: str
    terminal_id: str = ""
    plate: str = ""
    plate_colour: int = 0
    maker: str = ""
    model: str = ""
    edition: int = EDITION_2013
    is_proven: bool = True  # its code was used; earlier releases did not say, and are believed

    @property
    def is_forgotten(self) -> bool:
        """Written in place of a registration that made room: its code holds no longer."""
        return not self.code


class Recent:
    """Fingerprints of the last frames that became durable, and what was answered; bounded."""

    def __init__(self, size_max: int = RECENT_MAX) -> None:
        self._size_max = size_max
        self._seen: dict[int, int] = {}

    def add(self, fingerprint: int, result: int) -> None:
        self._seen[fingerprint] = result
        if len(self._seen) > self._size_max:
            del self._seen[next(iter(self._seen))]

    def result(self, fingerprint: int) -> int | None:
        """What was answered to that frame; None when it is not remembered."""
        return self._seen.get(fingerprint)


class Roster:
    """Answers registrations and authentications, and says what is known of a phone."""

    def __init__(
        self,
        vehicles: Iterable[Vehicle],
        *,
        known_only: bool,
        vehicles_max: int,
        new_code: Callable[[], str],
        records: Iterable[Record] = (),
        utc_offset_s: int = GMT8_S,
        pace: TokenBucket | None = None,
    ) -> None:
        self._known_only = known_only
        self._vehicles_max = vehicles_max
        self._new_code = new_code
        self._utc_offset_s = utc_offset_s
        self._listed = {vehicle.phone: vehicle for vehicle in vehicles}
        self._by_plate = {v.plate: v for v in self._listed.values() if v.plate}
        self._by_terminal = {v.terminal_id: v for v in self._listed.values() if v.terminal_id}
        self._records = {record.phone: record for record in records}
        self._unproven = dict.fromkeys(p for p, r in self._records.items() if not r.is_proven)
        self._pace = pace
        self._changed: list[Record] = []
        self._recent: dict[str, Recent] = {}

    @property
    def is_full(self) -> bool:
        """Whether no phone can be added unless another was never used."""
        return len(self._records) >= self._vehicles_max

    def register(self, phone: str, wanted: Registration, now_ns: int = 0) -> tuple[int, str]:
        """The result for 8100, and the code when it is 0."""
        plate = wanted.plate.replace(" ", "")
        record = self._records.get(phone)
        result = self._judge(phone, plate, wanted.terminal_id)
        if result != REGISTERED:
            return result, ""
        if record is None and not self._has_room(now_ns):
            return NO_TERMINAL, ""
        same = record is not None and record.terminal_id == wanted.terminal_id
        fresh = Record(
            phone=phone,
            code=record.code if record is not None and same else self._new_code(),
            terminal_id=wanted.terminal_id,
            plate=plate,
            plate_colour=wanted.plate_colour,
            maker=wanted.maker,
            model=wanted.model,
            edition=wanted.edition,
            is_proven=record is not None and record.is_proven,
        )
        if fresh != record:
            self._keep(fresh)
        return REGISTERED, fresh.code

    def _keep(self, record: Record) -> None:
        self._records[record.phone] = record
        if record.is_proven:
            self._unproven.pop(record.phone, None)
        else:
            self._unproven[record.phone] = None
        self._changed.append(record)

    def _has_room(self, now_ns: int) -> bool:
        """For one phone more, which costs a token and, at the limit, the oldest one never used."""
        if self._pace is not None and self._pace.wait_s(now_ns) > 0:
            return False
        if self.is_full and self._unproven:
            phone = next(iter(self._unproven))
            del self._unproven[phone], self._records[phone]
            self._changed.append(Record(phone, code=""))
        if self.is_full:
            return False
        if self._pace is not None:
            self._pace.take(1, now_ns)
        return True

    def _judge(self, phone: str, plate: str, terminal_id: str) -> int:
        if not self._known_only:
            return REGISTERED
        mine = self._listed.get(phone)
        owner = self._by_plate.get(plate)
        if owner is None and not (mine is not None and not mine.plate):
            return NO_VEHICLE
        if owner is not None and owner is not mine:
            return self._judge_other_plate(phone, owner)
        assert mine is not None, "either the plate's owner is this phone, or it has no plate"
        if mine.terminal_id and mine.terminal_id != terminal_id:
            other = self._by_terminal.get(terminal_id)
            taken = other is not None and other.phone in self._records
            return TERMINAL_TAKEN if taken else NO_TERMINAL
        return REGISTERED

    def _judge_other_plate(self, phone: str, owner: Vehicle) -> int:
        """The plate is listed for another phone."""
        if phone in self._listed and phone in self._records:
            return TERMINAL_TAKEN
        return VEHICLE_TAKEN if owner.phone in self._records else NO_TERMINAL

    def authenticate(self, phone: str, code: str) -> bool:
        """Whether `code` is the phone's. An unknown phone takes as long as a wrong code."""
        record = self._records.get(phone)
        wanted = record.code if record else "\0"
        right = hmac.compare_digest(wanted.encode(), code.encode())
        if not right or record is None or (self._known_only and phone not in self._listed):
            return False
        if not record.is_proven:
            self._keep(replace(record, is_proven=True))
        return True

    def utc_offset_s(self, phone: str) -> int:
        """How far the vehicle's clock is ahead of UTC."""
        listed = self._listed.get(phone)
        if listed is None or listed.utc_offset_s is None:
            return self._utc_offset_s
        return listed.utc_offset_s

    def vehicle(self, phone: str) -> Vehicle:
        """What is known of the phone: the list first, then what it registered as."""
        listed = self._listed.get(phone)
        record = self._records.get(phone)
        return Vehicle(
            phone=phone,
            plate=(listed and listed.plate) or (record.plate if record else ""),
            plate_colour=(listed and listed.plate_colour) or (record.plate_colour if record else 0),
            terminal_id=(listed and listed.terminal_id) or (record.terminal_id if record else ""),
            vehicle_class=listed.vehicle_class if listed else "",
            name=listed.name if listed else "",
            utc_offset_s=self.utc_offset_s(phone),
        )

    def record(self, phone: str) -> Record | None:
        return self._records.get(phone)

    def recent(self, phone: str) -> Recent:
        """What of this vehicle is already durable. Only for phones that have a code."""
        assert phone in self._records, "memory is kept for registered vehicles only"
        return self._recent.setdefault(phone, Recent())

    def take_changed(self) -> list[Record]:
        """Registrations not yet on disk; the caller stores them, or puts them back."""
        changed, self._changed = self._changed, []
        return changed

    def put_back(self, records: Iterable[Record]) -> None:
        self._changed = [*records, *self._changed]
