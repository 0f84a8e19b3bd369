"""How often Python looks for garbage that only a cycle keeps alive.

Nearly everything here is freed by counting, at once. What the collector costs is looking: at its
usual threshold of 700 new objects a flood of 10,000 alarms has it walk the book, the rules and the
events themselves again and again, in the middle of the alarm path. Looking too seldom is no better:
one look at 50,000 new objects holds everything for 30 to 60 ms, and while terminals come back by
the thousand all objects are new (`make storm`: the p99 of those that were connected). So a look is
short, and what the start has made is not looked at again: it lives as long as the process.

Young garbage is bounded by the threshold: 10,000 small objects are some two megabytes at worst.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

YOUNG_OBJECTS_MAX = 10_000  # 6 ms, measured
_OLDER = (2, 200)  # young collections before an older generation is looked at; engineering


def prepare_collector() -> None:
    """Once in a process that runs a gateway."""
    gc.set_threshold(YOUNG_OBJECTS_MAX, *_OLDER)


def settle_collector() -> None:
    """Once the gateway runs."""
    gc.freeze()


@contextlib.contextmanager
def prepared_collector() -> Iterator[None]:
    """The same for a measurement: as it was afterwards."""
    before = gc.get_threshold()
    prepare_collector()
    try:
        yield
    finally:
        gc.set_threshold(*before)
