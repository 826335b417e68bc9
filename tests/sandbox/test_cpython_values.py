"""Results equal plain CPython's, for the shared list of values and for generated programs."""

import json
import math
import random

import pytest

from reft_pl.sandbox.cpython import CPythonSandbox
from reft_pl.types import Status


def test_the_shared_values(shared):
    rows = [json.loads(line) for line in (shared / "sandbox" / "values.jsonl").read_text(encoding="utf-8").splitlines()]
    sandbox = CPythonSandbox(timeout_seconds=5)
    try:
        results = sandbox.run([row["source"] for row in rows])
    finally:
        sandbox.close()
    wrong = [
        (row["id"], result.status.value, result.value, row["status"], row["value"])
        for row, result in zip(rows, results, strict=True)
        if result.status.value != row["status"] or not same(result.value, row["value"])
    ]
    assert not wrong


def same(value, expected):
    if isinstance(value, float) and isinstance(expected, float):
        return value == expected or math.isclose(value, expected, rel_tol=1e-15)
    return value == expected


class ProgramWriter:
    """Generates small programs with constructs in which interpreters differ: laziness, iterators, rounding, order, numbers."""

    def __init__(self, seed):
        self.dice = random.Random(seed)

    def program(self):
        lines = ["import itertools, functools, math", "from decimal import Decimal", "from fractions import Fraction"]
        lines += ["def solution():"]
        lines += [f" v{i} = {self.iterable(2)}" for i in range(2)]
        lines += [f" n{i} = {self.number(2, names=True)}" for i in range(2)]
        if self.dice.random() < 0.3:
            lines += [" for x in v0:", "  if x and x > 2: break"]
        return "\n".join([*lines, f" return {self.number(3, names=True)}"])

    def pick(self, *choices):
        return self.dice.choice(choices)

    def number(self, depth, names=False):
        if depth == 0:
            return self.pick("0", "1", "2", "3", "7", "-4", "2.5", "0.1", "2.675", "10**18", "Decimal('1.1')", "Fraction(1, 3)")
        number, iterable = (lambda: self.number(depth - 1, names)), (lambda: self.iterable(depth - 1, names))
        return self.pick(
            lambda: f"({number()} {self.pick('+', '-', '*', '/', '//', '%')} {number()})",
            lambda: f"round({number()}, {self.pick('0', '1', '2')})",
            lambda: f"sum({iterable()})",
            lambda: f"len({iterable()})",
            lambda: f"len(list({iterable()}))",
            lambda: f"next({iterable()}, 5)",
            lambda: f"next(iter({iterable()}))",
            lambda: f"{iterable()}[1]",
            lambda: f"max({iterable()}, default=3)",
            lambda: f"({number()} if {number()} is {number()} else {number()})",
            lambda: f"sorted({iterable()})[0]",
            lambda: f"int({number()})",
            lambda: f"functools.reduce(lambda a, b: a * 2 + b, {iterable()}, 1)",
            lambda: f"int('{{:.0f}}'.format({number()}))",
        )()

    def iterable(self, depth, names=False):
        if names and self.dice.random() < 0.4:
            return self.pick("v0", "v1")
        if depth == 0:
            return self.pick("[1, 2, 3]", "range(4)", "(5, 1)", "{3, 1, 2}", "{1: 2, 3: 4}", "iter([4, 5])", "'12'")
        inner, number = (lambda: self.iterable(depth - 1, names)), (lambda: self.number(depth - 1, names))
        return self.pick(
            lambda: f"(x * 2 for x in {inner()})",
            lambda: f"[x for x in {inner()} if x]",
            lambda: f"map(lambda x: x + 1, {inner()})",
            lambda: f"filter(None, {inner()})",
            lambda: f"zip({inner()}, {inner()})",
            lambda: f"(a * b for a, b in zip({inner()}, {inner()}))",
            lambda: f"(i + x for i, x in enumerate({inner()}))",
            lambda: f"reversed(list({inner()}))",
            lambda: f"itertools.islice(itertools.count({number()}), 3)",
            lambda: f"itertools.accumulate({inner()})",
            lambda: f"dict.fromkeys({inner()})",
        )()


def plainly(program):
    """Return status and value in this interpreter; the generated programs are harmless."""
    namespace = {}
    try:
        code = compile(program, "<program>", "exec")
    except SyntaxError:
        return "syntax_error", None
    try:
        exec(code, namespace)
        value = namespace["solution"]()
    except Exception:
        return "exception", None
    if isinstance(value, str):
        return ("ok", value.lower()) if value.lower() in set("abcde") else ("non_numeric", None)
    if isinstance(value, bool) or (not isinstance(value, (int, float)) and type(value).__name__ not in ("Decimal", "Fraction")):
        return "wrong_type", None
    return ("ok", float(value)) if math.isfinite(value) else ("non_finite", None)


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize("seed", range(4))
def test_generated_programs_end_as_in_plain_cpython(cpython, seed):
    writer = ProgramWriter(seed)
    programs = list(dict.fromkeys(writer.program() for _ in range(250)))
    expected = [plainly(program) for program in programs]
    assert sum(status == "ok" for status, _ in expected) > 40  # most generated programs return a value
    wrong = [
        (program, result.status.value, result.value, plain)
        for program, result, plain in zip(programs, cpython.run(programs), expected, strict=True)
        if (result.status.value, result.value) != plain
    ]
    assert not wrong


def arithmetic(dice, depth):
    """Generate expressions of plain programs."""
    if depth == 0:
        return dice.choice(["x", "y", "3", "7", "0.1", "2.5", "10", "4096", "9007199254740993", "123456789012345678901"])
    a, b = arithmetic(dice, depth - 1), arithmetic(dice, depth - 1)
    return dice.choice(
        [f"({a} {op} {b})" for op in ("+", "-", "*", "/", "//", "%")]
        + [f"({a} if {a} {op} {b} else {b})" for op in ("<", ">=", "==", "!=")]
        + [
            f"max({a}, {b})",
            f"sum([{a}, {b}, 1])",
            f"abs({a})",
            f"int({a})",
            f"round({a}, 1)",
            f"math.floor({b})",
            f"[{a}, {b}][1]",
        ]
        + [f"({b} ** 2)", f"-{a}", f"round({a}, 1)"]
    )


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize("seed", range(3))
def test_plain_programs_end_as_in_plain_cpython(plain, seed):
    dice = random.Random(seed)
    programs = [ProgramWriter(f"{seed}{i}").program() for i in range(50)]
    programs += [
        f"import math\ndef solution():\n x = 5\n y = {arithmetic(dice, 1)}\n for i in range(3):\n"
        f"  x = x + {arithmetic(dice, 2)}\n return {arithmetic(dice, 3)}"
        for _ in range(250)
    ]
    results = plain.run(programs)
    wrong = [
        (program, result.status.value, result.value, plainly(program))
        for program, result in zip(programs, results, strict=True)
        if result.status is not Status.UNSUPPORTED and (result.status.value, result.value) != plainly(program)
    ]
    assert not wrong
    assert sum(result.status is Status.OK for result in results) > 100
