"""What a mine's file says, in the gateway's words: devices, points and rows of samples. Pure.

    FileMessage ─plan─▶ Plan      what to declare, what to emit, what was wrong, what to remember
    Plan ─to_batches─▶ Batch…     with the indices the house gave
    View ◀─apply─ Plan            only after everything was emitted

A kind's mapper is one entry of the table below. Newest is newest by header time, never by arrival:
an older list declares nothing, an older snapshot is history.

Owns: which mapper, old or new. Not here: the mappers (safety.py, personnel.py), syntax (codec.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from adapters.mine_files import personnel, safety
from adapters.mine_files.codec import FileMessage
from adapters.mine_files.kinds import Role
from adapters.mine_files.plan import (
    LocationClass,
    Options,
    Plan,
    Rows,
    View,
    Work,
    apply,
    to_batches,
)
from gateway.model.errors import RemoteProtocolError

__all__ = [
    "LocationClass",
    "Options",
    "Plan",
    "Rows",
    "View",
    "apply",
    "bad_share_fault",
    "plan",
    "to_batches",
]

_MAPPERS: Mapping[str, Callable[[Work], None]] = {
    "CDDY": safety.map_points,
    "CDSS": safety.map_values,
    "FZSS": safety.map_substations,
    "JZSS": safety.map_stations_state,
    "RYQY": personnel.map_areas,
    "RYJZ": personnel.map_stations,
    "RYXX": personnel.map_people,
    "RYSS": personnel.map_snapshot,
}


def plan(message: FileMessage, view: View, options: Options) -> Plan:
    """What to declare and emit for one file.

    Raises:
        RemoteProtocolError: `kind` for a kind without a mapper.
    """
    mapper = _MAPPERS.get(message.kind.name)
    if mapper is None:
        raise RemoteProtocolError("kind", f"{message.kind.name} is decoded, not mapped")
    result = Plan(faults=list(message.faults))
    for reason, count in message.warnings.items():
        result.counts["records_warned", reason] += count
    if message.fault_count:
        result.counts["records_rejected", "layout"] += message.fault_count
    work = Work(message, view, options, result)
    newest_ns = view.newest_ns.get(work.newest_key)
    if newest_ns is None or message.time_ns > newest_ns:
        result.newest = (work.newest_key, message.time_ns)
    elif message.time_ns < newest_ns:
        work.is_old = True
    if work.is_old and message.kind.role is Role.DECLARATION:
        result.counts["dropped", "old_list"] += 1  # a newer list holds; there is no history of it
        return result
    work.declare_mine()
    mapper(work)
    return result


def bad_share_fault(message: FileMessage, share_max: float) -> str:
    """What is wrong with the file as a whole, "" when it may be taken."""
    if message.bad_share > share_max:
        total = len(message.records) + message.fault_count
        return f"{message.fault_count} of {total} records are bad, more than {share_max:.0%}"
    return ""
