"""The hub: one text per topic, newest only, alarms first, bounded."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.console import hub as hub_module
from gateway.console.hub import Hub, HubFull


async def drain(subscription) -> list[dict]:
    """Everything that is due right now."""
    got = []
    while True:
        try:
            async with asyncio.timeout(0.005):
                got.append(json.loads(await subscription.next()))
        except TimeoutError:
            return got


async def test_every_subscription_gets_the_very_same_text():
    hub = Hub()
    first, second = hub.subscribe(), hub.subscribe()
    hub.publish("values", b'{"value":[1,null]}')
    one, other = await first.next(), await second.next()
    assert one is other
    assert json.loads(one) == {"topic": "values", "data": {"value": [1, None]}}


async def test_a_slow_browser_gets_the_newest_frame_only():
    hub = Hub()
    slow = hub.subscribe()
    for number in range(1000):
        hub.publish("values", str(number).encode())
    assert await drain(slow) == [{"topic": "values", "data": 999}]


async def test_alarms_overtake_what_was_due_before_them():
    hub = Hub()
    subscription = hub.subscribe()
    for topic in ("values", "status", "alarms"):
        hub.publish(topic, b"1")
    assert [frame["topic"] for frame in await drain(subscription)] == ["alarms", "values", "status"]


async def test_a_late_browser_gets_every_topic_as_it_stands():
    hub = Hub()
    hub.publish("values", b"1")
    hub.publish("alarms", b"2")
    topics = {frame["topic"] for frame in await drain(hub.subscribe())}
    assert topics == {"values", "alarms"}


async def test_waiting_ends_with_the_next_frame():
    hub = Hub()
    subscription = hub.subscribe()
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    hub.publish("values", b"7")
    assert json.loads(await waiting)["data"] == 7


async def test_who_left_is_told_nothing_and_makes_room(monkeypatch):
    monkeypatch.setattr(hub_module, "SUBSCRIPTIONS_MAX", 1)
    hub = Hub()
    first = hub.subscribe()
    with pytest.raises(HubFull):
        hub.subscribe()
    first.close()
    first.close()
    assert hub.subscription_count == 0
    hub.publish("values", b"1")
    hub.subscribe()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):
            await first.next()
