"""Run calls beside the main thread: coroutines on one event loop, other calls in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from threading import Lock, Thread
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")


class EventLoop:
    """An event loop in a daemon thread, which lives as long as the process.

    One loop serves all rollouts, because clients and semaphores of asyncio belong to the loop that they are first used on.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine beside the others."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            Thread(target=self._loop.run_forever, name="async rewards", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


def in_thread(call: Callable[[], T], lock: Lock, seconds: float) -> Future[T]:
    """Start a call in a daemon thread.

    Python cannot stop a thread. A call that is given up therefore runs on, and the lock keeps the next one waiting for it.

    Args:
        call: The call.
        lock: Held during the call, so that calls of one function do not overlap.
        seconds: Give up if the lock is not free by then.
    """
    future: Future[T] = Future()

    def work() -> None:
        if not lock.acquire(timeout=seconds):
            return
        try:
            if future.set_running_or_notify_cancel():
                future.set_result(call())
        except BaseException as error:
            future.set_exception(error)
        finally:
            lock.release()

    Thread(target=work, name="reward", daemon=True).start()
    return future


def finished(future: Future[Any], deadline: float | None) -> bool:
    """Wait for the future until the deadline (``monotonic`` seconds; None waits for ever), and cancel it if it is late."""
    wait([future], None if deadline is None else max(0.0, deadline - monotonic()))
    if not future.done():
        future.cancel()
        return False
    return True
