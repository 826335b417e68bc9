"""The default sandbox: who decides what."""

import copy
import pickle

import pytest
from jsonargparse import ArgumentParser

from reft_pl.errors import UserError
from reft_pl.sandbox import cpython as cpython_module
from reft_pl.sandbox.base import Sandbox
from reft_pl.sandbox.tiered import TieredSandbox
from reft_pl.types import Status

PROGRAMS = {
    "plain": ("def solution():\n return 42", "monty", Status.OK, 42.0),
    "loop": ("def solution():\n while True: pass", "monty", Status.TIMEOUT, None),
    "fault": ("def solution():\n return 1 / 0", "monty", Status.EXCEPTION, None),
    "yield": ("def g():\n yield 41\n yield 1\ndef solution():\n return sum(g())", "cpython", Status.OK, 42.0),
    "del": ("def solution():\n x = 1\n del x\n return 42", "cpython", Status.OK, 42.0),
    "inheritance": ("class A(int): pass\ndef solution():\n return A(42)", "cpython", Status.OK, 42.0),
    "fractions": ("from fractions import Fraction as F\ndef solution():\n return F(126, 3)", "cpython", Status.OK, 42.0),
    "statistics": ("import statistics\ndef solution():\n return statistics.median([1, 42, 99])", "cpython", Status.OK, 42.0),
    "numpy": ("import numpy as np\ndef solution():\n return np.sum([40, 2])", "cpython", Status.OK, 42.0),
    "sympy": ("def solution():\n return sympy.Rational(84, 2)", "cpython", Status.OK, 42.0),
    "syntax": ("def solution(:\n return 1", "cpython", Status.SYNTAX_ERROR, None),
    "type error": ("def solution():\n return 1 + 'x'", "cpython", Status.EXCEPTION, None),
    "choice": ("def solution():\n return 'c'", "monty", Status.OK, "c"),
}


def test_each_program_is_decided_by_the_one_that_can(tiered):
    results = tiered.run([program for program, *_ in PROGRAMS.values()])
    got = {name: (result.backend, result.status, result.value) for name, result in zip(PROGRAMS, results, strict=True)}
    assert got == {name: tuple(expected) for name, (_, *expected) in PROGRAMS.items()}


def test_a_config_names_a_sandbox_and_its_limits():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Sandbox, "sandbox")
    config = parser.parse_args(["--sandbox=TieredSandbox", "--sandbox.timeout_seconds=1.5", "--sandbox.workers=3"])
    sandbox = parser.instantiate_classes(config).sandbox
    assert (type(sandbox), sandbox.timeout_seconds, sandbox.workers) == (TieredSandbox, 1.5, 3)


def test_no_programs_no_processes():
    sandbox = TieredSandbox()
    assert sandbox.run([]) == []
    assert sandbox.worker_pids == []


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda sandbox: pickle.loads(pickle.dumps(sandbox))])
def test_copies_have_processes_of_their_own(tiered, duplicate):
    program = ["def solution():\n return 42", "def g():\n yield 42\ndef solution():\n return sum(g())"]
    tiered.run(program)
    other = duplicate(tiered)
    assert other.worker_pids == []
    assert other.timeout_seconds == tiered.timeout_seconds
    try:
        assert [result.value for result in other.run(program)] == [42.0, 42.0]
        assert set(other.worker_pids).isdisjoint(tiered.worker_pids)
    finally:
        other.close()
    assert [result.value for result in tiered.run(program)] == [42.0, 42.0]


def test_without_the_second_tier_unsupported_programs_say_so(monkeypatch):
    monkeypatch.setattr(cpython_module, "seccomp_available", lambda: False)
    with pytest.raises(UserError, match="second_tier false"):
        TieredSandbox().run(["def solution():\n return 1"])
    sandbox = TieredSandbox(workers=1, second_tier=False)
    try:
        results = sandbox.run(
            ["def solution():\n return 42", "def solution():\n yield 42", "import sympy\ndef solution():\n return 1"]
        )
    finally:
        sandbox.close()
    assert [result.status for result in results] == [Status.OK, Status.UNSUPPORTED, Status.UNSUPPORTED]


def test_rounding_and_sets_are_cpythons(tiered):
    values = [88.65, 2.675, 0.125, 1.005, 5.015]
    programs = [f"def solution():\n return round({value}, 2)" for value in values]
    results = tiered.run([*programs, "def solution():\n return list({30, 1, 22})[0]"])
    assert [result.value for result in results] == [*(round(value, 2) for value in values), next(iter({30, 1, 22}))]
