"""The embedded history store: nothing to install, one process, one file (decision 0004)."""

from __future__ import annotations

from gateway.contract.history import Scan
from gateway.contract.sink import SampleSink, SinkContext, SinkKind
from gateway.sinks.duckdb.config import DuckdbConfig


def _build(config: DuckdbConfig, context: SinkContext) -> SampleSink:
    from gateway.sinks.duckdb.sink import DuckdbSink  # noqa: PLC0415 - loads the engine

    return DuckdbSink(config, context)


def _scan(config: DuckdbConfig, context: SinkContext) -> Scan:
    from gateway.sinks.duckdb.scan import DuckdbScan  # noqa: PLC0415 - loads the engine

    return DuckdbScan.open(config, context)


KIND = SinkKind(
    name="duckdb",
    summary="embedded history store (DuckDB): every sample once, read back in milliseconds",
    config=DuckdbConfig,
    build_samples=_build,
    open_scan=_scan,
)
