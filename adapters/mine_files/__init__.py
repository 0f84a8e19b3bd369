"""Coal-mine hand-over files (安全监控、人员定位): a watched folder of them."""

from __future__ import annotations

from typing import Any

from adapters.mine_files.config import MineFilesConfig
from gateway.contract.adapter import Adapter, AdapterContext, AdapterKind, FrameDecoder


def _build(config: Any, context: AdapterContext) -> Adapter:
    from adapters.mine_files.client import MineFilesAdapter  # noqa: PLC0415  listing loads no client

    return MineFilesAdapter(config, context)


def _decoder() -> FrameDecoder:
    from adapters.mine_files.decode import MineFileDecoder  # noqa: PLC0415

    return MineFileDecoder()


KIND = AdapterKind(
    name="mine_files",
    summary="coal-mine data files: gas monitoring and personnel positioning (MT/T 1201)",
    config=MineFilesConfig,
    build=_build,
    decoder=_decoder,
    decodes="text",
    capabilities=("declares_points", "declares_devices", "decodes"),
)
