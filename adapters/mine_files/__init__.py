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
    examples=(  # an invented mine
        (
            "999901000123_CDSS_20260115080000.txt\n"
            "999901000123;示例煤矿;2026-01-15 08:00:00~"
            "99990100012301MN0001001A01;环境瓦斯;3101工作面T1;0.32;%CH4;0;2026-01-15 07:59:50~"
            "99990100012301MN0004001A02;一氧化碳;3101回风巷;36;ppm;1;2026-01-15 07:59:50~||"
        ),
    ),
    capabilities=("declares_points", "declares_devices", "decodes"),
)
