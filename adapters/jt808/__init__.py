"""JT/T 808 vehicle terminals (editions 2011, 2013, 2019): a TCP server for their positions.

Owns the one name the entry point wants. Everything heavy is imported when it is used.
"""

from __future__ import annotations

from gateway.contract.adapter import Adapter, AdapterContext, AdapterKind, FrameDecoder

from .config import Jt808Config


def _build(config: Jt808Config, context: AdapterContext) -> Adapter:
    from .client import Jt808Server  # noqa: PLC0415  (lazy: listing plugins opens no sockets)

    return Jt808Server(config, context)


def _decoder() -> FrameDecoder:
    from .decoder import Jt808Decoder  # noqa: PLC0415

    return Jt808Decoder()


KIND = AdapterKind(
    name="jt808",
    summary="JT/T 808 vehicle terminals over TCP (2011, 2013, 2019)",
    config=Jt808Config,
    build=_build,
    decoder=_decoder,
    decodes="hex",
    examples=(  # an invented vehicle: a position with eight items, a heartbeat
        (
            "7E02000045013800001234007D0200000003000C000301C3194F0659D7C200F5025D010F2607312359590104001"
            "2D687020201C5030202561105010000004D1206010000004D0025040000000030011F31010E857E"
        ),
        "7E0002000001380000123400071A7E",
    ),
    capabilities=("server", "positions", "backfill", "declares"),
)
