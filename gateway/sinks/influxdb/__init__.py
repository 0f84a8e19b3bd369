"""The store a site normally already has: InfluxDB 1.x, 2.x, 3.x and what speaks like them
(decision 0005)."""

from __future__ import annotations

from gateway.contract.sink import SampleSink, SinkContext, SinkKind
from gateway.sinks.influxdb.config import InfluxdbConfig


def _build(config: InfluxdbConfig, context: SinkContext) -> SampleSink:
    from gateway.sinks.influxdb.sink import InfluxdbSink  # noqa: PLC0415 - loads the client

    return InfluxdbSink(config, context)


KIND = SinkKind(
    name="influxdb",
    summary="InfluxDB 1.x, 2.x and 3.x (line protocol; read back by InfluxQL)",
    config=InfluxdbConfig,
    build_samples=_build,
)
