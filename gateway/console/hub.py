"""The newest frame of each topic, and who has not had it yet. No HTTP, no sockets.

    core ── link ── publish(topic, body) ── one text per topic ──┬─ subscription: dirty topics
                                                                 └─ subscription: dirty topics

A frame is made into text **once**, however many browsers there are. A subscription holds the names
of the topics it has not sent yet and no frames: a slow browser gets the newest one only, and costs
nothing. That suits every topic, because each frame is the whole picture; alarm frames carry `gseq`
and a browser that sees a gap in its event list asks for the missing events.
"""

from __future__ import annotations

import asyncio

SUBSCRIPTIONS_MAX = 100  # walls, desks and phones of one site; far below what the loop can serve


class HubFull(Exception):
    """Every place is taken."""


class Hub:
    """Latest frame per topic; hands it to any number of subscriptions up to a limit."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._subscriptions: set[Subscription] = set()

    @property
    def subscription_count(self) -> int:
        return len(self._subscriptions)

    def publish(self, topic: str, body: bytes) -> None:
        """`body` is JSON; it becomes the topic's newest frame."""
        self._texts[topic] = f'{{"topic":"{topic}","data":{body.decode()}}}'
        for subscription in self._subscriptions:
            subscription.mark(topic)

    def text(self, topic: str) -> str:
        return self._texts[topic]

    def subscribe(self) -> Subscription:
        """A place at the table, with every topic's newest frame due. Raises HubFull."""
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            raise HubFull
        subscription = Subscription(self)
        for topic in self._texts:
            subscription.mark(topic)
        self._subscriptions.add(subscription)
        return subscription

    def leave(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)


class Subscription:
    """What one browser has not had yet."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._due: dict[str, None] = {}  # an ordered set
        self._something_due = asyncio.Event()

    def mark(self, topic: str) -> None:
        self._due[topic] = None
        self._something_due.set()

    async def next(self) -> str:
        """The newest frame of a topic that is due: alarms before everything, then the oldest."""
        while not self._due:
            self._something_due.clear()
            await self._something_due.wait()
        topic = "alarms" if "alarms" in self._due else next(iter(self._due))
        del self._due[topic]
        return self._hub.text(topic)

    def close(self) -> None:
        self._hub.leave(self)
