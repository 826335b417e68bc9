"""The shared lists of hostile programs: each ends with an expected status."""

import json

import pytest

from reft_pl.sandbox.cpython import CPythonSandbox, PlainSandbox
from reft_pl.types import Status

SANE = "def solution():\n return 6 * 7"


def outcomes(sandbox_class, rows):
    """Run each row's program with its time limit, one at a time because the limit is wall time; return (row, result) pairs."""
    for seconds in sorted({row["seconds"] for row in rows}):
        chosen = [row for row in rows if row["seconds"] == seconds]
        sandbox = sandbox_class(timeout_seconds=seconds, workers=1)
        try:
            results = sandbox.run([row["source"] for row in chosen])
            assert sandbox.run([SANE, SANE])[1].value == 42  # the sandbox still works
        finally:
            sandbox.close()
        yield from zip(chosen, results, strict=True)


def name_of(result):
    return "value" if result.status is Status.OK else result.status.value


def rows_of(shared, name):
    lines = (shared / "sandbox" / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def expected(row):
    """Return the statuses allowed here: the list assumes a sandbox where ``ctypes`` and a result's secret are reachable."""
    if "import ctypes" in row["source"]:
        return [*row["expected"], "exception"]
    return [*row["expected"], "no_solution"] if "get('nonce')" in row["source"] else row["expected"]


@pytest.mark.parametrize("name", ["hostile.jsonl", "hostile_2.jsonl"])
def test_hostile_programs_end_as_expected(shared, name):
    wrong = [
        (row["id"], name_of(result), row["expected"])
        for row, result in outcomes(CPythonSandbox, rows_of(shared, name))
        if name_of(result) not in expected(row) or result.seconds > row["seconds"] + 1
    ]
    assert not wrong


@pytest.mark.parametrize("name", ["hostile.jsonl", "hostile_2.jsonl"])
def test_no_plain_program_escapes_hangs_or_forges_a_value(shared, name):
    wrong = [
        (row["id"], name_of(result), result.seconds)
        for row, result in outcomes(PlainSandbox, rows_of(shared, name))
        if (result.status is Status.OK and "value" not in row["expected"]) or result.seconds > row["seconds"] + 1
    ]
    assert not wrong
