"""Tells alarms to an MQTT broker. The journal's cursor is the durable side; the broker is not.

    open       connect with a last will "offline", publish "online"           both retained
    snapshot   every row to its retained state topic; rows of alarms that no longer exist are
               removed with an empty payload (a tombstone)
    write      events as they come, then the last row of each alarm among them, unless a later one
               is on its topic already; all in flight at once, and back only when the broker has
               acknowledged the last
    close      publish "offline", disconnect

A lost connection is Unavailable; the runtime then closes, opens, tells the snapshot and writes the
same events again. Consumers drop what they have seen by (alarm_key, occ_no, seq).

The surprising thing: whether the broker kept our session does not matter and is not asked for. We
only publish, and a broker that forgot its retained rows while it was down would otherwise show
nothing standing. An alarm that returned to normal keeps its row, as NORM; only the removal of its
rule removes the row. Which rows the broker holds is noted in `retained-keys.jsonl`, so that a rule
removed while the gateway was down leaves no alarm standing for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from gateway.contract.mqtt_link import MqttLink, Outgoing
from gateway.contract.sink import SinkContext
from gateway.model.alarm import Alarm, AlarmEvent
from gateway.model.errors import StorageFault, Unavailable
from gateway.sinks.mqtt import wire
from gateway.sinks.mqtt.config import MqttSinkConfig, client_id
from gateway.sinks.mqtt.topics import Topics

log = logging.getLogger(__name__)

_TOMBSTONE = b""


class MqttAlarmSink:
    """One broker."""

    def __init__(self, config: MqttSinkConfig, context: SinkContext) -> None:
        self._config = config
        self._context = context
        self._topics = Topics.of(config.root, context.tenant, context.site)
        self._kept = _RetainedKeys(context.state_dir / "retained-keys.jsonl")
        self._link: MqttLink | None = None
        self._since_ns = 0
        self._told: dict[str, int] = {}  # alarm key -> gseq of the row on its state topic
        self._floor = 0  # the first gseq that an alarm which is not in it may show
        self._epoch: int | None = None  # unknown until the first row or heartbeat names it

    async def open(self) -> None:
        """Connect and say so. Raises Unavailable or Refused."""
        await self._drop()
        await asyncio.to_thread(self._kept.load)
        self._since_ns = self._context.now_ns()
        context = self._context
        link = MqttLink(
            self._config,
            client_id=client_id(self._config, "a", context.name, context.tenant, context.site),
            will=Outgoing(
                self._topics.status, self._status("offline", "connection lost"), retain=True
            ),
            ack_timeout_s=self._config.ack_timeout_s,
        )
        await link.open()
        self._link = link
        await self._publish([self._birth()])
        context.status("connected")

    async def write(self, events: Sequence[AlarmEvent]) -> None:
        """Raises Unavailable to get the same again."""
        rows = [wire.alarm_row(event.alarm) for event in events]
        messages = [
            Outgoing(self._topics.event, wire.event(event, row))
            for event, row in zip(events, rows, strict=True)
        ]
        newest: dict[str, bytes] = {}
        gseqs: dict[str, int] = {}
        for event, row in zip(events, rows, strict=True):
            key, gseq = event.alarm.alarm_key, event.alarm.gseq
            # A backlog holds rows from before the snapshot, some of alarms that are gone since: a
            # state topic never goes back.
            if gseq >= self._told.get(key, self._floor):
                newest[key] = _TOMBSTONE if event.alarm.removed else row
                gseqs[key] = gseq
        messages += self._states(newest)
        await self._keep(newest)
        await self._publish(messages)
        self._told |= gseqs
        await self._learn_epoch(max((event.alarm.epoch for event in events), default=None))
        self._context.counters.count("accepted", len(events))

    async def snapshot(
        self, alarms: Sequence[Alarm], *, head_gseq: int = 0, unrecorded: Collection[str] = ()
    ) -> None:
        """Every row; what is not among them is removed from the broker."""
        rows = {alarm.alarm_key: wire.alarm_row(alarm) for alarm in alarms}
        gone = self._kept.keys - rows.keys() - set(unrecorded)
        messages = self._states(rows)
        messages += [
            Outgoing(self._topics.state(key), _TOMBSTONE, retain=True) for key in sorted(gone)
        ]
        await self._keep(rows)
        await self._publish(messages)
        self._told = {alarm.alarm_key: alarm.gseq for alarm in alarms}
        self._floor = head_gseq + 1
        if gone:
            await self._note(self._kept.replace, list(self._kept.keys - gone))
            self._context.counters.count("removed", len(gone), reason="rule_removed")
        await self._learn_epoch(max((alarm.epoch for alarm in alarms), default=None))

    async def heartbeat(self, status: Mapping[str, Any]) -> None:
        """Raises Unavailable, which is how a silent broker is noticed between alarms."""
        payload = wire.heartbeat(status, self._context.now_ns())
        await self._publish([Outgoing(self._topics.heartbeat, payload)])
        epoch = status.get("epoch")
        await self._learn_epoch(epoch if isinstance(epoch, int) else None)

    async def close(self) -> None:
        """Say that the gateway goes, if the broker is there to hear it."""
        if self._link is not None and not self._link.lost.is_set():
            try:
                farewell = self._status("offline", "closed")
                await self._publish([Outgoing(self._topics.status, farewell, retain=True)])
            except Unavailable:
                pass  # the last will says it instead
        await self._drop()

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        if self._link is None or self._link.lost.is_set():
            raise Unavailable("the broker connection is lost")
        await self._link.publish(messages)

    async def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _keep(self, rows: Iterable[str]) -> None:
        """Note which rows the broker is about to hold. A disk that refuses the note does not stop
        the alarm: at worst a row outlives its rule."""
        new = [key for key in rows if key not in self._kept.keys]
        if new:
            await self._note(self._kept.add, new)

    async def _note(self, note: Callable[[Sequence[str]], None], keys: Sequence[str]) -> None:
        try:
            await asyncio.to_thread(note, keys)
        except StorageFault as error:
            self._context.counters.count("rejected", reason="retained_keys")
            log.warning("%s: %s", self._context.name, error)

    async def _learn_epoch(self, epoch: int | None) -> None:
        if epoch is not None and epoch != self._epoch:
            self._epoch = epoch
            await self._publish([self._birth()])

    def _states(self, rows: Mapping[str, bytes]) -> list[Outgoing]:
        return [Outgoing(self._topics.state(key), row, retain=True) for key, row in rows.items()]

    def _birth(self) -> Outgoing:
        return Outgoing(self._topics.status, self._status("online"), retain=True)

    def _status(self, state: str, reason: str = "") -> bytes:
        return wire.gateway_status(state, epoch=self._epoch, since_ns=self._since_ns, reason=reason)


class _RetainedKeys:
    """The alarm keys whose rows the broker holds: one JSON string a line, as many as there are
    rule instances."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.keys: set[str] = set()

    def load(self) -> None:
        """A damaged line costs its key: that row then stays until somebody clears it."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("%s: %s", self._path.name, error)
            return
        for line in lines:
            try:
                key = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if isinstance(key, str):
                self.keys.add(key)

    def add(self, keys: Sequence[str]) -> None:
        self.keys.update(keys)
        self._write(self._path, keys, "ab")

    def replace(self, keys: Sequence[str]) -> None:
        """Write the file anew, beside the old one until it is whole."""
        self.keys = set(keys)
        whole = self._path.with_suffix(".new")
        self._write(whole, sorted(self.keys), "wb")
        whole.replace(self._path)

    @staticmethod
    def _write(path: Path, keys: Sequence[str], mode: str) -> None:
        try:
            with path.open(mode) as file:
                file.write(b"".join(wire.dumps(key) + b"\n" for key in keys))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageFault(f"{path.name}: {error}") from error
