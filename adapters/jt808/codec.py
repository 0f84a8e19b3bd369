"""JT/T 808 on the wire: bytes ↔ frames ↔ messages, editions 2011, 2013 and 2019. Sans-IO.

    bytes -> FrameReader -> Frame(header, body) -> decode_message -> Message
                                        `-- sub-packages -> Reassembler --'

The parts are in wire/, split for their size; this module is their door. Simulators use what is
exported here and nothing else of the adapter.
"""

from __future__ import annotations

from gateway.model.errors import LocalProtocolError, RemoteProtocolError

from .wire import items
from .wire.fields import GMT8_S, decode_text, encode_text, phone_bcd, phone_key, time_bcd, time_ns
from .wire.frames import (
    BODY_MAX,
    BUFFER_MAX,
    EDITION_2011,
    EDITION_2013,
    EDITION_2019,
    Damage,
    Frame,
    FrameReader,
    Header,
    Package,
    checksum,
    encode_frame,
    encode_packages,
    escape,
    header_for,
    parse_content,
    parse_segment,
    unescape,
)
from .wire.items import Item, ItemValues, item_values, make_item
from .wire.messages import (
    BULK_BLIND_ZONE,
    BULK_NORMAL,
    RESULT_BAD_MESSAGE,
    RESULT_FAILED,
    RESULT_OK,
    RESULT_UNSUPPORTED,
    STATUS_ACC,
    STATUS_ENCRYPTED,
    STATUS_FIX,
    STATUS_SOUTH,
    STATUS_WEST,
    Authentication,
    BulkLocation,
    Heartbeat,
    Location,
    LogOut,
    Message,
    PlatformReply,
    RawMessage,
    Registration,
    RegistrationReply,
    ResendRequest,
    TerminalReply,
    TerminalResendRequest,
    TimeReply,
    TimeRequest,
    decode_message,
)
from .wire.subpackages import PackageBudget, PackageLimits, Reassembler, Whole


def encode_message(message: Message, phone: str, serial: int, edition: int) -> bytes:
    """`message` as one frame of `edition` (2011, 2013 or 2019).

    Raises LocalProtocolError when it does not fit one.
    """
    header = header_for(message.message_id, phone, serial, edition)
    return encode_frame(header, message.encode(edition))


__all__ = [
    "BODY_MAX",
    "BUFFER_MAX",
    "BULK_BLIND_ZONE",
    "BULK_NORMAL",
    "EDITION_2011",
    "EDITION_2013",
    "EDITION_2019",
    "GMT8_S",
    "RESULT_BAD_MESSAGE",
    "RESULT_FAILED",
    "RESULT_OK",
    "RESULT_UNSUPPORTED",
    "STATUS_ACC",
    "STATUS_ENCRYPTED",
    "STATUS_FIX",
    "STATUS_SOUTH",
    "STATUS_WEST",
    "Authentication",
    "BulkLocation",
    "Damage",
    "Frame",
    "FrameReader",
    "Header",
    "Heartbeat",
    "Item",
    "ItemValues",
    "LocalProtocolError",
    "Location",
    "LogOut",
    "Message",
    "Package",
    "PackageBudget",
    "PackageLimits",
    "PlatformReply",
    "RawMessage",
    "Reassembler",
    "Registration",
    "RegistrationReply",
    "RemoteProtocolError",
    "ResendRequest",
    "TerminalReply",
    "TerminalResendRequest",
    "TimeReply",
    "TimeRequest",
    "Whole",
    "checksum",
    "decode_message",
    "decode_text",
    "encode_frame",
    "encode_message",
    "encode_packages",
    "encode_text",
    "escape",
    "header_for",
    "item_values",
    "items",
    "make_item",
    "parse_content",
    "parse_segment",
    "phone_bcd",
    "phone_key",
    "time_bcd",
    "time_ns",
    "unescape",
]
