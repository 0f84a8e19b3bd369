"""Every sample to the broker, for a centre that wants them: JSON arrays on one topic.

Idempotent in the consumer's hands: a batch that comes again after a crash is the same bytes, and a
sample is its point and time. Unlike the alarm sink it connects again by itself, because nothing has
to be told before the next batch.
"""

from __future__ import annotations

from gateway.contract.history import History
from gateway.contract.mqtt_link import MqttLink, Outgoing
from gateway.contract.sink import SinkContext, WriteResult
from gateway.model.batch import Batch
from gateway.sinks.mqtt import wire
from gateway.sinks.mqtt.config import MqttSinkConfig, client_id
from gateway.sinks.mqtt.topics import Topics


class MqttTelemetrySink:
    """One broker. With `telemetry = "off"` every batch is accepted and goes nowhere."""

    def __init__(self, config: MqttSinkConfig, context: SinkContext) -> None:
        self._config = config
        self._context = context
        self._topic = Topics.of(config.root, context.tenant, context.site).telemetry
        self._link: MqttLink | None = None

    @property
    def history(self) -> History | None:
        """A broker keeps none."""
        return None

    async def open(self) -> None:
        """Connect. Raises Unavailable or Refused."""
        if self._config.telemetry == "off":
            return
        await self.close()
        context = self._context
        link = MqttLink(
            self._config,
            client_id=client_id(self._config, "t", context.name, context.tenant, context.site),
            ack_timeout_s=self._config.ack_timeout_s,
        )
        await link.open()
        self._link = link

    async def write(
        self,
        batch: Batch,
        offset: int,
        *,
        ahead: bool = False,  # noqa: ARG002  end_offset says it to whoever wants to know
    ) -> WriteResult:
        """Raises Unavailable to get the same again."""
        if self._config.telemetry == "on":
            if self._link is None or self._link.lost.is_set():
                await self.open()
            assert self._link is not None, "open made one"
            await self._link.publish(self._messages(batch, offset))
        return WriteResult(accepted=len(batch))

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def _messages(self, batch: Batch, offset: int) -> list[Outgoing]:
        size, messages = self._config.telemetry_batch_size, []
        for start in range(0, len(batch), size):
            part = batch.take(slice(start, start + size))
            names = [self._context.points[index].id for index in part.point_index.tolist()]
            columns = {
                name: getattr(part, name).tolist()
                for name in ("value", "quality", "source_time_ns", "received_time_ns")
            }
            end_offset = offset - len(batch) + start + len(part)
            messages.append(Outgoing(self._topic, wire.telemetry(names, columns, end_offset)))
        return messages
