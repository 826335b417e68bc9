"""The confined CPython: what programs can use and return, limits, copies, and executions that are cut short."""

import copy
import pickle
import time

import pytest
from jsonargparse import ArgumentParser

from reft_pl.errors import UserError
from reft_pl.sandbox import cpython as cpython_module
from reft_pl.sandbox.base import Sandbox
from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.sandbox.worker import Worker, WorkerStartError
from reft_pl.types import Status

SANE = "def solution():\n return 6 * 7"


def test_names_in_scope(cpython):
    results = cpython.run(
        [
            "def solution():\n return math.floor(2.5)",
            "def solution():\n return sympy.Rational(1, 4)",
            "from sympy.solvers import solve\nfrom sympy import symbols, integrate, sin, pi, nsolve\n"
            "def solution():\n x = symbols('x')\n"
            " return solve(2*x - 6, x)[0] + integrate(sin(x), (x, 0, pi)) + nsolve(x**2 - 4, x, 1)",
            "import sympy.stats as s\ndef solution():\n return s.E(s.Die('D', 6))",
            "import numpy as np\ndef solution():\n return np.linalg.det(np.array([[2.0, 0], [0, 3]]))",
            "from statistics import mean\nfrom fractions import Fraction\nfrom datetime import date\n"
            "def solution():\n return mean([1, 2, 3]) + Fraction(1, 2) + (date(2024, 3, 1) - date(2024, 2, 1)).days",
            "if __name__ == '__main__':\n def solution():\n  return 3",
            "def solution():\n print('working', flush=True)\n return 4",
        ]
    )
    assert [result.value for result in results] == pytest.approx([2.0, 0.25, 7.0, 3.5, 6.0, 31.5, 3.0, 4.0])


def test_choices(cpython):
    results = cpython.run([f"def solution():\n return {letter!r}" for letter in ("a", " E ", "f", "none")])
    assert [(result.status, result.value) for result in results] == [
        (Status.OK, "a"),
        (Status.OK, "e"),
        (Status.NON_NUMERIC, None),
        (Status.NON_NUMERIC, None),
    ]


def test_a_machine_without_seccomp_is_refused(monkeypatch):
    monkeypatch.setattr(cpython_module, "seccomp_available", lambda: False)
    with pytest.raises(UserError, match="allow_unsafe"):
        CPythonSandbox().run([SANE])
    sandbox = CPythonSandbox(workers=1, allow_unsafe=True)
    assert sandbox.run([SANE])[0].value == 42.0
    sandbox.close()


@pytest.mark.parametrize(
    "settings",
    [{"timeout_seconds": 0.0}, {"timeout_seconds": float("inf")}, {"timeout_seconds": 1e7}, {"memory_mb": 1}, {"workers": 0}],
)
def test_invalid_limits_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        CPythonSandbox(**settings)


def test_the_memory_limit_is_the_programs_own():
    """Memory that the zygote already uses, such as for SymPy and NumPy, does not count."""
    hungry = "{}def solution():\n return len(bytearray({} << 20)) >> 20"
    sandbox = CPythonSandbox(memory_mb=64, workers=1)
    try:
        results = sandbox.run([hungry.format(first, mb) for first in ("", "import numpy\n") for mb in (40, 70)])
    finally:
        sandbox.close()
    assert [(result.status, result.value) for result in results] == [(Status.OK, 40.0), (Status.MEMORY, None)] * 2


def test_a_config_names_a_sandbox_and_its_limits():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Sandbox, "sandbox")
    config = parser.parse_args(["--sandbox=CPythonSandbox", "--sandbox.timeout_seconds=1.5", "--sandbox.workers=3"])
    sandbox = parser.instantiate_classes(config).sandbox
    assert (type(sandbox), sandbox.timeout_seconds, sandbox.workers) == (CPythonSandbox, 1.5, 3)


def test_no_programs_no_processes():
    sandbox = CPythonSandbox()
    assert sandbox.run([]) == []
    assert sandbox.worker_pids == []


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda sandbox: pickle.loads(pickle.dumps(sandbox))])
def test_copies_start_their_own_processes(cpython, duplicate):
    cpython.run([SANE])
    other = duplicate(cpython)
    assert other.worker_pids == []
    assert other.timeout_seconds == cpython.timeout_seconds
    try:
        assert other.run([SANE])[0].value == 42.0
        assert set(other.worker_pids).isdisjoint(cpython.worker_pids)
    finally:
        other.close()
    assert cpython.run([SANE])[0].value == 42.0


def test_programs_run_while_others_arrive(cpython):
    with cpython.begin() as execution:
        execution.submit("def solution():\n return 1")
        deadline = time.monotonic() + 20
        while not cpython.worker_pids and time.monotonic() < deadline:
            time.sleep(0.01)
        execution.submit("def solution():\n return 2")
        execution.submit("def solution():\n return 1")
        assert [result.value for result in execution.results()] == [1.0, 2.0, 1.0]


def test_leaving_an_execution_drops_what_has_not_started():
    sandbox = CPythonSandbox(timeout_seconds=0.3, workers=1)
    start = time.monotonic()
    try:
        with sandbox.begin() as execution:
            for i in range(100):
                execution.submit(f"while {i + 1}: pass")
    finally:
        sandbox.close()
    assert time.monotonic() - start < 10


def test_a_zygote_that_cannot_start_reports_the_reason():
    worker = Worker((2.0, 256, ("nosuchpackage",), False, False), [])
    with pytest.raises(WorkerStartError, match="No module named 'nosuchpackage'"):
        worker.start()


def test_closing_during_an_execution_is_one_sentence():
    sandbox = CPythonSandbox(timeout_seconds=0.3, workers=1)
    execution = sandbox.begin()
    for i in range(50):
        execution.submit(f"while {i + 1}: pass")
    sandbox.close()
    with pytest.raises(UserError, match="closed"):
        execution.results()
