"""An asyncio event loop in virtual time, and domains: processes that can be killed or stopped.

    nothing is ready ──▶ time jumps to the next timer ──▶ handles run, in the order of their times
                         (a loop with neither is stuck for ever, and says so: `Stuck`)

A handle belongs to the domain of the context it was made in. `kill` ends a domain as SIGKILL does:
none of its handles ever runs again, no `finally`, no `except`. `stop` and `go_on` are SIGSTOP and
SIGCONT: what became due meanwhile is run, late, when it goes on.

No thread is ever started. What is given to an executor runs in the loop, whole, a seeded moment
after it was asked for, and its result arrives a seeded moment after that: between the two the
domain may be killed, so that a thing was done and nobody heard of it. Code that would block in a
thread calls `hold(seconds)` instead, which puts off its result.

Surprising: BaseEventLoop's `_run_once` is replaced, which asyncio does not promise to keep; it has
been as it is since Python 3.4.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import heapq
import random
import sys
import warnings
import weakref
from asyncio import base_events, events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

from gateway.model.errors import Unavailable

T = TypeVar("T")

THREAD_DELAY_S = 0.002
"""Up to this long until a thread takes a job up, and as long until its caller hears (engineering:
a scheduler's turn on a busy box)."""
_APART_S = 1e-9  # timers of one time have no order
SLOW_SHARE, SLOW_S = 0.1, 0.3
"""So often what a thread says is heard up to so much later (engineering: a box out of breath)."""
_CLOSES_MAX = 50  # a `finally` that awaits has to be closed again
_INSTANT_TURNS_MAX = 20_000

DOMAIN: ContextVar[Domain | None] = ContextVar("domain", default=None)


class Stuck(Exception):
    """Nothing is ready and no timer runs: everybody waits for somebody. Or the opposite: so much
    is done in one instant that time stands still for ever."""


@dataclass(eq=False)
class Domain:
    """One process: what is started through `context` belongs to it."""

    name: str
    is_dead: bool = False
    is_stopped: bool = False
    held: list[asyncio.Handle] = field(default_factory=list)
    tasks: weakref.WeakSet[asyncio.Task[Any]] = field(default_factory=weakref.WeakSet)
    on_kill: list[Callable[[], None]] = field(default_factory=list)

    def context(self) -> Context:
        """A context whose handles are this domain's."""
        context = copy_context()
        context.run(DOMAIN.set, self)
        return context


class VirtualLoop(base_events.BaseEventLoop):
    """Use `running` to get one."""

    _ready: deque[asyncio.Handle]  # BaseEventLoop's own three
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._now_s = 0.0
        self._held_s = 0.0
        self._heard_s = 0.0  # when the loop hears of the last thing a thread said
        self._selector = None
        self.steps = 0
        self._instant_turns = 0
        self.after_step: Callable[[], None] = lambda: None
        self.failures: list[dict[str, Any]] = []
        self._undead: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._task)  # type: ignore[arg-type]
        self.set_exception_handler(lambda _loop, context: self.failures.append(context))

    def time(self) -> float:
        return self._now_s

    # ------------------------------------------------------------------ domains

    def spawn(self, domain: Domain, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start `work` as a task of `domain`."""
        return self.create_task(work, name=name, context=domain.context())

    def kill(self, domain: Domain) -> None:
        """It ends here, and none of its code hears of it."""
        domain.is_dead = True
        domain.held.clear()
        self._undead.extend(task for task in domain.tasks if not task.done())
        for told in domain.on_kill:
            told()

    def stop_domain(self, domain: Domain) -> None:
        domain.is_stopped = True

    def go_on(self, domain: Domain) -> None:
        domain.is_stopped = False
        held, domain.held = domain.held, []
        self._ready.extend(held)

    def bury(self) -> None:
        """Let go of what the dead hold, so that Python does not complain of it later: what one of
        them awaited in its last moment may end without it, and finds no loop."""
        undead, self._undead = self._undead, []
        with warnings.catch_warnings(), mock.patch.object(sys, "unraisablehook", _say_nothing):
            warnings.simplefilter("ignore")
            for task in undead:
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
                _close(task.get_coro())
            gc.collect(1)

    # ------------------------------------------------------------------ running

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0].cancelled():
            heapq.heappop(scheduled)
        if not ready and not self._stopping:
            if not scheduled:
                raise Stuck
            if scheduled[0].when() > self._now_s:
                self._now_s, self._instant_turns = scheduled[0].when(), 0
        self._instant_turns += 1
        if self._instant_turns > _INSTANT_TURNS_MAX:
            busy = [repr(handle)[:200] for handle in list(ready)[:3]]
            raise Stuck(f"{self._instant_turns} turns at {self._now_s:.6f}: {busy}")
        while scheduled and scheduled[0].when() <= self._now_s:
            ready.append(heapq.heappop(scheduled))
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            domain = handle._context.get(DOMAIN)  # type: ignore[attr-defined]  # noqa: SLF001
            if domain is not None and (domain.is_dead or domain.is_stopped):
                if not domain.is_dead:
                    domain.held.append(handle)
                continue
            self.steps += 1
            handle._run()  # noqa: SLF001
            self.after_step()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when their time comes."""

    def _write_to_self(self) -> None:
        """There is no other thread to wake this one."""

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """A generator nobody holds any more was in a domain that is dead."""

    def _task(
        self, _loop: Any, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, **options)
        context = options.get("context")
        domain = DOMAIN.get() if context is None else context.get(DOMAIN)
        if domain is not None:
            domain.tasks.add(task)
        return task

    # ------------------------------------------------------------------ threads

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """What a thread says the loop hears a moment later, in the order it was said: what the
        thread did stands there already."""
        is_slow = self._rng.random() < SLOW_SHARE
        delay_s = self._rng.uniform(0, SLOW_S if is_slow else THREAD_DELAY_S)
        self._heard_s = max(self._now_s + delay_s, self._heard_s + _APART_S)
        return self.call_at(self._heard_s, callback, *args, context=context)

    def hold(self, seconds: float) -> None:
        """In a job of an executor: its caller hears so much later."""
        self._held_s += seconds

    def post(self, call: Callable[[], T], done: Callable[[Callable[[], T]], None]) -> None:
        """Run `call` in a moment and tell `done` in another how to get its outcome."""
        self.call_later(self._rng.uniform(0, THREAD_DELAY_S), self._run_job, call, done)

    def _run_job(self, call: Callable[[], T], done: Callable[[Callable[[], T]], None]) -> None:
        self._held_s = 0.0
        try:
            value = call()
        except Exception as error:  # noqa: BLE001  the caller gets it, as from a thread
            outcome: Callable[[], T] = _raiser(error)
        else:
            outcome = lambda: value  # noqa: E731
        delay_s = self._held_s + self._rng.uniform(0, THREAD_DELAY_S)
        self.call_later(delay_s, done, outcome)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        del executor  # threads are no different from one another here
        future: asyncio.Future[T] = self.create_future()
        self.post(lambda: func(*args), lambda outcome: _settle(future, outcome))
        return future


class VirtualExecutor:
    """A ThreadPoolExecutor of one thread: one job after another."""

    def __init__(self, _workers: int = 1, **_options: object) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop), "only inside a simulation"
        self._loop = loop
        self._jobs: list[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = []
        self._busy = False
        self._ended = False

    def submit(self, call: Callable[[], T]) -> concurrent.futures.Future[T]:
        if self._ended:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._jobs.append((future, call))
        self._next()
        return future

    def shutdown(self, *, wait: bool = True, cancel_futures: bool = False) -> None:
        """What runs is done already: jobs are whole. What waits is done now, as it would be in
        the time a thread is waited for."""
        self._ended = True
        jobs, self._jobs = self._jobs, []
        for future, call in jobs:
            if cancel_futures or not wait:
                future.cancel()
            elif future.set_running_or_notify_cancel():
                future.set_result(call())

    def _next(self) -> None:
        if self._busy or not self._jobs:
            return
        future, call = self._jobs.pop(0)
        if not future.set_running_or_notify_cancel():
            self._next()
            return
        self._busy = True

        def done(outcome: Callable[[], Any]) -> None:
            self._busy = False
            _settle(future, outcome)
            self._next()

        self._loop.post(call, done)


class VirtualOneThread:
    """gateway.sinks.one_thread.OneThread without the thread."""

    def __init__(self, _name: str) -> None:
        self._executor = VirtualExecutor()

    async def run(self, call: Callable[[], T], *, on_cancel: Callable[[], None] | None = None) -> T:
        try:
            future = self._executor.submit(call)
        except RuntimeError as error:
            raise Unavailable(str(error)) from error
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel() and on_cancel is not None:
                on_cancel()
            raise

    async def end(self) -> None:
        self._executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def running(rng: random.Random) -> Iterator[VirtualLoop]:
    """A virtual loop, and no thread behind the gateway's back while it is there."""
    loop = VirtualLoop(rng)
    clock = SimpleNamespace(monotonic=loop.time)
    with contextlib.ExitStack() as patched:
        for name, stands_in in (
            ("gateway.sinks.influxdb.sink.OneThread", VirtualOneThread),
            ("gateway.sinks.influxdb.reader.OneThread", VirtualOneThread),
            ("gateway.spool.registry.ThreadPoolExecutor", VirtualExecutor),
            ("gateway.spool.writer.time", clock),
            ("gateway.spool.spool.time", clock),
        ):
            patched.enter_context(mock.patch(name, stands_in))
        try:
            yield loop
        finally:
            loop.bury()
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                with contextlib.suppress(Stuck):
                    loop.run_until_complete(asyncio.wait(left, timeout=60))
            loop.close()
            events.set_event_loop(None)


def _settle(future: Any, outcome: Callable[[], Any]) -> None:
    if future.done():
        return  # cancelled meanwhile; the job was done all the same
    try:
        value = outcome()
    except Exception as error:  # noqa: BLE001
        future.set_exception(error)
    else:
        future.set_result(value)


def _raiser(error: Exception) -> Callable[[], Any]:
    def outcome() -> Any:
        raise error

    return outcome


def _say_nothing(_what: Any) -> None:
    """Of the dead."""


def _close(coroutine: Any) -> None:
    for _ in range(_CLOSES_MAX):
        try:
            coroutine.close()
        except BaseException:  # noqa: BLE001, S112  whatever it says, it is dead
            continue
        return
