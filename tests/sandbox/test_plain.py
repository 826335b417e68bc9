"""Plain programs: the syntax check, isolation between programs, and the shared process."""

import ast
import builtins
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reft_pl.errors import UserError
from reft_pl.sandbox import plain as plain_module
from reft_pl.sandbox.cpython import CPythonSandbox, PlainSandbox
from reft_pl.sandbox.plain import FUNCTIONS, beyond_plain
from reft_pl.types import Status


def solution(body):
    return f"def solution():\n {body}"


PLAIN = [
    "return 6 * 7", '"""A question?"""\n total = 0\n for i in range(4):\n  total += i\n return total',
    "import math\n return math.sqrt(16)", "x = [i ** 2 for i in range(3)]\n x[0] = 5\n return sum(x) / len(x)",
    "a, b = divmod(7, 2)\n return a if a > b else b", "return round(2.675, 2)", "while True:\n  return 1", "return 'B'",
    "return sorted([3, 1])[0]", "return", "for _, x in enumerate([1]):\n  pass\n return x",
]  # fmt: skip
NOT_PLAIN = [
    "return (x for x in [1])", "return len(map(abs, [1]))", "return 1 is 1", "return {1: 2}[1]", "return list({1})[0]",
    "return f'{1}'", "return '{0.__class__}'.format(1)", "return (1).real", "return [].append", "return (lambda: 1)()",
    "yield 1", "return solution()", "return max([1], key=abs)", "return max(*[1])", "return print", "return eval('1')",
    "return [abs][0](1)", "return __builtins__", "__builtins__['abs'] = 1\n return 1", "return __import__('os')",
    "return __name__", "global x\n x = 1", "import os\n return 1", "import math as abs\n return 1",
    "import math, os\n return 1", "from math import sqrt\n return sqrt(4)", "math.pi = 3\n return math.pi",
    "for math.pi in [3]: pass\n return 1", "math = 3\n return math", "abs = max\n return abs(1, 2)",
    "for len in [1]: pass\n return len", "[abs for abs in [1]]\n return 1", "return math.factorial(5)",
    "return math.__dict__", "m = math\n m.pi = 3\n return 1", "del x\n return 1",
    "try:\n  return 1\n except Exception:\n  return 2", "assert 1\n return 1", "return (y := 1)",
    "with open('x') as f: return 1", "class A: pass\n return 1", "def f(): return 1\n return f()", "raise SystemExit",
    "return b'x'", "return 1j", "return ...",
    "return '%s' % zip([1])", "return len('%d' % 5)",
    "x: int = 1\n return x", "return [1, 2][0:1]", "return 1 in [1]",
    "match 1:\n  case 1: return 1", "async def f(): pass\n return 1", "x, *y = [1, 2]\n return x", "return 1 @ 1",
]  # fmt: skip
DEFINITIONS = [
    "", "x = 1", "def other():\n return 1", "def solution(x):\n return 1", "def solution(x=print('x')):\n return 1",
    "def solution() -> print('x'):\n return 1", "@print\ndef solution():\n return 1", "async def solution():\n return 1",
    "def solution():\n return 1\nmath.pi = 3", "def solution():\n return 1\ndef solution():\n return 2", "solution = abs",
    "def solution(*, x):\n return 1", "def solution(*x):\n return 1", "import os\ndef solution():\n return 1",
]  # fmt: skip


@pytest.mark.parametrize("body", PLAIN)
def test_arithmetic_is_plain(body):
    assert beyond_plain(solution(body)) == ""


@pytest.mark.parametrize("program", [*map(solution, NOT_PLAIN), *DEFINITIONS])
def test_other_programs_are_not_plain(program):
    assert beyond_plain(program)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a newer Python's syntax")
def test_type_parameters_are_not_plain():
    assert beyond_plain("def solution[T: print('x')]():\n return 1")


def test_every_ast_node_is_classified():
    """The syntax check is an allow-list, so constructs of newer Python versions are not plain."""
    expected = "Add And Assign AugAssign BinOp BoolOp Break Compare Continue Div Eq Expr FloorDiv For Gt GtE If IfExp List"
    expected += " ListComp Load Lt LtE Mod Mult Not NotEq Or Pass Pow Return Store Sub Subscript Tuple UAdd USub UnaryOp While"
    assert sorted(node.__name__ for node in plain_module._ALLOWED) == expected.split()


names = st.sampled_from(["x", "y", "math", "abs", "print", "eval", "__builtins__", "solution", "pi", "len", "object"])
expressions = st.recursive(
    names | st.integers(0, 9).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, names).map("{0[0]}.{0[1]}".format),
        st.tuples(inner, inner).map("{0[0]}({0[1]})".format),
        st.tuples(inner, inner).map("{0[0]}[{0[1]}]".format),
        st.tuples(inner, inner).map("({0[0]} + {0[1]})".format),
        st.tuples(inner, names, inner).map("[{0[0]} for {0[1]} in {0[2]}]".format),
    ),
    max_leaves=8,
)


@given(target=expressions, value=expressions)
def test_plain_programs_use_and_change_only_their_own_names(target, value):
    """Independent version of the check: attributes of ``math``, calls of listed functions, names that are not builtins."""
    program = solution(f"{target} = {value}\n return {value}")
    try:
        admitted = not beyond_plain(program)
    except SyntaxError:
        return
    if not admitted:
        return
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) in {"math.pi"}
            assert isinstance(node.ctx, ast.Load)
        if isinstance(node, ast.Name):
            foreign = hasattr(builtins, node.id) or node.id.startswith("__") or node.id == "math"
            assert not foreign or isinstance(node.ctx, ast.Load)
            assert node.id in FUNCTIONS | {"math"} or not foreign
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) in FUNCTIONS | {"math.pi"}


def test_only_plain_programs_run_in_the_plain_sandbox(plain):
    others = [*map(solution, NOT_PLAIN), *DEFINITIONS]
    assert {result.status for result in plain.run(others)} == {Status.UNSUPPORTED}
    results = plain.run([solution(body) for body in PLAIN])
    assert {result.status for result in results} == {Status.OK, Status.WRONG_TYPE}


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass", "return (10**10**7)**50 % 97", "return [0] * 10**10", "x = 'x'\n while True: x = x + x",
        "return sum(range(10**13))", "return sorted(range(10**9))[0]", "x = []\n while True: x = [x, x, 1]",
        "x = 1\n while True: x = [x]", "return " + "(" * 10**5 + ")" * 10**5, "return " + "-" * 10**6 + "1",
"x = [1]\n x[0] = x\n while x == x: pass",
    ],
)  # fmt: skip
def test_failures_are_repeated_in_a_separate_process(plain, body):
    start = time.monotonic()
    assert plain.run([solution(body)])[0].status in (Status.UNSUPPORTED, Status.EXCEPTION, Status.SYNTAX_ERROR)
    assert time.monotonic() - start < 2.0
    assert plain.run([solution("return 42")])[0].value == 42.0


def test_a_question_can_contain_a_percent_sign():
    assert beyond_plain(solution('"""What is 5% of 20?"""\n return 1')) == ""


def shared_and_alone(sandbox, programs):
    """Return status and value of programs in the shared child and in separate processes."""
    alone = sandbox.run([f"nothing = {{}}\n{program}" for program in programs])
    return [[(result.status, result.value) for result in results] for results in (sandbox.run(programs), alone)]


def test_the_recursion_limit_equals_that_of_a_separate_process(cpython):
    nested = "x=[]\n y=[]\n for i in range({}):\n  x=[x]\n  y=[y]\n return 1 + (x == y)"
    shared, alone = shared_and_alone(cpython, [solution(nested.format(depth)) for depth in range(970, 1000)])
    assert shared == alone
    assert len(set(shared)) == 2  # the limit is among these depths


@pytest.mark.parametrize(
    "first",
    [
        'x = "a" * 31000000\n return len(x)',  # freed immediately
        "x = [0]\n x += [[0] * 3000000]\n x[0] = x\n return 5",  # freed only by the garbage collector
        "x = [0]\n x[0] = x\n while True:\n  x += [[0] * 100000]",
    ],
)
@pytest.mark.slow
def test_the_memory_limit_equals_that_of_a_separate_process(first):
    filling = 'x = []\n for i in range(54):\n  x += ["a" * 1105920]\n for i in range({}):\n  x += ["a" * 20000]\n return len(x)'
    sandbox = CPythonSandbox(workers=1, memory_mb=64)
    try:
        programs = [solution(first), *(solution(filling.format(number)) for number in range(300, 420, 4))]
        shared, alone = shared_and_alone(sandbox, programs)
    finally:
        sandbox.close()
    assert shared == alone
    assert {Status.OK, Status.MEMORY} <= {status for status, _ in shared}


def test_garbage_of_one_program_does_not_affect_the_next():
    sandbox = PlainSandbox(workers=1, memory_mb=96)
    try:
        greedy = [
            solution("x = [0]\n x += [[0] * 9000000]\n x[0] = x\n return 5"),
            solution("x = [0]\n while True: x += [x, [0] * 1000]"),
        ]
        small = [solution(f"x = [0] * 4000000\n return {i}") for i in range(6)]
        assert [r.value for r in sandbox.run([greedy[0], small[0], greedy[1], *small[1:]])] == [
            5.0,
            0.0,
            None,
            1.0,
            2.0,
            3.0,
            4.0,
            5.0,
        ]
    finally:
        sandbox.close()


def test_no_other_program_inherits_the_socket_to_the_shared_child(cpython):
    cpython.run([solution("return 1")])
    sockets = [w._plain for pool in cpython._pools.values() for w in pool._team.workers if w._plain is not None]
    assert sockets
    assert not any(os.get_inheritable(end.fileno()) for end in sockets)


def test_an_orphaned_shared_child_exits(cpython):
    cpython.run([solution("return 1")])
    children = [child for pid in cpython.worker_pids for child in children_of(pid)]
    limits = [Path(f"/proc/{child}/limits").read_text(encoding="ascii") for child in children]
    assert children
    assert all("Max cpu time              60                   60" in text for text in limits)


def test_programs_that_share_a_process_leave_nothing_behind(plain):
    results = plain.run([solution("seen = 1\n return 1"), solution("return seen")] * 6)
    assert [result.status for result in results] == [Status.OK, Status.EXCEPTION] * 6
    assert {result.detail for result in results} == {"", "NameError"}


def test_plain_programs_share_a_process_and_others_get_their_own():
    """The shared child is the zygote's only child that outlives programs."""
    sandbox = CPythonSandbox(workers=1)
    try:
        sandbox.run([solution("return 1")])
        (shared,) = children_of(sandbox.worker_pids[0])
        sandbox.run([solution(f"return {i}") for i in range(20)] + [solution(f"yield {i}") for i in range(3)])
        assert children_of(sandbox.worker_pids[0]) == [shared]
        descriptors = len(list(Path(f"/proc/{sandbox.worker_pids[0]}/fd").iterdir()))
        os.kill(shared, signal.SIGKILL)
        assert [r.value for r in sandbox.run([solution(f"return {i}") for i in range(4)])] == [0.0, 1.0, 2.0, 3.0]
        (other,) = children_of(sandbox.worker_pids[0])
        assert other != shared
        assert len(list(Path(f"/proc/{sandbox.worker_pids[0]}/fd").iterdir())) == descriptors
        lines = Path(f"/proc/{other}/status").read_text(encoding="utf-8").splitlines()
        status = dict(line.split(":\t", 1) for line in lines)
        assert (status["NoNewPrivs"], status["Seccomp"], int(status["CapEff"], 16)) == ("1", "2", 0)
    finally:
        sandbox.close()


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def test_a_failing_plain_program_ends_as_in_a_separate_process(cpython):
    """A separate process with the full time limit decides timeouts, memory errors and recursion depth."""
    bodies = ["while True: pass", "return [0] * 10**10", "return " + "(" * 10**5 + ")" * 10**5, "return 1 / 0", "return 5 +"]
    shared = cpython.run([solution(body) for body in bodies])
    alone = cpython.run([f"nothing = {{}}\n{solution(body)}" for body in bodies])
    assert [r.status for r in shared] == [r.status for r in alone]
    assert [r.status.value for r in shared] == ["timeout", "memory", "syntax_error", "exception", "syntax_error"]


def test_a_dataset_is_plain(shared, plain):
    rows = json.loads((shared / "data" / "svamp_python_sdp.json").read_text(encoding="utf-8"))
    results = plain.run([row["answer_cot"] for row in rows])
    assert sum(result.status is Status.UNSUPPORTED for result in results) < 0.01 * len(rows)
    assert not [
        row["item_id"]
        for row, result in zip(rows, results, strict=True)
        if result.status is Status.OK and abs(result.value - float(row["answer_value"])) > 1e-2
    ]


def test_the_plain_sandbox_runs_without_kernel_confinement():
    """Simulate a system other than Linux: no seccomp, Landlock, capabilities, prctl or /proc."""
    script = (
        "import sys\nfrom reft_pl.sandbox.cpython import PlainSandbox\n"
        "sandbox = PlainSandbox(workers=1)\nmade = sandbox.make_worker('')\n"
        "made._command[-1] = 'import sys; sys.platform = \"other\"; ' + made._command[-1]\n"
        "print(made.run(b'def solution():\\n return 6 * 7', 5)[0])\n"
        "print(made.run(b'def solution():\\n yield 6 * 7', 5)[0])\nmade.kill()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["('ok', 42.0, '')", "('unsupported', None, '')"]


def test_a_sandbox_that_cannot_start_is_one_sentence(monkeypatch):
    sandbox = PlainSandbox(workers=1)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(UserError, match="PlainSandbox cannot start its processes"):
        sandbox.run([solution("return 1")])
