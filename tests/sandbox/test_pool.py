"""Batches over several processes: order, killed processes, threads, forks, and close."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from reft_pl.errors import UserError
from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.sandbox.worker import Worker
from reft_pl.types import Status

ALONE = "import time\ndef solution():\n time.sleep({seconds})\n return {value}"
PLAIN = "def solution():\n x = 0\n while x < {seconds} * 10000000:\n  x += 1\n return {value}"
"""Programs that take ``seconds``, the second one roughly: in a separate process, and in the shared child."""


def children_of(pids):
    """Return the IDs of all processes with one of these parents."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) in pids and state != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("program", [PLAIN, ALONE])
def test_results_are_in_the_order_of_the_programs(program, workers):
    sandbox = CPythonSandbox(workers=workers)
    try:
        programs = [program.format(seconds=0.01 * (i % 3), value=i) for i in range(30)]
        assert [result.value for result in sandbox.run(programs)] == [float(i) for i in range(30)]
        assert len(sandbox.worker_pids) == workers
    finally:
        sandbox.close()


@pytest.mark.parametrize("victims", ["workers", "their children"])
@pytest.mark.parametrize("program", [PLAIN, pytest.param(ALONE, marks=pytest.mark.slow)])
def test_killing_workers_mid_batch_loses_no_result(program, victims):
    """Six kill -9 while the batch runs, on zygotes or on their children."""
    sandbox = CPythonSandbox(timeout_seconds=5.0)
    count = 300
    results = []
    try:
        sandbox.run([program.format(seconds=0, value=0)] * 2)
        programs = [program.format(seconds=0.015, value=i) for i in range(count)]
        batch = threading.Thread(target=lambda: results.extend(sandbox.run(programs)))
        batch.start()
        killed = 0
        while batch.is_alive() and killed < 6:
            time.sleep(0.2)
            targets = sandbox.worker_pids if victims == "workers" else children_of(sandbox.worker_pids)
            for pid in targets[killed % 2 :][:1]:
                with suppress(ProcessLookupError):  # the program has just ended, which does not count
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
        batch.join(timeout=60)
    finally:
        sandbox.close()
    assert killed >= 3
    assert [(result.status, result.value) for result in results] == [(Status.OK, float(i)) for i in range(count)]


@pytest.mark.parametrize("program", [PLAIN, ALONE])
def test_a_worker_killed_between_batches_is_replaced(program):
    sandbox = CPythonSandbox()
    try:
        for value in range(3):
            assert sandbox.run([program.format(seconds=0, value=value)] * 3)[2].value == value
            for pid in sandbox.worker_pids:
                os.kill(pid, signal.SIGKILL)
    finally:
        sandbox.close()


@pytest.mark.parametrize("first", [PLAIN, ALONE])
def test_a_worker_that_hangs_costs_one_timeout_and_no_other_result(first):
    """A stopped zygote represents any hang of a supervising process."""
    sandbox = CPythonSandbox(timeout_seconds=0.5, workers=1)
    try:
        sandbox.run([first.format(seconds=0, value=0)])
        os.kill(sandbox.worker_pids[0], signal.SIGSTOP)
        start = time.monotonic()
        results = sandbox.run([ALONE.format(seconds=0, value=0)] + [first.format(seconds=0, value=i) for i in range(1, 10)])
        assert time.monotonic() - start < 5
    finally:
        sandbox.close()
    assert [result.status for result in results] == [Status.TIMEOUT] + [Status.OK] * 9
    assert [result.value for result in results[1:]] == [float(i) for i in range(1, 10)]


def test_large_programs_among_small_ones():
    sandbox = CPythonSandbox(timeout_seconds=5.0)
    large = "x = '" + "y" * 3_000_000 + "'\ndef solution():\n return len(x)"
    try:
        results = sandbox.run([large if i % 5 == 0 else ALONE.format(seconds=0, value=i) for i in range(20)])
    finally:
        sandbox.close()
    assert [result.value for result in results] == [3e6 if i % 5 == 0 else float(i) for i in range(20)]


def test_closing_ends_every_process_and_running_again_starts_new_ones():
    sandbox = CPythonSandbox()
    programs = [PLAIN.format(seconds=0.05, value=i) for i in range(8)]
    sandbox.run(programs)
    workers = sandbox.worker_pids
    processes = workers + children_of(workers)
    assert len(processes) == 4  # two zygotes, each with a shared child
    sandbox.close()
    assert wait_until(lambda: not any(map(alive, processes)))
    assert sandbox.worker_pids == []
    assert sandbox.run(programs)[3].value == 3.0
    sandbox.close()


def test_several_threads_can_run_batches_beside_torch(cpython):
    """Works off the main thread while torch's threads run, since no signals are involved."""
    got = {}

    def run(start):
        torch.randn(64, 64) @ torch.randn(64, 64)
        got[start] = [
            r.value for r in cpython.run([f"def solution():\n return {start + i}" for i in range(20)] + ["while 1: pass"])
        ]

    threads = [threading.Thread(target=run, args=(start,)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {start: [*(float(start + i) for i in range(20)), None] for start in (0, 100, 200)}


def _run_in_fork(sandbox, queue):
    queue.put([result.value for result in sandbox.run([PLAIN.format(seconds=0, value=7)] * 3)])


def test_a_fork_of_the_trainer_starts_separate_workers():
    """A forked data loader inherits the sandbox; neither process may disturb the other's workers."""
    sandbox = CPythonSandbox(workers=1)
    try:
        sandbox.run([PLAIN.format(seconds=0, value=1)])
        before = sandbox.worker_pids
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(target=_run_in_fork, args=(sandbox, queue))
        process.start()
        assert queue.get() == [7.0] * 3
        process.join(timeout=20)
        assert process.exitcode == 0
        assert sandbox.run([PLAIN.format(seconds=0, value=2)])[0].value == 2.0
        assert sandbox.worker_pids == before
    finally:
        sandbox.close()


def _race_in_fork(sandbox, queue):
    results = []
    programs = [PLAIN.format(seconds=0, value=i) for i in range(30)]
    threads = [threading.Thread(target=lambda: results.append(sandbox.run(programs))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.put(([[r.value for r in run] for run in results], sandbox._pools["standard"]._team.idle.qsize()))


def test_threads_that_run_first_programs_in_a_fork_share_its_workers(monkeypatch):
    """Each worker serves one thread at a time, whichever thread first notices the fork."""
    sandbox = CPythonSandbox(workers=2)
    try:
        sandbox.run([PLAIN.format(seconds=0, value=1)])
        kill = Worker.kill
        monkeypatch.setattr(Worker, "kill", lambda worker: (time.sleep(0.05), kill(worker)))  # widens the race
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(target=_race_in_fork, args=(sandbox, queue))
        process.start()
        values, idle = queue.get()
        process.join(timeout=20)
    finally:
        monkeypatch.undo()
        sandbox.close()
    assert values == [[float(i) for i in range(30)]] * 8
    assert idle == 2


def test_closing_from_several_threads_beside_programs():
    """Programs end with a result, or with the error that the sandbox was closed."""
    sandbox = CPythonSandbox(workers=2)
    programs = [PLAIN.format(seconds=0, value=i) for i in range(40)]
    odd, stop = [], threading.Event()

    def run():
        while not stop.is_set():
            try:
                values = [result.value for result in sandbox.run(programs)]
            except UserError as error:
                values = [] if "closed" in str(error) else [str(error)]
            except Exception as error:
                values = [repr(error)]
            if values not in ([], [float(i) for i in range(40)]):
                odd.append(values)

    def close():
        while not stop.is_set():
            sandbox.close()
            time.sleep(0.02)

    threads = [threading.Thread(target=target) for target in (run, run, close, close)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    stop.set()
    for thread in threads:
        thread.join(timeout=30)
    sandbox.close()
    assert not any(thread.is_alive() for thread in threads)
    assert odd == []


@pytest.mark.parametrize("ending", ["return", "kill -9"])
def test_no_process_outlives_the_trainer(ending):
    script = (
        "import os, sys, time\nfrom reft_pl.sandbox.cpython import CPythonSandbox\nsandbox = CPythonSandbox()\n"
        "sandbox.run(['def solution():\\n return 1', 'def solution():\\n yield 1'])\n"
        "print(*sandbox.worker_pids, flush=True)\nsys.stdin.readline()\n"
    )
    trainer = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        workers = [int(pid) for pid in trainer.stdout.readline().split()]
        processes = workers + children_of(workers)
        assert len(workers) >= 2
        assert all(map(alive, processes))
        if ending == "return":
            trainer.stdin.close()
        else:
            trainer.kill()
        trainer.wait(timeout=20)
        assert wait_until(lambda: not any(map(alive, processes)))
    finally:
        trainer.kill()
        trainer.wait()
