"""A pool of worker processes that runs programs as they arrive; every program gets a result, even if its worker dies."""

from __future__ import annotations

import os
import queue
import signal
import threading
import weakref
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from reft_pl.errors import UserError
from reft_pl.sandbox import frames
from reft_pl.sandbox.base import Execution, Sandbox, check_limits
from reft_pl.sandbox.worker import Worker, WorkerGoneError, WorkerStartError
from reft_pl.types import ExecutionResult, Status

_GRACE_SECONDS = 0.75  # how long a worker may stay silent past a program's deadline before it is killed
_GROUP = 32  # programs that start together: one at a time costs a rollout on two cores three times as much
ATTEMPTS = 5  # attempts at a program if its worker dies or an outside process kills it


_locks: dict[int, threading.Lock] = {}  # one per process: after a fork, a lock held by another thread is never released


class _Team:
    """Workers, started lazily, with one thread each to wait for results."""

    def __init__(self, make_worker: Callable[[], Worker], workers: int) -> None:
        self.owner = os.getpid()
        self.workers = [make_worker() for _ in range(workers)]
        self.threads = ThreadPoolExecutor(workers, "sandbox")
        self.idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self.workers:
            self.idle.put(worker)
        weakref.finalize(self, _kill_all, self.workers)


class WorkerPool:
    """Workers of one kind, each started when a program first needs it.

    Args:
        make_worker: Creates a worker without starting it.
        workers: Number of workers.
        request_seconds: Time in seconds that a worker has to run a program and report; after that it is killed.
        backend: Backend name in the results.
        silent: Status of a program if its worker does not report in time.
    """

    def __init__(self, make_worker: Callable[[], Worker], workers: int, request_seconds: float, backend: str, silent: Status):
        self._make_team = partial(_Team, make_worker, workers)
        self._team = self._make_team()
        self._request_seconds = request_seconds
        self._backend = backend
        self._silent = silent

    @property
    def pids(self) -> list[int]:
        """Process IDs of the running workers."""
        return [worker.pid for worker in self._team.workers if worker.pid is not None]

    def submit(self, program: str) -> Future[ExecutionResult]:
        """Queue a program. Its future raises WorkerStartError if no worker can be started."""
        with _locks.setdefault(os.getpid(), threading.Lock()):
            if self._team.owner != os.getpid():  # after a fork (such as a data loader's) the workers belong to the parent
                _kill_all(self._team.workers)
                self._team = self._make_team()
            return self._team.threads.submit(self._run, frames.encode_source(program), self._team.idle)

    def close(self) -> None:
        """Stop the workers; the next program starts new ones."""
        with _locks.setdefault(os.getpid(), threading.Lock()):
            team, self._team = self._team, self._make_team()
        if team.owner == os.getpid():
            team.threads.shutdown(wait=True, cancel_futures=True)
        _kill_all(team.workers)

    def _run(self, source: bytes, idle: queue.SimpleQueue[Worker]) -> ExecutionResult:
        """Run a program, and retry up to ``ATTEMPTS`` times if it was killed: it may itself be the cause."""
        worker = idle.get()
        try:
            for _ in range(ATTEMPTS):
                try:
                    (status, value, detail), wait_status, seconds = worker.run(source, self._request_seconds)
                except WorkerGoneError:
                    worker.kill()
                    executed = ExecutionResult(Status.WORKER_DIED, backend=self._backend)
                    continue
                executed = ExecutionResult(Status(status), value, seconds, self._backend, detail)
                # A program cannot send itself SIGKILL: it came from an operator or the OOM killer.
                if executed.status is not Status.KILLED or os.WTERMSIG(wait_status) != signal.SIGKILL:
                    return executed
                executed = replace(executed, status=Status.WORKER_DIED)
        except TimeoutError:
            worker.kill()
            executed = ExecutionResult(self._silent, None, self._request_seconds, self._backend)
        except OSError as error:  # out of descriptors or processes
            raise WorkerStartError(str(error)) from error
        finally:
            idle.put(worker)
        return executed


class PoolExecution(Execution):
    """Programs that run in pools as they arrive. Equal programs run once, since only clocks and process IDs could differ.

    Args:
        pool_of: Returns the pool for a program.
        refusal: Error message if no worker starts; ``{}`` is the placeholder for the reason.
    """

    def __init__(self, pool_of: Callable[[str], WorkerPool], refusal: str):
        self._pool_of = pool_of
        self._refusal = refusal
        self._futures: dict[str, Future[ExecutionResult]] = {}
        self._programs: list[str] = []
        self._started = 0

    def submit(self, program: str) -> None:
        """Queue a program. Programs start in groups, since each start disturbs a sampler that keeps every core busy."""
        self._programs.append(program)
        if len(self._programs) - self._started >= _GROUP:
            self._start()

    def _start(self) -> None:
        for program in self._programs[self._started :]:
            if program not in self._futures:
                self._futures[program] = self._pool_of(program).submit(program)
        self._started = len(self._programs)

    def results(self) -> list[ExecutionResult]:
        """Wait for all programs and return their results in submission order.

        Raises:
            UserError: no worker can be started.
        """
        self._start()
        try:
            return [self._futures[program].result() for program in self._programs]
        except (WorkerStartError, CancelledError) as error:
            raise UserError(self._refusal.format(str(error) or "the sandbox was closed")) from error

    def cancel(self) -> None:
        """Cancel programs that have not started."""
        for future in self._futures.values():
            future.cancel()


class PooledSandbox(Sandbox):
    """A sandbox of worker processes: ``workers`` for each kind of program."""

    backend: str
    refusal: str
    silent = Status.TIMEOUT

    def __init__(self, timeout_seconds: float = 2.0, memory_mb: int = 256, workers: int = 2):
        check_limits(type(self).__name__, timeout_seconds, memory_mb, workers)
        self.timeout_seconds = timeout_seconds
        self.memory_mb = memory_mb
        self.workers = workers
        self._pools: dict[str, WorkerPool] = {}

    @abstractmethod
    def make_worker(self, kind: str) -> Worker:
        """Create a worker for a kind of program without starting it."""

    def kind_of(self, program: str) -> str:
        """Return the kind of worker that a program needs."""
        return ""

    def run(self, programs: Sequence[str]) -> list[ExecutionResult]:
        """Run each program in isolation; see ``Sandbox.run``.

        Raises:
            UserError: programs cannot run on this machine.
        """
        with self.begin() as execution:
            for program in programs:
                execution.submit(program)
            return execution.results()

    def begin(self) -> Execution:
        """Open an execution that runs programs as they arrive; see ``Sandbox.begin``.

        Raises:
            UserError: programs cannot run on this machine.
        """
        self.check()
        return PoolExecution(self._pool_of, self.refusal)

    def close(self) -> None:
        """Stop the workers; the next program restarts them."""
        for pool in self._pools.values():
            pool.close()

    @property
    def worker_pids(self) -> list[int]:
        """Process IDs of the running workers."""
        return [pid for pool in self._pools.values() for pid in pool.pids]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pools": {}}  # a copy starts its own workers

    def _pool_of(self, program: str) -> WorkerPool:
        kind = self.kind_of(program)
        if kind not in self._pools:
            seconds = self.timeout_seconds + _GRACE_SECONDS
            make = partial(self.make_worker, kind)
            self._pools[kind] = WorkerPool(make, self.workers, seconds, self.backend, self.silent)
        return self._pools[kind]


def _kill_all(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.kill()
