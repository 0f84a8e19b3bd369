"""Each mode of the proxy does what its table says, and nothing after it is set back to pass."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gateway.testing.faults.proxy import MODES, Proxy

HELLO = b"what is said" * 200


@contextlib.asynccontextmanager
async def echo_behind(proxy_options=None):
    """A server that says back what it hears, and a proxy before it."""
    heard = bytearray()

    async def serve(reader, writer):
        while data := await reader.read(1000):
            heard.extend(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[1], **(proxy_options or {}))
    await proxy.open()
    try:
        yield proxy, heard
    finally:
        await proxy.close()
        server.close()


async def ask(port: int, wait_s: float) -> bytes | str:
    """What comes back for HELLO: the bytes there were after `wait_s`, or how it failed."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return "refused"
    writer.write(HELLO)
    found = bytearray()
    try:
        async with asyncio.timeout(wait_s):
            while len(found) < len(HELLO):
                data = await reader.read(len(HELLO))
                if not data:
                    return "ended"
                found += data
    except TimeoutError:
        return bytes(found)
    except ConnectionResetError:
        return "reset"
    finally:
        writer.transport.abort()
    return bytes(found)


SHORT_S, LONG_S = 0.2, 20.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "options", "wait_s", "answer"),
    [
        ("pass", {}, LONG_S, HELLO),
        ("refuse", {}, LONG_S, "refused"),
        ("blackhole", {}, SHORT_S, b""),
        ("deaf", {}, SHORT_S, b""),
        ("delay", {"delay_s": 0.01}, LONG_S, HELLO),
        ("chop", {}, LONG_S, HELLO),
        ("throttle", {"rate_bytes_s": 10**6}, LONG_S, HELLO),
        ("cut", {"cut_bytes": 700}, LONG_S, "reset"),
    ],
)
async def test_a_client_sees_what_the_mode_says_and_afterwards_a_good_wire(
    mode, options, wait_s, answer
):
    async with echo_behind(options) as (proxy, heard):
        await proxy.set(mode)
        assert await ask(proxy.port, wait_s) == answer
        if mode == "deaf":
            assert bytes(heard) == HELLO
        if mode in {"refuse", "blackhole"}:
            assert not heard
        if mode == "cut":
            assert bytes(heard) == HELLO[:700]
        await proxy.set("pass")
        assert await ask(proxy.port, LONG_S) == HELLO


async def test_garbage_is_of_the_length_of_the_answer_and_the_same_for_the_same_seed():
    answers = []
    for _ in range(2):
        async with echo_behind({"seed": 7}) as (proxy, _heard):
            await proxy.set("garbage")
            answers.append(await ask(proxy.port, LONG_S))
    assert len(answers[0]) == len(HELLO)
    assert answers[0] != HELLO
    assert answers[0][:100] == answers[1][:100]


async def test_half_close_ends_the_servers_side_and_leaves_the_client_hanging():
    async with echo_behind() as (proxy, heard):
        await proxy.set("half_close")
        found = await ask(proxy.port, SHORT_S)
        assert found == HELLO[: len(found)], "what was already said may still come"
        assert bytes(heard) == HELLO[: len(heard)]


async def test_a_standing_connection_is_reset_when_the_wire_goes_bad():
    async with echo_behind() as (proxy, _heard):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"here")
        assert await reader.readexactly(4) == b"here"
        await proxy.set("blackhole")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), LONG_S)
        writer.transport.abort()


def test_every_mode_is_described():
    from gateway.testing.faults import proxy

    assert all(f"    {mode} " in proxy.__doc__ for mode in MODES)
