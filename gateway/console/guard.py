"""The door: every request and every socket passes here first. Pure ASGI.

    Host        an address, `localhost`, or a listed name: a rebound DNS name gets 400
    Origin      of a WebSocket: this host, else 403: cookies and loopback do not protect sockets
    unsafe      methods need `Sec-Fetch-Site: same-origin`, or an `Origin` of this host, else 403
    body        at most BODY_SIZE_MAX, else 413
    answers     carry the policy headers; no page may load, frame or send anything elsewhere

Not here: who the operator is. Roles and sessions come with their own issue; until then the server
binds loopback unless told otherwise.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SIZE_MAX = 16 * 1024  # the largest command is a comment of 500 characters
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Guard:
    """Wraps an application; see the module."""

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._allowed = frozenset(host.lower() for host in allowed_hosts) | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            if refusal:
                await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
            else:
                await self._app(scope, receive, send)
            return
        if refusal:
            response = PlainTextResponse(refusal[1] + "\n", refusal[0])
            await response(scope, receive, _with_headers(scope, send))
            return
        await self._app(scope, receive, _with_headers(scope, send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._known(host):
            return 400, "unknown host name"
        if scope["type"] == "websocket":
            return None if _same_origin(headers, host) else (403, "foreign origin")
        return None if scope["method"] in SAFE_METHODS else _unsafe_refusal(headers, host)

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._allowed:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _same_origin(headers: Headers, host: str) -> bool:
    # The scheme is not compared: behind a TLS proxy ours is http and the browser's is https.
    return urlsplit(headers.get("origin", "")).netloc.lower() == host.lower() != ""


def _unsafe_refusal(headers: Headers, host: str) -> tuple[int, str] | None:
    site = headers.get("sec-fetch-site")
    if not (site == "same-origin" if site is not None else _same_origin(headers, host)):
        return 403, "commands are taken from this console's own pages only"
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return 411, "a length is required"
    return (413, "too large") if int(length) > BODY_SIZE_MAX else None


def _with_headers(scope: Scope, send: Send) -> Send:
    static = scope["path"].startswith("/static/")

    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            # Files are asked for again by their ETag: an upgrade shows at once.
            headers.setdefault("cache-control", "no-cache" if static else "no-store")
        await send(message)

    return sender
