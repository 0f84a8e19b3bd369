"""How many files and sockets this process may have open: as many as the system lets it.

The usual soft limit of 1024 is for programs that use select(2), which this one does not; a fleet of
ten thousand terminals needs ten thousand descriptors. The hard limit is the administrator's and is
left alone (`LimitNOFILE=` of the unit). What happens at the limit is each listener's own answer.
"""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)


def raise_descriptor_limit() -> int:
    """Lift the soft limit to the hard one; the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # a sandbox may forbid it; the old limit serves fewer
        log.warning("at most %d open files: %s", soft, error)
        return soft
    return hard
