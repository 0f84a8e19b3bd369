"""/ws: frames out, nothing in. What a browser says is ignored; that it left is noticed.

{"topic": "link",   "data": LinkState}     every second, and with every values frame
{"topic": "values", "data": ValuesFrame}   once a second
{"topic": "status", "data": Status}        once a second
{"topic": "alarms", "data": AlarmsFrame}   on every change
"""

from __future__ import annotations

import asyncio

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.console.hub import Hub, HubFull, Subscription

TRY_AGAIN_LATER = 1013


async def live(socket: WebSocket) -> None:
    """Serve one browser until it leaves."""
    hub: Hub = socket.app.state.hub
    await socket.accept()
    try:
        subscription = hub.subscribe()
    except HubFull:
        await socket.close(TRY_AGAIN_LATER, "too many screens")
        return
    sender = asyncio.create_task(_send(socket, subscription))
    try:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
    finally:
        subscription.close()
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)


async def _send(socket: WebSocket, subscription: Subscription) -> None:
    try:
        while True:
            await socket.send_text(await subscription.next())
    except (WebSocketDisconnect, RuntimeError, OSError):
        subscription.close()  # gone; the receiving side ends the rest
