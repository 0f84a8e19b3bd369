"""The durable log between the ways in and everything that consumes: acknowledged means here.

    spool.py      Spool, Cursor, Chunk: what the runtime holds
    registry.py   Registry: the durable point table that gives `point_index` its meaning
    bench.py      measure(): figures beside the machine's own limit
    cursor.py · writer.py · record.py · segment.py · salvage.py · positions.py · catalog.py ·
    tail.py · fault.py · thinning.py · recovery.py · quarantine.py
                  one concern each, private to this package

Not here: alarm events (gateway.alarms.journal keeps those for good), retries of a sink, what to do
when the spool is full (the caller's policy).
"""

from gateway.spool.spool import (
    Chunk,
    Cursor,
    PointTraits,
    Spool,
    SpoolOptions,
    SpoolStats,
    Thinned,
)
from gateway.spool.thinning import Window

__all__ = [
    "Chunk",
    "Cursor",
    "PointTraits",
    "Spool",
    "SpoolOptions",
    "SpoolStats",
    "Thinned",
    "Window",
]
