"""Monty: what it answers, what it leaves to others, and attacks of our own on its limits."""

import sys
from pathlib import Path

import pytest

from reft_pl.errors import UserError
from reft_pl.sandbox.monty import MontySandbox
from reft_pl.types import Status

SANE = "def solution():\n return 6 * 7"

ATTACKS = {
    "loop": "def solution():\n while True: pass",
    "loop that catches": "def solution():\n while True:\n  try:\n   while True: pass\n  except BaseException: pass",
    "power": "def solution():\n return (10**10**7)**50 % 97",
    "square of a huge integer": "def solution():\n x = 7**(3 * 10**7)\n return (x * x * x) % 11",
    "digits": "def solution():\n return len(str(3**(2 * 10**7)))",
    "factorial": "def solution():\n return math.factorial(3 * 10**6) % 1000003",
    "shift": "def solution():\n return (1 << 10**11) % 7",
    "list": "def solution():\n return [0] * 10**10",
    "list returned": "def solution():\n return [[i] for i in range(10**6)]",
    "text returned": "def solution():\n return 'x' * 10**8",
    "deep list returned": "def solution():\n x = []\n for _ in range(10**6): x = [x]\n return x",
    "list in itself": "def solution():\n x = []\n x.append(x)\n return x",
    "growing text": "def solution():\n s = 'x'\n while True: s = s + s",
    "padding": "def solution():\n return len(f'{1:>{10**10}}')",
    "sort": "def solution():\n return sorted(range(10**9))[0]",
    "sum": "def solution():\n return sum(range(10**13))",
    "recursion": "def f(n):\n return f(n + 1)\ndef solution():\n return f(0)",
    "printing": "def solution():\n while True: print('x' * 1000)",
    "sleep": "import time\ndef solution():\n time.sleep(60)",
    "many sleeps": "import time\ndef solution():\n while True: time.sleep(0.001)",
    "parentheses": "def solution():\n return " + "(" * 10**5 + ")" * 10**5,
    "brackets": "x = " + "[" * 10**5,
    "operators": "def solution():\n return " + "-" * 10**6 + "1",
    "files": "def solution():\n return len(open('/etc/passwd').read())",
    "environment": "import os\ndef solution():\n return len(os.environ['PATH'])",
    "folders": "from pathlib import Path\ndef solution():\n return len(list(Path('/').iterdir()))",
    "float that lies": "class E:\n def __float__(self): return 42.0\ndef solution():\n return E()",
    "nothing": "",
}


def test_attacks_fail(monty):
    results = dict(zip(ATTACKS, monty.run(list(ATTACKS.values())), strict=True))
    assert {name: result.value for name, result in results.items() if result.status is Status.OK} == {}
    assert {name: result.seconds for name, result in results.items() if result.seconds > 1.5} == {}
    assert [result.value for result in monty.run([SANE] * 4)] == [42.0] * 4


@pytest.mark.parametrize(
    ("program", "status", "value"),
    [
        ("def solution():\n return math.sqrt(16)", Status.OK, 4.0),
        ("import math\ndef solution():\n return 7 // 2", Status.OK, 3.0),
        ("def solution():\n return 'B'", Status.OK, "b"),
        ('def solution():\n """A question?"""\n total = 0\n for i in range(4):\n  total += i\n return total', Status.OK, 6.0),
        ("def solution(:\n return 1", Status.SYNTAX_ERROR, None),
        ("def solution():\n return 5 + \\", Status.SYNTAX_ERROR, None),
        ('def solution():\n """never closed\n return 5', Status.SYNTAX_ERROR, None),
        ("x = '\udcff'", Status.SYNTAX_ERROR, None),
    ],
)
def test_verdicts_that_hold_in_cpython_too(monty, program, status, value):
    (result,) = monty.run([program])
    assert (result.status, result.value, result.backend) == (status, value, "monty")


@pytest.mark.parametrize(
    "body",
    [
        "return '72'", "return True", "return 1, 2", "pass", "return float('inf')", "return 10**400", "return 1 / 0",
        "return apples * 2", "return sum(x for x in [1])", "return len(map(abs, [1]))", "return next(iter([1]))",
        "return 1 is 1", "return round(2.675, 2)", "return list({30, 1, 22})[0]", "return {1: 2}[1]", "return f'{1}'",
        "return len('x' * 9)\n del x", "from decimal import Decimal\n return Decimal(1)", "return (lambda: 1)()",
        "global x\n x = 1\n return x", "sum = max\n return sum([1, 2])", "return math.factorial(5)", "print(1)\n return 1",
        "yield 1", "while True: pass", "return [0] * 10**10", "a = [1]\n b = a\n a *= 2\n return len(b)",
        "x = [[1], 2]\n y = x[0]\n y *= 3\n return len(x[0])",
    ],
)  # fmt: skip
def test_everything_else_is_unsupported(monty, body):
    assert monty.run([f"def solution():\n {body}"])[0].status is Status.UNSUPPORTED


def test_sessions_share_nothing(monty):
    results = monty.run(["def solution():\n seen = 1\n return 1", "def solution():\n return seen"] * 6)
    assert [result.status for result in results] == [Status.OK, Status.UNSUPPORTED] * 6


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel confines on Linux")
def test_the_kernel_confines_worker_and_interpreter():
    sandbox = MontySandbox(workers=1)
    try:
        sandbox.run([SANE])
        (worker,) = sandbox.worker_pids
        children = Path(f"/proc/{worker}/task/{worker}/children").read_text(encoding="ascii").split()
        assert len(children) == 1
        for pid in (worker, *children):
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
            fields = dict(line.split(":\t", 1) for line in status)
            assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
            assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == int(fields["CapBnd"], 16) == 0
            limits = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
            assert "Max address space         unlimited" not in limits
    finally:
        sandbox.close()


def test_a_binary_that_does_not_start_is_one_sentence(monkeypatch):
    monkeypatch.setenv("MONTY_BIN", "/nowhere/monty")
    sandbox = MontySandbox(workers=1)
    with pytest.raises(UserError, match="pydantic-monty"):
        sandbox.run([SANE])
    sandbox.close()


def test_programs_of_a_dataset_get_their_answers(shared, monty):
    import json

    rows = json.loads((shared / "data" / "svamp_python_sdp.json").read_text(encoding="utf-8"))
    results = monty.run([row["answer_cot"] for row in rows])
    wrong = [
        row["item_id"]
        for row, result in zip(rows, results, strict=True)
        if result.status is not Status.UNSUPPORTED
        and (result.value is None or abs(result.value - float(row["answer_value"])) > 1e-2)
    ]
    assert not wrong
    assert sum(result.status is Status.UNSUPPORTED for result in results) < 0.01 * len(rows)
