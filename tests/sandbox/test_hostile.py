"""The shared list of hostile programs: every one ends as expected in CPython, and none gets the better of Monty."""

import json

import pytest

from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.sandbox.monty import MontySandbox
from reft_pl.sandbox.tiered import TieredSandbox
from reft_pl.types import Status

SANE = "def solution():\n return 6 * 7"


def outcomes(sandbox_class, rows):
    """Pairs of a row and its result, each run with the time that its row gives it, one at a time: it is wall time."""
    for seconds in sorted({row["seconds"] for row in rows}):
        chosen = [row for row in rows if row["seconds"] == seconds]
        sandbox = sandbox_class(timeout_seconds=seconds, workers=1)
        try:
            results = sandbox.run([row["source"] for row in chosen])
            assert sandbox.run([SANE, SANE])[1].value == 42  # and the sandbox lives on
        finally:
            sandbox.close()
        yield from zip(chosen, results, strict=True)


def name_of(result):
    return "value" if result.status is Status.OK else result.status.value


@pytest.fixture(scope="module")
def rows(shared):
    lines = (shared / "sandbox" / "hostile.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("sandbox_class", [CPythonSandbox, pytest.param(TieredSandbox, marks=pytest.mark.slow)])
def test_hostile_programs_end_as_expected(rows, sandbox_class):
    wrong = [
        (row["id"], name_of(result), row["expected"])
        for row, result in outcomes(sandbox_class, rows)
        if name_of(result) not in row["expected"] or result.seconds > row["seconds"] + 1
    ]
    assert not wrong


def test_in_monty_nothing_escapes_hangs_or_forges_a_value(rows):
    wrong = [
        (row["id"], name_of(result), result.seconds)
        for row, result in outcomes(MontySandbox, rows)
        if (result.status is Status.OK and "value" not in row["expected"]) or result.seconds > row["seconds"] + 1
    ]
    assert not wrong
