"""Runs a batch of programs over several worker processes and gives every one of them a result, whatever dies."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reft_pl.sandbox import frames
from reft_pl.sandbox.worker import Worker, WorkerGoneError
from reft_pl.types import ExecutionResult, Status

START_SECONDS = 60.0
"""How long a worker may take to import what it needs (SymPy on a busy machine)."""

START_ATTEMPTS = 10
"""How often a worker is started that dies before it is ready: somebody may be killing our processes."""

ATTEMPTS = 5
"""How often a program is tried that had its worker die under it."""

_AHEAD = 4
"""Programs handed to a worker at a time, so that it never waits for the trainer's threads."""

_AHEAD_BYTES = 32768
"""Only small programs go ahead: the socket's buffer takes them without the worker reading."""


class WorkerStartError(Exception):
    """A worker did not say that it is ready; the text is what it said instead, if anything."""


@dataclass
class _Job:
    index: int
    source: bytes
    attempts: int = 0


class _Batch:
    """Programs still to run and results so far, shared by the threads that serve the workers."""

    def __init__(self, sources: Sequence[str]):
        self._waiting = deque(_Job(index, frames.encode_source(source)) for index, source in enumerate(sources))
        self._results: list[ExecutionResult | None] = [None] * len(sources)
        self._lock = threading.Lock()
        self.error: BaseException | None = None

    def take(self, max_bytes: int | None) -> _Job | None:
        """The next program, unless none is left or it is larger than ``max_bytes``."""
        with self._lock:
            if not self._waiting or (max_bytes is not None and len(self._waiting[0].source) > max_bytes):
                return None
            return self._waiting.popleft()

    def give_back(self, jobs: Sequence[_Job] | deque[_Job]) -> None:
        """Programs that a worker held and did not run come first again."""
        with self._lock:
            self._waiting.extendleft(reversed(jobs))

    def finish(self, job: _Job, result: ExecutionResult) -> None:
        """Note a program's result."""
        self._results[job.index] = result

    def stop(self, error: BaseException) -> None:
        """Nobody needs the rest any more."""
        with self._lock:
            self._waiting.clear()
            self.error = self.error or error

    def results(self) -> list[ExecutionResult]:
        """All results, in the programs' order."""
        if self.error is not None:
            raise self.error
        return [result for result in self._results if result is not None]


class WorkerPool:
    """Several workers of a kind, started when first needed.

    Args:
        make_worker: Makes one, not started.
        workers: How many at most.
        request_seconds: How long a program may take in the worker's own judgement plus what it needs to say so; a worker that
            is silent for longer is killed and its program counts as a timeout.
        backend: Name in the results.
    """

    def __init__(self, make_worker: Callable[[], Worker], workers: int, request_seconds: float, backend: str):
        self._workers = [make_worker() for _ in range(workers)]
        self._request_seconds = request_seconds
        self._backend = backend
        self._owner = os.getpid()
        self._lock = threading.Lock()
        weakref.finalize(self, _kill_all, self._workers)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def run(self, sources: Sequence[str]) -> list[ExecutionResult]:
        """One result a program, in order.

        Raises:
            WorkerStartError: a worker could not be started.
        """
        self._forget_if_forked()
        with self._lock:
            batch = _Batch(sources)
            threads = [
                threading.Thread(
                    target=self._serve, args=(worker, batch), name=f"sandbox-{self._backend}-{number}", daemon=True
                )
                for number, worker in enumerate(self._workers[: len(sources)])
            ]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    thread.join()
            except BaseException as error:  # Ctrl-C: nobody waits for the results any more
                batch.stop(error)
                self._kill()
                raise
            return batch.results()

    def close(self) -> None:
        """Stop the workers; ``run`` starts them anew."""
        self._forget_if_forked()
        with self._lock:
            self._kill()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    def _forget_if_forked(self) -> None:
        """After a fork (a data loader's, say) the workers are the parent's: leave them to it and have our own."""
        if self._owner != os.getpid():
            self._owner = os.getpid()
            self._lock = threading.Lock()  # a thread of the parent may have held the old one
            for worker in self._workers:
                worker.forget()

    def _serve(self, worker: Worker, batch: _Batch) -> None:
        inside: deque[_Job] = deque()  # handed to the worker, in the order in which it will answer
        try:
            while True:
                try:
                    self._start(worker)
                    self._fill(worker, batch, inside)
                    if not inside:
                        return
                    status, value, detail, seconds = worker.receive(self._request_seconds)
                    batch.finish(inside.popleft(), ExecutionResult(Status(status), value, seconds, self._backend, detail))
                except TimeoutError:  # noqa: PERF203 (per program, not per item of a hot loop)
                    worker.kill()
                    batch.finish(inside.popleft(), ExecutionResult(Status.TIMEOUT, None, self._request_seconds, self._backend))
                    self._give_back(inside, batch)
                except WorkerGoneError:
                    worker.kill()
                    if inside:
                        self._blame(inside.popleft(), batch)
                    self._give_back(inside, batch)
        except BaseException as error:
            batch.stop(error)

    @staticmethod
    def _start(worker: Worker) -> None:
        """Start the worker unless it runs; again if it is killed while it starts.

        Raises:
            WorkerStartError: it refuses, or does not come up.
        """
        if worker.pid is not None:
            return
        said = ""
        for _ in range(START_ATTEMPTS):
            worker.start()
            try:
                _, _, said, _ = worker.receive(START_SECONDS)
            except TimeoutError:
                worker.kill()
                raise WorkerStartError(f"no word from the process within {START_SECONDS:.0f} s") from None
            except WorkerGoneError as error:
                worker.kill()
                said = f"the process ends while it starts ({error})"
            else:
                if said == frames.READY:
                    return
                worker.kill()
                break
        raise WorkerStartError(said)

    def _fill(self, worker: Worker, batch: _Batch, inside: deque[_Job]) -> None:
        """Keep a few small programs in the worker's hands, or one large one."""
        while len(inside) < _AHEAD and (job := batch.take(None if not inside else _AHEAD_BYTES)) is not None:
            inside.append(job)
            worker.send(job.source, self._request_seconds)
            if len(job.source) > _AHEAD_BYTES:
                return

    @staticmethod
    def _give_back(inside: deque[_Job], batch: _Batch) -> None:
        batch.give_back(inside)
        inside.clear()

    def _blame(self, job: _Job, batch: _Batch) -> None:
        """The worker died over this program: by its fault, or by somebody's kill. Try again, but not forever."""
        job.attempts += 1
        if job.attempts < ATTEMPTS:
            batch.give_back([job])
        else:
            batch.finish(job, ExecutionResult(Status.WORKER_DIED, None, 0.0, self._backend))


def _kill_all(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.kill()
