"""The fleet: one socket and one task for each vehicle, around terminal.py. Only this file awaits.

    for each vehicle:  connect -> terminal.connected -> [ tick -> write ] while a reader feeds it
                       connection ends or is given up -> terminal.lost -> pause -> connect again

A vehicle without a link still ticks, so its positions are recorded. `run` ends when the scenario is
over and everything was acknowledged. Surprising: `drain` after a cancelled `run` drives the
vehicles itself, because what they hold must still be delivered.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from gateway.contract.simulator import SimulatorContext

from .config import Jt808FleetConfig
from .terminal import Outside, Terminal

READ_BYTES = 16_384


class Fleet:
    """The simulator."""

    def __init__(self, config: Jt808FleetConfig, context: SimulatorContext) -> None:
        self._config = config
        self._context = context
        self._terminals: list[Terminal] = []
        self._is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Drive until the scenario is over and acknowledged, or until cancelled."""
        if not self._terminals:
            outside = Outside(
                self._context.ledger,
                self._context.seed,
                self._context.now_ns(),
                self._context.log,
            )
            self._terminals = [
                Terminal(vehicle, self._config, outside) for vehicle in self._config.fleet()
            ]
        await self._drive_all()

    async def drain(self) -> None:
        """Nothing new; returns when all that was sent is acknowledged and the links are closed."""
        self._is_draining = True
        for terminal in self._terminals:
            terminal.drain()
        if self._idle.is_set():
            await self._drive_all()
        else:
            await self._idle.wait()

    async def _drive_all(self) -> None:
        self._idle.clear()
        try:
            async with asyncio.TaskGroup() as group:
                for terminal in self._terminals:
                    if self._is_draining:
                        terminal.drain()
                    group.create_task(self._drive(terminal))
        finally:
            self._idle.set()

    async def _drive(self, terminal: Terminal) -> None:
        now_ns, sleep = self._context.now_ns, self._context.sleep
        while not terminal.is_done(now_ns()):
            terminal.tick(now_ns())
            if not terminal.wants_link(now_ns()):
                await sleep(terminal.pause_s(now_ns()))
                continue
            try:
                reader, writer = await asyncio.open_connection(self._config.host, self._config.port)
            except OSError as error:
                self._context.log(f"{terminal.device}: no link: {error}")
                await sleep(self._config.reconnect_interval_s)
                continue
            try:
                await self._talk(terminal, reader, writer)
            except OSError as error:
                self._context.log(f"{terminal.device}: link lost: {error}")
            finally:
                terminal.lost()
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
            if not terminal.is_done(now_ns()) and terminal.wants_link(now_ns()):
                await sleep(self._config.reconnect_interval_s)

    async def _talk(
        self, terminal: Terminal, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        now_ns = self._context.now_ns
        terminal.connected(now_ns())
        listening = asyncio.create_task(self._listen(terminal, reader, writer))
        try:
            while not listening.done():
                now = now_ns()
                terminal.tick(now)
                if terminal.is_done(now) or not terminal.wants_link(now):
                    return
                writer.write(terminal.take_output())
                await writer.drain()
                pause = asyncio.ensure_future(self._context.sleep(terminal.pause_s(now)))
                try:
                    await asyncio.wait({listening, pause}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    pause.cancel()
            listening.result()
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await listening

    async def _listen(
        self, terminal: Terminal, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Feed the terminal until the link or its work ends."""
        while data := await reader.read(READ_BYTES):
            terminal.receive(data, self._context.now_ns())
            writer.write(terminal.take_output())
            now = self._context.now_ns()
            if terminal.is_done(now) or not terminal.wants_link(now):
                return
