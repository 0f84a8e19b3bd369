"""Messages in, samples out, as the configuration's mappings say. Pure; never raises for a message.

    message --topic--> mappings --each--> elements --device, point, time, quality, value--> rows

What a device gets wrong in a **value** is a sample of bad quality: no number, no value, not finite.
What it gets wrong in the **time** is a sample at the time of receipt with an uncertain clock. What
it gets wrong in the **identity** (a name that cannot be an id, two devices that claim one point, a
new name beyond `points_max`) is refused with its reason, because a value under the wrong name is
worse than none; the client keeps the message in quarantine.

The surprising thing: a point is bound to the device, area and quantity it was first seen with. The
same point id from another dam is refused, not merged.

Owns: values, times, qualities, ids. Not here: bytes (codec.py), paths (paths.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from adapters.mqtt_json.codec import AMBIGUOUS
from adapters.mqtt_json.config import QUALITY_BY_WORD, FieldConfig, MappingConfig
from adapters.mqtt_json.paths import (
    ELEMENTS_MAX,
    MISSING,
    Each,
    Source,
    Template,
    TopicFilter,
)
from adapters.mqtt_json.times import TimeReader
from gateway.model.point import Device, Point, PointKind, is_valid_id
from gateway.model.quality import Quality

_BITS_MAX = 2**52 - 1  # PointKind.BITS
_NUMBER_TEXT_SIZE_MAX = 64


class Message(NamedTuple):
    """One decoded payload and how it came."""

    topic: str
    body: Any
    received_time_ns: int
    retained: bool = False  # the broker kept it from earlier: its time of receipt says nothing


class Row(NamedTuple):
    """One sample, still under its point's name."""

    point_id: str
    value: float  # NaN where the quality is bad for want of one
    quality: Quality
    source_time_ns: int


@dataclass
class Translation:
    """What one message said."""

    rows: list[Row] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)  # first seen with this message
    devices: list[Device] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)  # reason, detail
    skipped: int = 0  # values the mapping's table leaves out on purpose

    @property
    def is_blank(self) -> bool:
        """Whether nothing in the message met any mapping."""
        return not (self.rows or self.refused or self.skipped)


class Translator:
    """Turns messages into rows; remembers which points it has named."""

    def __init__(
        self, mappings: Sequence[MappingConfig], *, adapter: str = "", points_max: int = 10_000
    ) -> None:
        self._adapter = adapter
        self._points_max = points_max
        self._rules = [_Rule(mapping) for mapping in mappings]
        self._points: dict[str, Point] = {}
        self._devices: dict[str, Device] = {}

    @property
    def subscriptions(self) -> list[str]:
        """The topic filters to subscribe to, without repeats."""
        return list(dict.fromkeys(rule.topic.subscription for rule in self._rules))

    def translate(self, message: Message) -> Translation:
        """Rows and new names of one message."""
        out = Translation()
        opened = 0
        for rule in self._rules:
            captures = rule.topic.match(message.topic)
            if captures is None:
                continue
            for found, element in rule.each.elements(message.body):
                opened += 1
                if opened > ELEMENTS_MAX:
                    return Translation(refused=[("too_many", f"over {ELEMENTS_MAX} elements")])
                held = captures | found if captures else found
                self._element(rule, _Seen(message, element, held), out)
        return out

    def _element(self, rule: _Rule, seen: _Seen, out: Translation) -> None:
        key = rule.key(seen)
        named = rule.named.get(key) if key is not None else None
        if named is None:
            spec = rule.spec(seen)
            if spec is None:
                out.skipped += 1
                return
            point = self._name(rule, spec, seen, out)
            if point is None:
                return
            named = (spec, point)
            if key is not None:
                rule.remember(key, named, self._points_max)
        spec, point = named
        value, quality = spec.read(seen.find(rule.value))
        time_ns, clock = rule.read_time(seen)
        out.rows.append(Row(point.id, value, max(quality, rule.read_quality(seen), clock), time_ns))

    def _name(self, rule: _Rule, spec: _Field, seen: _Seen, out: Translation) -> Point | None:
        """The point of one element, new in `out` if it is new; None if it is refused."""
        point_id, device_id = seen.text(rule.point), seen.text(rule.device)
        area, quantity = seen.text(rule.area), seen.text(spec.quantity)
        if point_id is None or device_id is None or area is None or quantity is None:
            out.refused.append(("no_identity", "a part of the name is missing or no short text"))
            return None
        known = self._points.get(point_id)
        if known is not None:
            if (known.device, known.area, known.quantity) == (device_id, area, quantity):
                return known
            was = f"{known.quantity} of {known.device} in {known.area!r}"
            detail = f"{point_id} is {was}, not {quantity} of {device_id} in {area!r}"
            out.refused.append(("identity_conflict", detail))
            return None
        if not is_valid_id(point_id) or not is_valid_id(device_id):
            out.refused.append(("bad_id", f"{point_id!r} of {device_id!r}"))
            return None
        if len(self._points) >= self._points_max:
            out.refused.append(("points_max", f"{point_id!r} is one point more than configured"))
            return None
        if device_id not in self._devices:
            self._devices[device_id] = Device(
                id=device_id,
                kind=rule.config.device_kind,
                name=seen.text(rule.device_name) or "",
                adapter=self._adapter,
            )
            out.devices.append(self._devices[device_id])
        point = spec.point(
            Point(
                id=point_id,
                device=device_id,
                adapter=self._adapter,
                area=area,
                quantity=quantity,
                name=seen.text(spec.name) or "",
                location=seen.text(rule.location) or "",
            )
        )
        self._points[point_id] = point
        out.points.append(point)
        return point


class _Seen(NamedTuple):
    """One element, and all that a template or a path may refer to."""

    message: Message
    element: Any
    captures: Mapping[str, str]

    def text(self, template: Template) -> str | None:
        return template.fill(self.captures, self.message.body, self.element)

    def find(self, source: Source) -> Any:
        return source.find(self.captures, self.message.body, self.element)


class _Field:
    """One value's meaning, ready to use."""

    def __init__(self, config: FieldConfig, mapping: MappingConfig) -> None:
        self._config = config
        self._scaled = config.scale != 1.0 or config.offset != 0.0
        self._reads_text = mapping.numbers == "text_allowed"
        self.quantity = Template.parse(config.quantity)
        self.name = Template.parse(config.name)

    def point(self, named: Point) -> Point:
        """The point as it is declared: its names, and what the configuration says of it."""
        config = self._config
        return replace(
            named,
            kind=config.kind,
            unit=config.unit,
            location_class=config.location_class,
            interval_s=config.interval_s,
            range_low=config.range_low,
            range_high=config.range_high,
            states=config.states,
        )

    def read(self, raw: Any) -> tuple[float, Quality]:
        """The value in the point's unit; NaN with a bad quality when there is none."""
        config = self._config
        if raw is None or raw is MISSING or raw == "":
            return math.nan, Quality.BAD_NO_VALUE
        number = self._number(raw)
        if number is None or math.isnan(number):
            return math.nan, Quality.BAD_NOT_A_NUMBER
        if number in config.no_value:
            return math.nan, Quality.BAD_NO_VALUE
        if self._scaled:
            number = number * config.scale + config.offset
        if math.isinf(number):
            return math.nan, Quality.BAD_OVER_RANGE
        if config.kind is PointKind.BITS and not (0 <= number <= _BITS_MAX and number % 1 == 0):
            return math.nan, Quality.BAD_OVER_RANGE
        return number, Quality.GOOD

    def _number(self, raw: Any) -> float | None:
        if isinstance(raw, bool):
            return float(raw) if self._config.kind is PointKind.DISCRETE else None
        if isinstance(raw, int | float):
            return float(raw)
        if self._reads_text and isinstance(raw, str) and len(raw) <= _NUMBER_TEXT_SIZE_MAX:
            try:
                return float(raw) if "_" not in raw else None  # Python reads 1_000, no device does
            except ValueError:
                return None
        return None


class _Rule:
    """One mapping, ready to use."""

    def __init__(self, config: MappingConfig) -> None:
        self.config = config
        self.topic = TopicFilter.parse(config.topic)
        self.each = Each.parse(config.each)
        self.point = Template.parse(config.point)
        self.device = Template.parse(config.device)
        self.device_name = Template.parse(config.device_name)
        self.area = Template.parse(config.area)
        self.location = Template.parse(config.location)
        self.value = Source.parse(config.value)
        self.field = Template.parse(config.field)
        self.own = _Field(config, config)
        inherited = {name: getattr(config, name) for name in FieldConfig.model_fields}
        self.fields = {
            key: _Field(
                FieldConfig(**{**inherited, **{n: getattr(f, n) for n in f.model_fields_set}}),
                config,
            )
            for key, f in config.fields.items()
        }
        texts = (
            *(self.point, self.device, self.area, self.field),
            *(spec.quantity for spec in (self.own, *self.fields.values())),
        )
        self._key_names = tuple(sorted({name for text in texts for name in text.names}))
        self._key_paths = tuple(dict.fromkeys(path for text in texts for path in text.paths))
        self.named: dict[tuple[str | int, ...], tuple[_Field, Point]] = {}
        self._time = time = Source.parse(config.time)
        self._time_is_shared = time.is_received or (time.path is not None and time.path.from_root)
        self._time_read: tuple[Message, tuple[int, Quality]] | None = None  # of the newest message
        self._times = TimeReader(config.time_format, config.time_zone)
        self._quality = None if config.quality is None else Source.parse(config.quality)
        self._qualities = {k: QUALITY_BY_WORD[word] for k, word in config.quality_map.items()}
        self._quality_unknown = QUALITY_BY_WORD[config.quality_unknown]

    def key(self, seen: _Seen) -> tuple[str | int, ...] | None:
        """All that decides an element's name and meaning, in short; None if it cannot be kept."""
        if not self._key_paths:
            return tuple(map(seen.captures.__getitem__, self._key_names))
        found = [path.find(seen.message.body, seen.element) for path in self._key_paths]
        if any(type(part) not in (str, int) for part in found):
            return None
        return (*(seen.captures[name] for name in self._key_names), *found)

    def remember(
        self, key: tuple[str | int, ...], named: tuple[_Field, Point], size_max: int
    ) -> None:
        """Keep what `key` means, so that the next element like it costs one look-up."""
        if len(self.named) >= size_max:
            self.named.clear()  # more keys than points: a message names one point in many ways
        self.named[key] = named

    def spec(self, seen: _Seen) -> _Field | None:
        """What the element is; None for one the table leaves out on purpose."""
        found = self.fields.get(seen.text(self.field) or "") if self.fields else self.own
        skip = self.config.unknown_fields == "skip"
        return None if found is None and skip else found or self.own

    def read_quality(self, seen: _Seen) -> Quality:
        """What the device says of its value; a message without the word says nothing."""
        if self._quality is None:
            return Quality.GOOD
        raw = seen.find(self._quality)
        if raw is MISSING:
            return Quality.GOOD
        if raw is AMBIGUOUS or isinstance(raw, dict | list):
            return self._quality_unknown
        word = str(raw).lower() if isinstance(raw, bool) else str(raw)
        return self._qualities.get(word, self._quality_unknown)

    def read_time(self, seen: _Seen) -> tuple[int, Quality]:
        """The device's time, or the time of receipt and what is wrong with that. One for all the
        elements of a message where it is the message's."""
        if not self._time_is_shared:
            return self._read_time(seen)
        if self._time_read is None or self._time_read[0] is not seen.message:
            self._time_read = (seen.message, self._read_time(seen))
        return self._time_read[1]

    def _read_time(self, seen: _Seen) -> tuple[int, Quality]:
        message = seen.message
        if self._time.is_received:
            stale = Quality.BAD_STALE if message.retained else Quality.GOOD
            return message.received_time_ns, stale
        time_ns = self._times.read(seen.find(self._time))
        if time_ns is None:
            clock = Quality.BAD_STALE if message.retained else Quality.UNCERTAIN_CLOCK
            return message.received_time_ns, clock
        return time_ns, Quality.GOOD
