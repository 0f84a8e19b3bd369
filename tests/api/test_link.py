"""The link's framing: whole, byte by byte, cut anywhere, with neighbours, oversize, garbage."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import link
from gateway.api.link import Frame, FrameDecoder, FrameKind
from gateway.model.errors import LocalProtocolError, RemoteProtocolError

FRAMES = [
    # size u32 = 6 + name + body | kind | id u32 | name size | name | body
    ("00000008" + "05" + "00000000" + "00" + "7b7d", Frame(FrameKind.PUSH, 0, "", b"{}")),
    (
        "0000000e" + "02" + "00000007" + "06" + "706f696e7473" + "7b7d",
        Frame(FrameKind.REQUEST, 7, "points", b"{}"),
    ),
    (
        "00000006" + "03" + "ffffffff" + "00",
        Frame(FrameKind.RESPONSE, 0xFFFFFFFF, "", b""),
    ),
]
NEIGHBOUR = Frame(FrameKind.PUSH, 0, "values", b'{"value":[1.5,null]}')

a_frame = st.builds(
    Frame,
    st.sampled_from(list(FrameKind)),
    st.integers(0, 2**32 - 1),
    st.text(alphabet="abcdefghijklmnopqrstuvwxyz_", max_size=20),
    st.binary(max_size=200),
)


def check_decoder(stream: bytes, expected: list[Frame]) -> None:
    """Drive the decoder whole, byte by byte, and with a neighbour behind."""
    assert FrameDecoder().feed(stream) == expected
    decoder = FrameDecoder()
    dripped = [f for i in range(len(stream)) for f in decoder.feed(stream[i : i + 1])]
    assert dripped == expected
    assert FrameDecoder().feed(stream + link.encode(NEIGHBOUR)) == [*expected, NEIGHBOUR]


@pytest.mark.parametrize(("octets", "frame"), FRAMES)
def test_frames_have_these_bytes_and_these_bytes_are_those_frames(octets: str, frame: Frame):
    assert link.encode(frame).hex() == octets
    check_decoder(bytes.fromhex(octets), [frame])


@given(st.lists(a_frame, max_size=5), st.data())
def test_a_stream_cut_anywhere_gives_the_same_frames(frames: list[Frame], data: st.DataObject):
    stream = b"".join(map(link.encode, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder = FrameDecoder()
    got = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += decoder.feed(stream[begin:end])
    assert got == frames


DAMAGED = [
    ("ffffffff", "size"),  # a length no frame may have is refused before anything is kept
    (struct.pack(">I", link.FRAME_SIZE_MAX + 1).hex(), "size"),
    ("00000005" + "0500000000", "size"),  # shorter than a head
    ("00000006" + "09" + "00000000" + "00", "kind"),
    ("00000006" + "00" + "00000000" + "00", "kind"),
    ("00000006" + "05" + "00000000" + "01", "name"),  # name past the end
    ("00000008" + "05" + "00000000" + "02" + "c3a9", "name"),  # not ASCII
    (b"GET / HTTP/1.1\r\n".hex(), "size"),  # a browser at the wrong door
]


@pytest.mark.parametrize(("octets", "code"), DAMAGED)
def test_damage_ends_the_stream_with_a_reason(octets: str, code: str):
    with pytest.raises(RemoteProtocolError) as fault:
        FrameDecoder().feed(bytes.fromhex(octets))
    assert fault.value.code == code


@given(st.binary(max_size=100))
def test_garbage_gives_frames_or_a_protocol_error_and_nothing_else(noise: bytes):
    decoder = FrameDecoder()
    try:
        for frame in decoder.feed(noise):
            assert isinstance(frame.kind, FrameKind)
    except RemoteProtocolError:
        pass


def test_a_frame_larger_than_the_other_side_takes_is_not_sent():
    body = bytes(link.FRAME_SIZE_MAX)
    with pytest.raises(LocalProtocolError):
        link.encode(Frame(FrameKind.PUSH, 0, "values", body))
    largest = Frame(FrameKind.PUSH, 0, "", bytes(link.FRAME_SIZE_MAX - 6))
    assert FrameDecoder().feed(link.encode(largest)) == [largest]


HELLOS = [
    (Frame(FrameKind.HELLO, 0, "", b'{"protocol":2}'), "version"),
    (Frame(FrameKind.HELLO, 0, "", b"{}"), "version"),
    (Frame(FrameKind.HELLO, 0, "", b"[]"), "json"),
    (Frame(FrameKind.HELLO, 0, "", b"{"), "json"),
    (Frame(FrameKind.PUSH, 0, "values", b"{}"), "hello"),
]


@pytest.mark.parametrize(("frame", "code"), HELLOS)
def test_only_the_same_protocol_number_is_a_hello(frame: Frame, code: str):
    with pytest.raises(RemoteProtocolError) as fault:
        link.check_hello(frame)
    assert fault.value.code == code


def test_our_own_hello_passes_and_names_the_software():
    assert link.check_hello(link.hello("console 0.1.0")) == "console 0.1.0"
