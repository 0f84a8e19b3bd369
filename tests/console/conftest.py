"""A browser, a console over a real link to a fake core, and a page that fails on anything odd.

Any request that leaves loopback, any console error and any script error fails the test it happens
in. Helpers are handed out by fixtures: test modules cannot import each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import uvicorn
from playwright.async_api import Browser, Page, async_playwright, expect

from gateway.api.client import LinkClient
from gateway.api.server import LinkServer
from gateway.console import serve
from gateway.console.app import build_app
from gateway.testing.core import FakeCore

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
WAIT_MS = 10_000
expect.set_options(timeout=WAIT_MS)


@dataclass
class Site:
    core: FakeCore
    served: LinkServer
    web: uvicorn.Server
    url: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="module")
async def site() -> AsyncIterator[Site]:
    with tempfile.TemporaryDirectory(prefix="hg-") as folder:
        path = Path(folder) / "core.sock"
        core, app = FakeCore(), build_app(LinkClient(path))
        listening = serve.listen("127.0.0.1", 0)
        config = serve.server_config(app, deflate=False)
        server = uvicorn.Server(config)
        async with LinkServer(path, core) as served:
            running = asyncio.create_task(server.serve(sockets=[listening]))
            async with asyncio.timeout(5):
                while not server.started:
                    await asyncio.sleep(0.005)
            yield Site(core, served, server, serve.url_of("127.0.0.1", listening))
            server.should_exit = True
            await running


@pytest_asyncio.fixture(loop_scope="module")
async def coreless() -> AsyncIterator[str]:
    """The address of a console whose core has never been there."""
    with tempfile.TemporaryDirectory(prefix="hg-") as folder:
        app = build_app(LinkClient(Path(folder) / "core.sock"))
        listening = serve.listen("127.0.0.1", 0)
        server = uvicorn.Server(serve.server_config(app, deflate=False))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        yield serve.url_of("127.0.0.1", listening)
        server.should_exit = True
        await running


@contextlib.asynccontextmanager
async def _opened(
    browser: Browser, site: Site, path: str = "/", *, language: str = "en"
) -> AsyncIterator[Page]:
    """A page in a fresh browser profile; anything wrong on it fails the test at the end."""
    wrong: list[str] = []
    context = await browser.new_context(
        locale={"en": "en-GB", "zh_CN": "zh-CN"}[language],
        viewport={"width": 1600, "height": 900},
        reduced_motion="reduce",
    )
    context.set_default_timeout(WAIT_MS)

    def watch(request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            wrong.append(f"left the box: {request.url}")

    page = await context.new_page()
    context.on("request", watch)
    page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda fault: wrong.append(str(fault)))
    page.navigation_count = 0
    page.check_layout = functools.partial(_check_layout, page)

    def count(frame) -> None:
        page.navigation_count += frame is page.main_frame

    page.on("framenavigated", count)
    page.wrong = wrong
    try:
        await page.goto(site.url + path)
        await expect(page.locator("#link-state")).to_have_class("link-state live")
        yield page
        assert wrong == []
    finally:
        await context.close()


async def _check_layout(page: Page, width: int) -> None:
    """Nothing sticks out sideways; no text of a control is cut off."""
    over = await page.evaluate(
        """() => {
            const cut = [...document.querySelectorAll("button, .tile, .tool, .alarm, .card, th, .chip")]
                .filter((e) => e.offsetParent && e.scrollWidth > e.clientWidth + 1)
                .map((e) => e.className + ": " + e.textContent.slice(0, 40));
            return [document.documentElement.scrollWidth, cut];
        }"""
    )
    assert over[0] <= width, over
    assert over[1] == []


@pytest.fixture
def opened():
    """`opened(browser, site, path, language=…)`: a page, live, as a context. It also has
    `navigation_count`, `wrong` and `await page.check_layout(width)`."""
    return _opened
