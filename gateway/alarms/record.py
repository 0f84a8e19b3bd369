"""Alarm events and rows as stored bytes: JSON with a version, keys sorted, defaults left out.

    {"alarm":{"alarm_key":…, "priority":1, …, "v":1}, "time_ns":…, "transition":"ACT", …, "v":1}

The same value always gives the same bytes: the journal's hash chain and "replay gives the same
table byte for byte" stand on that. A field left out has its default, so a record written before a
field was added reads as it was meant, and is written again as the same bytes. A program older than
a field refuses a record that has it, rather than losing what it says.

Surprising: orjson writes NaN and the infinities as null. They are stored as the strings "NaN",
"Infinity" and "-Infinity", because null already means "there is none".

Every field is named in a table below and a test compares the tables with the dataclasses: a field
added to the model without a thought for what is on disk does not pass.

Not here: where the bytes go (journal.py), the wire format for others (sinks, api).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from gateway.model.alarm import Alarm, AlarmEvent, AlarmState, Transition
from gateway.model.rule import Citation, Confidence, Priority

VERSION = 1
"""Grows when a field changes its meaning so that an old record would be misread."""


class RecordError(ValueError):
    """The bytes are not a record this version can read."""


class _Field(NamedTuple):
    """How one field is written and read back, and what it is when left out."""

    name: str
    default: Any
    dump: Callable[[Any], Any] | None  # None: JSON takes it as it is, tuples and enums too
    load: Callable[[Any], Any]


class _Writer(NamedTuple):
    """The same fields, laid out for writing: a flood writes ten thousand rows in a second."""

    values: Callable[[Any], tuple[Any, ...]]
    names: tuple[str, ...]
    defaults: tuple[Any, ...]
    dumps: tuple[tuple[str, Callable[[Any], Any]], ...]  # of those JSON does not take as they are


def encode(event: AlarmEvent) -> tuple[bytes, bytes]:
    """The event's record and its alarm's: the second is part of the first, and encoded once."""
    alarm = encode_alarm(event.alarm)
    body = _dump(event, _EVENT_WRITER)
    body["alarm"] = orjson.Fragment(alarm)
    return _bytes(body), alarm


def encode_event(event: AlarmEvent) -> bytes:
    return encode(event)[0]


def decode_event(data: bytes) -> AlarmEvent:
    """Raises: RecordError for anything this or an earlier version did not write."""
    return AlarmEvent(**_load(_parse(data), _EVENT_FIELDS))


def encode_alarm(alarm: Alarm) -> bytes:
    return _bytes(_dump(alarm, _ALARM_WRITER))


def decode_alarm(data: bytes) -> Alarm:
    """Raises: RecordError, as `decode_event`."""
    return Alarm(**_load(_parse(data), _ALARM_FIELDS))


def _bytes(body: dict[str, Any]) -> bytes:
    body["v"] = VERSION
    try:
        return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # Text with lone surrogates, from a device or a form: an alarm is recorded with question
        # marks in its name rather than not at all.
        return orjson.dumps(_printable(body), option=orjson.OPT_SORT_KEYS)


def _printable(body: Any) -> Any:
    if isinstance(body, str):
        return body.encode("utf-8", "replace").decode("utf-8")
    if isinstance(body, dict):
        return {_printable(key): _printable(item) for key, item in body.items()}
    if isinstance(body, list | tuple):
        return [_printable(item) for item in body]
    return body


def _parse(data: bytes) -> dict[str, Any]:
    try:
        return _versioned(orjson.loads(data))
    except orjson.JSONDecodeError as error:
        raise RecordError(f"not JSON: {error}") from error


def _versioned(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise RecordError("not an object")
    version = body.pop("v", None)
    if type(version) is not int or not 1 <= version <= VERSION:
        raise RecordError(f"version {version!r}, this program reads 1 to {VERSION}")
    return body


def _dump(value: Any, writer: _Writer) -> dict[str, Any]:
    """What differs from its default; for most fields that is settled by identity."""
    body = {
        name: item
        for name, item, default in zip(
            writer.names, writer.values(value), writer.defaults, strict=True
        )
        if item is not default and item != default
    }
    for name, dump in writer.dumps:
        item = body.get(name)
        if item is not None:
            body[name] = dump(item)
    return body


def _writer(schema: Mapping[str, _Field]) -> _Writer:
    return _Writer(
        attrgetter(*schema),
        tuple(schema),
        tuple(field.default for field in schema.values()),
        tuple((field.name, field.dump) for field in schema.values() if field.dump is not None),
    )


def _load(body: Any, schema: Mapping[str, _Field]) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise RecordError("not an object")
    found = {}
    for name, item in body.items():
        field = schema.get(name)
        if field is None:
            raise RecordError(f"unknown field {name!r}")
        try:
            found[name] = None if item is None and field.default is None else field.load(item)
        except (ValueError, TypeError, KeyError) as error:
            raise RecordError(f"field {name!r}: {item!r}") from error
    missing = [f.name for f in schema.values() if f.default is MISSING and f.name not in found]
    if missing:
        raise RecordError(f"lacks {', '.join(missing)}")
    return found


def _exactly(kind: type) -> Callable[[Any], Any]:
    def load(item: Any) -> Any:
        if type(item) is not kind:  # a bool is not a number here
            raise TypeError(item)
        return item

    return load


def _dump_float(item: float) -> float | str:
    if math.isfinite(item):
        return item
    return "NaN" if math.isnan(item) else "Infinity" if item > 0 else "-Infinity"


def _load_float(item: Any) -> float:
    if isinstance(item, str) and item not in ("NaN", "Infinity", "-Infinity"):
        raise ValueError(item)
    if isinstance(item, bool):
        raise TypeError(item)
    return float(item)


def _load_texts(item: Any) -> dict[str, str]:
    return {_text(key): _text(text) for key, text in _exactly(dict)(item).items()}


def _load_times(item: Any) -> tuple[int, ...]:
    return tuple(_whole(time_ns) for time_ns in _exactly(list)(item))


def _load_words(item: Any) -> tuple[str, ...]:
    return tuple(_text(word) for word in _exactly(list)(item))


_text = _exactly(str)
_whole = _exactly(int)
_flag = _exactly(bool)


def _schema(kind: type, codecs: Mapping[str, _Codec]) -> dict[str, _Field]:
    defaults = {
        f.name: f.default_factory() if f.default_factory is not MISSING else f.default
        for f in fields(kind)
    }
    return {name: _Field(name, defaults[name], dump, load) for name, (dump, load) in codecs.items()}


_Codec = tuple[Callable[[Any], Any] | None, Callable[[Any], Any]]
_TEXT: _Codec = (None, _text)
_WHOLE: _Codec = (None, _whole)
_FLAG: _Codec = (None, _flag)
_FLOAT: _Codec = (_dump_float, _load_float)
_TEXTS: _Codec = (dict, _load_texts)
_WORDS: _Codec = (None, _load_words)
_TIMES: _Codec = (None, _load_times)
_PRIORITY: _Codec = (None, Priority)
_STATE: _Codec = (None, AlarmState)

_CITATION_CODECS: Mapping[str, _Codec] = {
    "standard": _TEXT,
    "edition": _TEXT,
    "clause": _TEXT,
    "confidence": (str, Confidence),
    "note": _TEXT,
}
_CITATION_FIELDS = _schema(Citation, _CITATION_CODECS)
_CITATION_WRITER = _writer(_CITATION_FIELDS)


@lru_cache(maxsize=1024)
def _dump_citation(item: Citation) -> dict[str, Any]:
    return _dump(item, _CITATION_WRITER)


_ALARM_CODECS: Mapping[str, _Codec] = {
    "alarm_key": _TEXT,
    "rule_id": _TEXT,
    "rule_kind": _TEXT,
    "target": _TEXT,
    "point_id": _TEXT,
    "priority": _PRIORITY,
    "active": _FLAG,
    "acknowledged": _FLAG,
    "latched": _FLAG,
    "shelved": _TEXT,
    "suppressed_by": _WORDS,
    "out_of_service": _FLAG,
    "enabled": _FLAG,
    "open": _FLAG,
    "shown": _FLAG,
    "state": _STATE,
    "level": _TEXT,
    "scheme": _TEXT,
    "scheme_level": _TEXT,
    "value": _FLOAT,
    "peak": _FLOAT,
    "limit": _FLOAT,
    "unit": _TEXT,
    "quality": _WHOLE,
    "name": _TEXTS,
    "action": _TEXTS,
    "location": _TEXT,
    "area": _TEXT,
    "display_name": _TEXT,
    "citation": (
        _dump_citation,
        lambda item: Citation(**_load(item, _CITATION_FIELDS)),
    ),
    "rule_version": _TEXT,
    "occ_no": _WHOLE,
    "seq": _WHOLE,
    "epoch": _WHOLE,
    "gseq": _WHOLE,
    "condition_time_ns": _WHOLE,
    "active_time_ns": _WHOLE,
    "return_time_ns": _WHOLE,
    "acknowledged_time_ns": _WHOLE,
    "acknowledged_by": _TEXT,
    "comment": _TEXT,
    "shelved_until_ns": _WHOLE,
    "reactivation_count": _WHOLE,
    "planned": _FLAG,
    "top_priority": _PRIORITY,
    "attention_seq": _WHOLE,
    "unacknowledged_from": _WHOLE,
    "hidden_note": _TEXT,
    "judged_time_ns": _WHOLE,
    "judged": _WORDS,
    "initial_value": _FLOAT,
    "level_time_ns": _WHOLE,
    "first_out": _WORDS,
    "confirmed_by": _TEXT,
    "confirmed_time_ns": _WHOLE,
    "attention_time_ns": _WHOLE,
    "overdue_step": _WHOLE,
    "realarm_count": _WHOLE,
    "shelvings": _TIMES,
    "removed": _FLAG,
    "rule_digest": _TEXT,
}
_ALARM_FIELDS = _schema(Alarm, _ALARM_CODECS)
_ALARM_WRITER = _writer(_ALARM_FIELDS)

_EVENT_CODECS: Mapping[str, _Codec] = {
    "transition": (None, Transition),
    "alarm": (
        None,  # a fragment, see encode
        lambda item: Alarm(**_load(_versioned(item), _ALARM_FIELDS)),
    ),
    "time_ns": _WHOLE,
    "recorded_time_ns": _WHOLE,
    "from_state": _STATE,
    "annunciate": _FLAG,
    "value": _FLOAT,
    "limit": _FLOAT,
    "actor": _TEXT,
    "comment": _TEXT,
    "late": _FLAG,
    "level": _TEXT,
    "step": _WHOLE,
    "recipients": _WORDS,
}
_EVENT_FIELDS = _schema(AlarmEvent, _EVENT_CODECS)
_EVENT_WRITER = _writer({name: field for name, field in _EVENT_FIELDS.items() if name != "alarm"})
