"""Has the journal sign anchors: at the start, every minute in which something came, at the stop.

A task of its own, so that neither a slow disk nor a missing key ever holds up an alarm: while no
anchor can be signed the status says so, events are stored as before, and the next anchor vouches
for them too.

`INTERVAL_S` is below a minute, so that no event waits a minute for its anchor.

Not here: what an anchor says (gateway/alarms/anchors.py), where it goes: whoever sends heartbeats
takes `Journal.newest_anchor` along.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.alarms.journal import Journal
from gateway.contract.adapter import Counters, LinkStatus
from gateway.model.errors import StorageFault
from gateway.runtime.clock import NowNs
from gateway.runtime.threads import to_the_end

log = logging.getLogger(__name__)

INTERVAL_S = 50.0
"""IEC 62443-4-2 CR 3.9 wants evidence that is off the box soon; design: at least every minute."""


@dataclass
class Notary:
    """Signs for one journal. Runs under the supervisor, and ends after the judge."""

    journal: Journal
    counters: Counters
    status: LinkStatus
    now_ns: NowNs
    interval_s: float = INTERVAL_S
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self) -> None:
        """Sign until cancelled; the last act is an anchor."""
        occasion = "start"
        try:
            while True:
                if await self._sign(occasion):
                    occasion = ""
                await self.sleep(self.interval_s)
        except asyncio.CancelledError:
            await self._sign("stop")
            raise

    async def _sign(self, occasion: str) -> bool:
        try:
            anchor = await to_the_end(self._signed, occasion)
        except StorageFault as error:
            self.counters.count("anchor_fault")
            self.status("faulty", f"the journal cannot be vouched for: {error}")
            log.error("no anchor could be signed: %s", error)  # noqa: TRY400  a disk, not a bug
            return False
        if anchor:
            self.counters.count("anchors")
        self.status("signing")
        return True

    def _signed(self, occasion: str) -> bool:
        return self.journal.sign(self.now_ns(), occasion=occasion) is not None
