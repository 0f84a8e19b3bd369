"""Time grows with what comes in, not with its square. Asked in the long form only (`make fuzz`),
because it is asked of a clock; what was once quadratic has a test that counts beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable

import pytest

from adapters.jt808.codec import (
    Frame,
    FrameReader,
    Package,
    PackageLimits,
    Reassembler,
    encode_frame,
    header_for,
)
from adapters.mine_files.codec import FileName, decode_file
from adapters.mqtt_json import codec
from adapters.mqtt_json.paths import Each
from gateway.api.link import FrameDecoder
from gateway.config.point_table import _states
from gateway.model.errors import RemoteProtocolError
from gateway.testing.fuzz import growth

RATIO_MAX = 9.0  # of four times the input: 4 is linear, 16 is the square
NAME = FileName("123456789012", "CDSS", "20260731235959", "x")


def refused(work: Callable[[], object]) -> None:
    with contextlib.suppress(RemoteProtocolError):
        work()


def dripped(count: int) -> None:
    reader = FrameReader()
    for _ in range(count):
        reader.feed(b"\x7d")


def sub_packages(count: int) -> None:
    joiner = Reassembler(PackageLimits(parts_max=65_535))
    for number in range(1, count):
        header = header_for(0x0704, "1", 0)._replace(package=Package(65_535, number))
        (frame,) = FrameReader().feed(encode_frame(header, b""))
        assert isinstance(frame, Frame)
        joiner.add(frame, 0)


def linked(count: int) -> None:
    decoder = FrameDecoder()
    decoder.feed(b"\x00\xff\xff\xff")
    for _ in range(count):
        decoder.feed(b"x")


WORKS: dict[str, tuple[Callable[[int], object], int]] = {
    "jt808 flags": (lambda n: FrameReader().feed(b"\x7e" * n), 100_000),
    "jt808 escapes": (lambda n: FrameReader().feed(b"\x7e" + b"\x7d\x01" * n + b"\x7e"), 50_000),
    "jt808 frames without checksum": (lambda n: FrameReader().feed(b"\x7e\x00" * n), 30_000),
    "jt808 byte by byte": (dripped, 20_000),
    "jt808 sub-packages of no rule": (sub_packages, 700),
    "mine file of field marks": (
        lambda n: refused(lambda: decode_file(b";" * n + b"~||", NAME)),
        200_000,
    ),
    "mine file of quotes and blanks": (
        lambda n: refused(lambda: decode_file(b'"' + b" " * n + b'x"', NAME)),
        500_000,
    ),
    "json brackets": (lambda n: refused(lambda: codec.decode(b"[" * n)), 100_000),
    "json digits": (lambda n: refused(lambda: codec.decode(b"9" * n)), 100_000),
    "json keys twice": (
        lambda n: codec.decode(b'{"a":1,' * 1 + b'"a":[1,2,3],' * n + b'"b":1}'),
        10_000,
    ),
    "json escapes": (lambda n: refused(lambda: codec.decode(b'"' + b"\\ud800" * n)), 20_000),
    "mapping of hostile keys": (
        lambda n: list(
            Each.parse("$.{a}_{b}_{c}!").elements({f"{i}{'_' * 200}": i for i in range(n)})
        ),
        1_000,
    ),
    "mapping of many elements": (
        lambda n: list(Each.parse("$.{a}.{b}").elements({str(i): {"x": 1} for i in range(n)})),
        5_000,
    ),
    "link byte by byte": (linked, 50_000),
    "states of blanks": (lambda n: _states("1=" + " " * n + "x" + " " * n + "y", ""), 20_000),
    "json of one level": (lambda n: codec.decode(json.dumps(list(range(n))).encode()), 20_000),
}


@pytest.mark.slow
@pytest.mark.skipif("FUZZ_LONG" not in os.environ, reason="asks a clock: make fuzz")
@pytest.mark.parametrize("name", WORKS)
def test_four_times_the_input_takes_about_four_times_as_long(name: str) -> None:
    work, size = WORKS[name]
    ratio = growth(work, size)
    print(f"{name}: {size} x 4 takes {ratio:.1f} times as long")
    assert ratio <= RATIO_MAX
