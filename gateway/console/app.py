"""The web application: pages, JSON API and live stream over one link to the core.

    browsers ── Guard ──┬─ pages/      HTML in two languages
                        ├─ /static/    modules, styles, browser libraries
                        ├─ /api/       gateway.api.routes
                        └─ /ws         hub ── link ── core

`build_app` starts nothing; the link and the ticker run between the application's start-up and its
shutdown.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles

from gateway.api import routes
from gateway.api.client import LinkClient
from gateway.console.guard import Guard
from gateway.console.hub import Hub
from gateway.console.live import live
from gateway.console.pages import screens
from gateway.console.settings import ConsoleSettings

STATIC = Path(__file__).parent / "static"
LIBRARIES = ("lib/uplot/uPlot.iife.min.js", "lib/leaflet/leaflet.js")
TICK_S = 1.0


def build_app(link: LinkClient, settings: ConsoleSettings | None = None) -> FastAPI:
    """The application over `link`, which it runs. Raises FileNotFoundError when the browser
    libraries are not installed: a console without them would be a blank page at 03:00."""
    settings = settings or ConsoleSettings()
    for name in LIBRARIES:
        if not (STATIC / name).is_file():
            raise FileNotFoundError(f"{STATIC / name}: run deploy/web_libs.py")
    hub = Hub()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(link.run()), asyncio.create_task(_tick(hub, link))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(
        title="hazard-gateway",
        summary="Live alarms, values and state of one gateway.",
        version="1",
        openapi_url="/api/openapi.json",
        docs_url=None,  # both load their page from elsewhere; ours is /api/docs
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.link, app.state.hub, app.state.pages = link, hub, screens.Pages(settings)
    _join(link, hub)
    app.add_middleware(Guard, allowed_hosts=settings.allowed_hosts)
    app.include_router(routes.router)
    app.include_router(screens.router)
    app.router.routes.append(WebSocketRoute("/ws", live))
    app.router.routes.append(Mount("/static", StaticFiles(directory=STATIC)))
    app.add_exception_handler(HTTPException, _problem)  # type: ignore[arg-type]
    return app


def _join(link: LinkClient, hub: Hub) -> None:
    def push(topic: str, body: bytes) -> None:
        hub.publish(topic, body)
        if topic == "values":
            hub.publish("link", link.state.encoded())

    link.on_push = push
    link.on_state = lambda: hub.publish("link", link.state.encoded())


async def _tick(hub: Hub, link: LinkClient) -> None:
    """Tell the age of the data even when nothing comes: that is when it matters."""
    while True:
        hub.publish("link", link.state.encoded())
        await asyncio.sleep(TICK_S)


async def _problem(request: Request, fault: HTTPException) -> Response:
    if request.url.path.startswith("/api/") or fault.status_code != 404:
        return JSONResponse({"detail": fault.detail}, fault.status_code)
    pages = screens.pages_of(request)
    return pages.render(request, "missing.html", status=404, page="missing")
